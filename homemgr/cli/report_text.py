"""What became of a home on its way, in words: one list of all that is not as it was.

The result of a transfer is a JSON object: files, bytes, sent_bytes, offline_s (seconds
in which nobody could use the home), uid, and report: {counts: {KIND: NUMBER},
notes: [{kind, path, detail}]}, where the notes may be fewer than were counted.
"""

from __future__ import annotations

import sys

from homemgr.cli.bar import size
from homemgr.cli.output import print_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

Answer = dict[str, object]

#: How many notes of a kind are shown; more are counted.
_SHOWN = 5

#: Kinds that need other words than their own.
_WORDS = {
    "socket-skipped": "socket left out",
    "device-skipped": "device left out",
    "whiteout-skipped": "overlay mark left out",
    "mount-skipped": "mount point left out",
    "capability-dropped": "file capabilities dropped",
    "xattr-dropped": "attribute dropped",
    "acl-entry-dropped": "ACL entry dropped",
    "setid-cleared": "set-id bit cleared",
    "owner-changed": "owner changed",
    "changed-while-read": "changed while it was read",
    "uid-changed": "uid changed",
    "storage-changed": "other storage",
    "gid-changed": "gid changed",
    "group-missing": "group missing here",
    "shell-missing": "shell missing here",
}


def sentence(text: str, answer: Answer) -> str:
    """``text``, and how much there was and has travelled, as far as the service says."""
    how_much = _summary(answer)
    return f"{text}: {how_much}." if how_much else f"{text}."


def _summary(answer: Answer) -> str:
    parts = []
    files, total, sent = (_number(answer, name) for name in ("files", "bytes", "sent_bytes"))
    if files is not None:
        parts.append(f"{files:,} files")
    if total is not None:
        parts.append(size(total))
    if sent is not None:
        parts.append(f"{size(sent)} sent")
    offline = answer.get("offline_s")
    if isinstance(offline, int | float) and offline > 0:
        parts.append(f"out of use for {offline:.1f} s")
    return ", ".join(parts)


def notes(answer: Answer, *, legend: bool) -> None:
    """Print the list of what is not as it was, if there is any such thing."""
    report = answer.get("report")
    if not isinstance(report, dict) or not isinstance(report.get("counts"), dict):
        return
    counts: dict[str, int] = report["counts"]
    told = report.get("notes")
    by_kind: dict[str, list[Mapping[str, object]]] = {}
    for note in told if isinstance(told, list) else []:
        by_kind.setdefault(str(note.get("kind")), []).append(note)
    rows = [row for kind in counts for row in _rows(kind, counts[kind], by_kind.get(kind, []))]
    if rows:
        print_table(("WHAT", "WHERE", "DETAIL"), rows, legend=legend)


def _rows(kind: str, count: int, told: list[Mapping[str, object]]) -> list[list[str]]:
    words = _WORDS.get(kind, kind.replace("-", " "))
    rows = [[words, _where(note), str(note.get("detail") or "-")] for note in told[:_SHOWN]]
    if count > len(rows):
        rows.append([words, f"{count - len(rows):,} more" if rows else f"{count:,}", "-"])
    return rows


def _where(note: Mapping[str, object]) -> str:
    path = str(note.get("path") or "")
    return f"~/{path}" if path else "~"


def _number(answer: Answer, name: str) -> int | None:
    value = answer.get(name)
    return value if isinstance(value, int) else None


def say(text: str, *, aside: bool = False) -> None:
    """One line for people; ``aside`` where standard output is for something else."""
    clean = "".join(c if c.isprintable() else " " for c in text)
    print(clean, file=sys.stderr if aside else sys.stdout)
