"""What the service tells about snapshots, in words. Answers are those of org.homemgr1.Manager."""

from __future__ import annotations

import time

from homemgr.cli.extension_text import entries
from homemgr.cli.output import is_terminal, print_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

Answer = dict[str, object]

#: Why a restored file stays as it was.
_KEPT = {
    "exists": "it is there already; --force replaces files, never a directory",
    "special": "it is a socket or a device, which are not restored",
    "denied": "permission denied",
}
#: How many of them are told one by one.
_SHOWN = 20


def listing(rows: Sequence[Answer], *, legend: bool) -> None:
    """All snapshots of a home."""
    cells = [
        (
            str(row["name"]),
            _when(row["taken_usec"]),
            "automatic" if row["automatic"] else str(row["by_uid"]),
            str(row["how"]),
            str(row["reason"]) or "-",
            " ".join(map(str, entries_of(row, "mounted"))) or "-",
        )
        for row in rows
    ]
    if cells or not is_terminal():
        columns = ("NAME", "TAKEN", "BY", "KIND", "REASON", "MOUNTED")
        print_table(columns, cells, legend=legend)
    elif legend:
        print("There are no snapshots.")


def taken(answer: Answer, *, legend: bool) -> None:
    """The name of a new snapshot, which a script may want; never a legend."""
    for note in _note(answer):
        print(note["name"])


def restored(answer: Answer, *, legend: bool) -> None:
    """The name of the snapshot that holds what the home was before."""
    for note in _note(answer):
        print(f"What it was until now is snapshot {note['name']}." if legend else note["name"])


def differences(answer: Answer, *, legend: bool) -> None:
    """What has changed, name by name."""
    found = entries(answer, "changes")
    rows = [(str(e["what"]), str(e["kind"]), str(e["path"])) for e in found]
    if rows or not is_terminal():
        print_table(("CHANGE", "KIND", "PATH"), rows, legend=legend)
    elif legend:
        print("Nothing has changed.")
    if not answer.get("complete", True):
        counts = answer.get("counts")
        total = sum(counts.values()) if isinstance(counts, dict) else 0
        print(f"... and {total - len(rows)} more.")


def restored_files(answer: Answer, *, legend: bool) -> None:
    """How much came back, for people."""
    if legend and is_terminal():
        print(f"{answer['restored']} files and directories restored.")


def kept(answer: Answer) -> list[str]:
    """Why files stay as they were, one by one and then in numbers."""
    found = entries(answer, "kept")
    told = [f"{_clean(str(e['path']))}: {_KEPT[str(e['kind'])]}." for e in found[:_SHOWN]]
    counts = answer.get("counts")
    total = sum(counts.values()) if isinstance(counts, dict) else 0
    return [*told, f"{total - len(told)} more are as they were."] if total > len(told) else told


def entries_of(row: Answer, member: str) -> list[object]:
    """A list in one member of a row."""
    value = row.get(member)
    return value if isinstance(value, list) else []


def _note(answer: Answer) -> list[Answer]:
    note = answer.get("snapshot")
    return [note] if isinstance(note, dict) else []


def _when(usec: object) -> str:
    seconds = usec // 1_000_000 if isinstance(usec, int) else 0
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _clean(text: str) -> str:
    # Names come from users' homes: they must not steer the terminal.
    return "".join(c if c.isprintable() else " " for c in text)
