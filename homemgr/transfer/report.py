"""What a person has to know about a transfer: notes by kind, some in full, all counted.

In JSON: ``{"counts": {KIND: NUMBER}, "notes": [{"kind", "path", "detail"}]}``; bytes of a
path that are no UTF-8 are lone surrogates there, as `os.fsdecode` makes them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from homemgr.errors import StreamError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: The most notes that are kept in full.
KEPT = 1000

#: The most bytes of paths and details of notes kept in full: a report fits in a frame,
#: even if each byte takes six characters of JSON.
KEPT_BYTES = 128 << 10

_KIND = re.compile(r"[a-z][a-z-]{0,39}")
_MOST_KINDS = 100

#: Integers that every reader of JSON reads exactly.
_MOST = (1 << 53) - 1


class Note(NamedTuple):
    """Something about ``path`` that was not carried over as it was; ``path`` is empty for the top.

    Kinds are words such as ``socket-skipped``: lower case, joined by hyphens.
    """

    kind: str
    path: bytes
    detail: str


class Report:
    """All notes of one transfer."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._counts: dict[str, int] = {}
        self._notes: list[Note] = []
        self._bytes = 0

    @property
    def counts(self) -> Mapping[str, int]:
        """How many notes of each kind there are, in order of kinds."""
        return dict(sorted(self._counts.items()))

    @property
    def notes(self) -> tuple[Note, ...]:
        """The first notes, in full."""
        return tuple(self._notes)

    def add(self, note: Note) -> None:
        """Count a note, and keep it while there is room."""
        self._counts[note.kind] = self._counts.get(note.kind, 0) + 1
        self._keep(note)

    def extend(self, notes: Iterable[Note]) -> None:
        """Add one after the other."""
        for note in notes:
            self.add(note)

    def merge(self, other: Report) -> None:
        """Add what the other side has to report."""
        for kind, count in other.counts.items():
            self._counts[kind] = self._counts.get(kind, 0) + count
        for note in other.notes:
            self._keep(note)

    def to_json(self) -> dict[str, object]:
        """As a JSON object."""
        return {
            "counts": self.counts,
            "notes": [
                {"kind": note.kind, "path": _text(note.path), "detail": note.detail}
                for note in self._notes
            ],
        }

    @classmethod
    def from_json(cls, value: object) -> Report:
        """The report that `to_json` wrote; `StreamError` if it did not."""
        if not isinstance(value, dict):
            raise _malformed()
        report = cls()
        counts, notes = value.get("counts"), value.get("notes")
        if not isinstance(counts, dict) or len(counts) > _MOST_KINDS or not isinstance(notes, list):
            raise _malformed()
        for note in notes:
            report.add(_note(note))
        if len(report._notes) != len(notes):
            raise _malformed()
        for kind, count in counts.items():
            if not _is_kind(kind) or type(count) is not int or not 0 < count <= _MOST:
                raise _malformed()
        if any(counts.get(kind, 0) < count for kind, count in report._counts.items()):
            raise _malformed()
        report._counts = dict(counts)
        return report

    def _keep(self, note: Note) -> None:
        length = len(note.path) + len(note.detail.encode("utf-8", "surrogatepass"))
        if len(self._notes) < KEPT and self._bytes + length <= KEPT_BYTES:
            self._notes.append(note)
            self._bytes += length


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


def _note(value: object) -> Note:
    if not isinstance(value, dict):
        raise _malformed()
    kind, path, detail = value.get("kind"), value.get("path"), value.get("detail")
    if not (isinstance(path, str) and isinstance(detail, str) and _is_kind(kind)):
        raise _malformed()
    try:
        return Note(str(kind), path.encode("utf-8", "surrogateescape"), detail)
    except UnicodeEncodeError as error:
        raise _malformed() from error


def _is_kind(value: object) -> bool:
    return isinstance(value, str) and _KIND.fullmatch(value) is not None


def _malformed() -> StreamError:
    return StreamError("The report of the other side is malformed.")
