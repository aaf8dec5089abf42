"""Command line of the measurements: `python -m tests.bench login [--rounds N] [--json FILE]`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path

from . import login, table
from .inside.plan import SMALL, Plan


def main(argv: list[str]) -> int:
    """Measure, print the table, keep the samples if asked to. 1 if a goal is missed."""
    arguments = _parse(argv)
    if os.geteuid() != 0:
        print("Boxes need root.", file=sys.stderr)
        return 2
    plan = SMALL if arguments.small else Plan()
    if arguments.rounds:
        plan = dataclasses.replace(plan, rounds=arguments.rounds)
    samples = login.measure(plan)
    if arguments.json:
        content = {"plan": dataclasses.asdict(plan), "samples": samples}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n")
    found = table.rows(samples)
    print(table.render(found))
    return 1 if any(row.is_met is False for row in found) else 0


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.bench", description=__doc__)
    parser.add_argument("what", choices=["login"], help="everything from create to look-up")
    parser.add_argument("--rounds", type=int, metavar="N", help="turns of each service")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep all samples there")
    parser.add_argument("--small", action="store_true", help="small numbers: does it still run?")
    return parser.parse_args(argv)


sys.exit(main(sys.argv[1:]))
