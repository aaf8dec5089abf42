"""Lines of the four account files: take one user out of them, and put him back where he was.

Pure text, as of passwd(5), shadow(5), group(5) and gshadow(5). Lines that belong to nobody we
ask for are never changed, whatever is in them. Bytes that are no UTF-8 are lone surrogates.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Final, NamedTuple

#: The files, and in this order they are replaced: without its first line nobody logs in.
FILES: Final = ("passwd", "shadow", "group", "gshadow")

#: Where lists of user names stand in a line of a group: members, and in gshadow administrators.
_LISTS: Final = {"group": (3,), "gshadow": (2, 3)}


class Line(NamedTuple):
    """A line that was taken out: where it stood, and its text."""

    position: int
    text: str


class Seat(NamedTuple):
    """A place in a list of names: in which file, which group's, which field, the how manyth."""

    file: str
    group: str
    field: int
    position: int


@dataclass(frozen=True)
class Excerpt:
    """All that the files say of one user."""

    user: str
    #: By file: what is the user's alone.
    lines: dict[str, list[Line]] = field(default_factory=dict)
    seats: list[Seat] = field(default_factory=list)

    def to_json(self) -> dict[str, object]:
        """As a JSON object."""
        return asdict(self) | {"seats": [list(seat) for seat in self.seats]}

    @classmethod
    def from_json(cls, told: dict[str, object]) -> Excerpt:
        """What `to_json` wrote; ValueError, TypeError or KeyError if it did not."""
        lines, seats = told["lines"], told["seats"]
        if not isinstance(lines, dict) or not isinstance(seats, list):
            raise TypeError("no excerpt")
        return cls(
            str(told["user"]),
            {
                str(name): [Line(int(line[0]), str(line[1])) for line in found]
                for name, found in lines.items()
            },
            [Seat(str(s[0]), str(s[1]), int(s[2]), int(s[3])) for s in seats],
        )

    def fields(self, file: str) -> list[str]:
        """The fields of the user's line in ``file``; none if there is no line."""
        found = self.lines.get(file)
        return found[0].text.split(":") if found else []

    @property
    def groups(self) -> list[str]:
        """Groups that the user is a member of by name, in order of names."""
        members = {seat.group for seat in self.seats if seat.field == 3}
        return sorted(members)

    @property
    def administers(self) -> list[str]:
        """Groups whose administrator the user is, see gpasswd(1)."""
        return sorted({seat.group for seat in self.seats if seat.field == 2})

    def with_line(self, file: str, text: str) -> Excerpt:
        """The same with another line of the user in ``file``."""
        old = self.lines[file][0]
        return Excerpt(self.user, {**self.lines, file: [Line(old.position, text)]}, self.seats)

    def in_groups(self, groups: list[str]) -> Excerpt:
        """The same without the seats in groups that the user was a member of, and is no longer."""
        left = set(self.groups) - set(groups)
        seats = [seat for seat in self.seats if seat.group not in left]
        return Excerpt(self.user, self.lines, seats)


#: The text of each file there is.
Texts = dict[str, str]


def excerpt(texts: Texts, user: str, own_group: str | None) -> Excerpt:
    """What the files say of ``user``; ``own_group`` is the group that goes with the account."""
    lines: dict[str, list[Line]] = {}
    seats: list[Seat] = []
    for file, text in texts.items():
        owner = own_group if file in _LISTS else user
        for position, line in enumerate(text.split("\n")):
            fields = line.split(":")
            if fields[0] == owner:
                lines.setdefault(file, []).append(Line(position, line))
            else:
                seats += _seats(file, fields, user)
    return Excerpt(user, lines, seats)


def take_out(texts: Texts, user: str, own_group: str | None) -> Texts:
    """The files without the user; the same texts if he is not in them."""
    return {
        file: "\n".join(
            _without(file, line, user)
            for line in text.split("\n")
            if line.partition(":")[0] != (own_group if file in _LISTS else user) or not line
        )
        for file, text in texts.items()
    }


def put_back(texts: Texts, out: Excerpt) -> Texts:
    """The files with the user in them again, as he was; what is there already stays as it is.

    Groups that are gone by now get no member.
    """
    result = {}
    for file, text in texts.items():
        rows = text.split("\n")
        names = {row.partition(":")[0] for row in rows}
        for position, line in sorted(out.lines.get(file, [])):
            if line.partition(":")[0] not in names:
                # Behind the last line there is the empty one that ends it.
                rows.insert(min(position, max(0, len(rows) - 1)), line)
        for seat in out.seats:
            if seat.file == file:
                rows = [_seated(row, seat, out.user) for row in rows]
        result[file] = "\n".join(rows)
    return result


def has_account(texts: Texts, user: str) -> bool:
    """Whether there is an account of this name."""
    return any(row.partition(":")[0] == user for row in texts["passwd"].split("\n"))


def lost_groups(texts: Texts, out: Excerpt) -> list[str]:
    """Groups the user was in that are no longer there."""
    there = {row.partition(":")[0] for row in texts.get("group", "").split("\n")}
    return [group for group in out.groups if group not in there]


def _seats(file: str, fields: list[str], user: str) -> list[Seat]:
    found = []
    for number in _LISTS.get(file, ()):
        names = fields[number].split(",") if len(fields) > number else []
        found += [
            Seat(file, fields[0], number, position)
            for position, name in enumerate(names)
            if name == user
        ]
    return found


def _without(file: str, line: str, user: str) -> str:
    fields = line.split(":")
    if not _seats(file, fields, user):
        return line
    for number in _LISTS[file]:
        if len(fields) > number:
            fields[number] = ",".join(n for n in fields[number].split(",") if n != user)
    return ":".join(fields)


def _seated(line: str, seat: Seat, user: str) -> str:
    fields = line.split(":")
    if fields[0] != seat.group or len(fields) <= seat.field:
        return line
    names = fields[seat.field].split(",") if fields[seat.field] else []
    if user in names:
        return line
    names.insert(seat.position, user)
    fields[seat.field] = ",".join(names)
    return ":".join(fields)
