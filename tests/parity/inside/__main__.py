"""Runs the whole scenario; its outcomes go to standard output as JSON, progress to error."""

from __future__ import annotations

import json
import sys
import time
import traceback

from . import accounts, changes, keys, logins, lookups, names, people, states, terminals
from .recorder import Recorder

SECTIONS = (
    *accounts.SECTIONS,
    *changes.SECTIONS,
    *states.SECTIONS,
    *keys.SECTIONS,
    *lookups.SECTIONS,
    *logins.SECTIONS,
    *names.SECTIONS,
    *terminals.SECTIONS,
)


def main() -> None:
    """One section after the other; one that breaks off says so in an outcome."""
    to = Recorder()
    chosen = sys.argv[1:]
    for section in SECTIONS:
        to.section = section.__name__.replace("_", " ")
        if chosen and section.__name__ not in chosen:
            continue
        start = time.monotonic()
        try:
            section(to)
        except Exception:  # noqa: BLE001 -- the other sections are still worth running
            to.keep("broke off", traceback.format_exc().splitlines()[-1])
            traceback.print_exc()
        left = to.quietly("ListHomes") or [[]]
        names = [row[0] for row in left[0]]  # type: ignore[attr-defined]
        people.remove(to, *names)
        print(f"{to.section}: {time.monotonic() - start:.1f} s", file=sys.stderr)
    json.dump(to.outcomes, sys.stdout)


main()
