"""Command line: `python -m tests.bench WHAT [--rounds N] [--json FILE]`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path

from . import extension, login, migrate, migrate_btrfs, storage, table
from .goals import GOALS
from .inside.plan import SMALL, Plan

_WHAT = ["login", "storage", "extension", "migrate", "migrate-btrfs"]


def main(argv: list[str]) -> int:
    """Measure, print the table, keep the samples if asked to. 1 if a goal is missed."""
    arguments = _parse(argv)
    if os.geteuid() != 0:
        print("Boxes need root.", file=sys.stderr)
        return 2
    plan = SMALL if arguments.small else Plan()
    if arguments.rounds:
        plan = dataclasses.replace(plan, rounds=arguments.rounds)
    samples: object
    if arguments.what == "extension":
        merging = samples = extension.measure(plan)
        text, is_met = extension.render(merging, plan.files), extension.is_met(merging)
    elif arguments.what in ("migrate", "migrate-btrfs"):
        size = migrate.SMALL_HOME if arguments.small else migrate.Size()
        if arguments.rounds:
            size = dataclasses.replace(size, rounds=arguments.rounds)
        how = migrate if arguments.what == "migrate" else migrate_btrfs
        moved = how.measure(size)
        samples = dataclasses.asdict(moved)
        text, is_met = how.render(moved), how.is_met(moved)
    else:
        how_long = storage if arguments.what == "storage" else login
        turns = samples = how_long.measure(plan)
        found = table.rows(turns, storage.GOALS if arguments.what == "storage" else GOALS)
        text, is_met = table.render(found), all(row.is_met is not False for row in found)
    if arguments.json:
        content = {"plan": dataclasses.asdict(plan), "samples": samples}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n")
    print(text)
    return 0 if is_met else 1


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.bench", description=__doc__)
    parser.add_argument("what", choices=_WHAT)
    parser.add_argument("--rounds", type=int, metavar="N", help="turns of each service")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep all samples there")
    parser.add_argument("--small", action="store_true", help="small numbers: does it still run?")
    return parser.parse_args(argv)


sys.exit(main(sys.argv[1:]))
