"""The value types of user record fields: what is accepted, and as what it is read.

Knows shapes of values, not fields. A rule reads a JSON value into its plain form
(an octal string becomes a number, a lone string a list) or refuses it with the
JSON path. Follows the parsers of systemd's user-record.c, described in
homed's USER_RECORD documentation.
"""

from __future__ import annotations

import base64
import binascii
import re
import string
from typing import TYPE_CHECKING, Final

from homemgr.errors import InvalidRecord
from homemgr.record import names
from homemgr.record.jsontext import MAX_INTEGER, Json, child, element, kind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_LONGEST_VALUE_SHOWN: Final = 40
#: Sections whose strings never appear in a message: they hold hashes and passwords.
_QUIET_SECTIONS: Final = (".privileged", ".secret")
#: uids that mean "no uid" in 16 and 32 bits.
INVALID_UIDS: Final = (0xFFFF, 0xFFFFFFFF)

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DECIMAL = re.compile(r"(0|[1-9][0-9]*)\Z", re.ASCII)
_UUID = re.compile(r"[0-9a-fA-F]{8}(-?)[0-9a-fA-F]{4}(\1[0-9a-fA-F]{4}){2}\1[0-9a-fA-F]{12}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_DATE = re.compile(r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])\Z", re.ASCII)
#: All that there are (sys/resource.h), each with its RLIMIT_ before it.
_RESOURCE_LIMITS = frozenset(
    f"RLIMIT_{name}"
    for name in (
        *("CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NOFILE", "AS", "NPROC", "MEMLOCK"),
        *("LOCKS", "SIGPENDING", "MSGQUEUE", "NICE", "RTPRIO", "RTTIME"),
    )
)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")


class Rule:
    """One value type: ``expected`` completes the sentence "expected …" for a refusal."""

    def __init__(self, expected: str, convert: Callable[[Json], Json]) -> None:
        """``convert`` returns the plain form, or raises ValueError for what it refuses."""
        self.expected = expected
        self._convert = convert

    def read(self, value: Json, path: str) -> Json:
        """The plain form of ``value``; raises InvalidRecord that begins with ``path``."""
        try:
            return self._convert(value)
        except ValueError as error:
            raise refusal(path, self.expected, value) from error


class ListOf(Rule):
    """An array of one type; with ``or_one`` a bare element stands for an array of it."""

    def __init__(self, item: Rule, *, or_one: bool = False, unique: bool = False) -> None:
        """``unique`` drops repetitions, the first occurrence keeps its place."""
        super().__init__(f"an array, each element {item.expected}", _refuse)
        self._item = item
        self._or_one = or_one
        self._unique = unique

    def read(self, value: Json, path: str) -> Json:
        """The elements in their plain form."""
        if self._or_one and not isinstance(value, list):
            return [self._item.read(value, path)]
        if not isinstance(value, list):
            raise refusal(path, self.expected, value)
        items = [self._item.read(item, element(path, i)) for i, item in enumerate(value)]
        return [*dict.fromkeys(map(str, items))] if self._unique else items


class Struct(Rule):
    """An object with known members; others are kept as they are."""

    def __init__(self, required: Mapping[str, Rule], optional: Mapping[str, Rule]) -> None:
        """``required`` must be there, ``optional`` may."""
        super().__init__(f"an object with {', '.join(sorted(required))}", _refuse)
        self._required = required
        self._rules = {**required, **optional}

    def read(self, value: Json, path: str) -> Json:
        """The object with its known members in their plain form."""
        if not isinstance(value, dict) or any(name not in value for name in self._required):
            raise refusal(path, self.expected, value)
        return {
            name: self._rules[name].read(item, child(path, name)) if name in self._rules else item
            for name, item in value.items()
        }


class MapOf(Rule):
    """An object used as a map: one rule for its keys, one for its values."""

    def __init__(self, expected: str, is_key: Callable[[str], bool], item: Rule) -> None:
        """``expected`` says what the keys stand for."""
        super().__init__(expected, _refuse)
        self._is_key = is_key
        self._item = item

    def read(self, value: Json, path: str) -> Json:
        """The map with its values in their plain form."""
        if not isinstance(value, dict):
            raise refusal(path, self.expected, value)
        for name in value:
            if not self._is_key(name):
                raise InvalidRecord(f"{child(path, name)}: expected {self.expected}.")
        return {name: self._item.read(item, child(path, name)) for name, item in value.items()}


class OrNull(Rule):
    """A type in which null is a value of its own, not "unset"."""

    def __init__(self, item: Rule) -> None:
        """Accept null besides what ``item`` accepts."""
        super().__init__(f"{item.expected}, or null", _refuse)
        self._item = item

    def read(self, value: Json, path: str) -> Json:
        """None, or the plain form of the value."""
        return None if value is None else self._item.read(value, path)


def refusal(path: str, expected: str, value: Json) -> InvalidRecord:
    """The sentence for a value that is not what was expected; secrets are not repeated."""
    found = kind(value)
    is_plain = isinstance(value, (str, int)) and not isinstance(value, bool)
    if is_plain and not path.startswith(_QUIET_SECTIONS):
        found = f"{value!r:.{_LONGEST_VALUE_SHOWN}}"
    return InvalidRecord(f"{path or '.'}: expected {expected}, found {found}.")


def _refuse(_value: Json) -> Json:
    raise ValueError


def text(expected: str, is_fine: Callable[[str], object]) -> Rule:
    """A string that satisfies ``is_fine``."""

    def convert(value: Json) -> Json:
        if not isinstance(value, str) or not is_fine(value):
            raise ValueError
        return value

    return Rule(expected, convert)


def choice(*words: str) -> Rule:
    """One of some words."""
    return text(f"one of {', '.join(words)}", frozenset(words).__contains__)


def number(low: int = 0, high: int = MAX_INTEGER, *, refused: Sequence[int] = ()) -> Rule:
    """An integer in a range; like systemd, also as a string of decimal digits."""
    limits = f"{low}..{high}" if high != MAX_INTEGER else f"{low} or more"
    but = f" other than {', '.join(map(str, refused))}" if refused else ""

    def convert(value: Json) -> Json:
        if isinstance(value, str) and len(value) <= len(str(MAX_INTEGER)) and _DECIMAL.match(value):
            value = int(value)
        # bool is a subclass of int in Python, and no number in JSON.
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError
        if not low <= value <= high or value in refused:
            raise ValueError
        return value

    return Rule(f"an integer of {limits}{but}", convert)


def octal(high: int) -> Rule:
    """A file mode: a plain integer, or a string of octal digits."""

    def convert(value: Json) -> Json:
        # Any length: base 8 reads in linear time, and leading zeros are usual here.
        if isinstance(value, str) and value and not set(value) - set(string.octdigits):
            value = int(value, 8)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= high:
            raise ValueError
        return value

    return Rule(f"a mode of 0..{high:o} as a number or octal string", convert)


def _boolean(value: Json) -> Json:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _switch(value: Json) -> Json:
    # The LUKS discard fields were once numbers; homed still takes 0 and 1.
    if value in (0, 1) and isinstance(value, int):
        return bool(value)
    raise ValueError


def _resize_mode(value: Json) -> Json:
    if isinstance(value, bool):
        return "shrink-and-grow" if value else "off"
    if value in ("off", "grow", "shrink-and-grow"):
        return value
    raise ValueError


def _weight(value: Json) -> Json:
    if isinstance(value, bool):
        return 100 if value else 0
    if isinstance(value, int) and 0 <= value <= 10000:
        return value
    raise ValueError


def is_normal_path(path: str) -> bool:
    """Whether a path is absolute and free of ``//``, ``.``, ``..`` and an end slash."""
    if not path.startswith("/") or len(path) >= 4096 or _CONTROL.search(path):
        return False
    parts = path[1:].split("/")
    return path == "/" or all(p not in ("", ".", "..") and len(p) <= 255 for p in parts)


def _is_path(path: str) -> bool:
    return path.startswith("/") and len(path) < 4096 and not _CONTROL.search(path)


def _is_shell(path: str) -> bool:
    return _is_path(path) and ":" not in path and not path.endswith("/")


def _is_home_path(path: str) -> bool:
    # A colon would break /etc/passwd lines made from it; nothing can be mounted over "/".
    return is_normal_path(path) and ":" not in path and path != "/"


def _is_base64(value: str) -> bool:
    try:
        base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def _is_file_name(value: str) -> bool:
    return 0 < len(value) <= 255 and "/" not in value and value not in (".", "..")


def _is_plain_line(value: str) -> bool:
    return not _CONTROL.search(value)


TEXT = text("a string", lambda value: True)
LINE = text("a string without control characters", _is_plain_line)
BOOLEAN = Rule("true or false", _boolean)
SWITCH = Rule("true or false", _switch)
UNSIGNED = number()
SCALE = number(0, 0xFFFFFFFF)
UID = number(0, 0xFFFFFFFE, refused=INVALID_UIDS)
USER_NAME = text("a user name", names.is_acceptable)
REALM = text("a DNS name without trailing dot", names.is_realm)
GROUP_NAMES = ListOf(text("a group name", names.is_acceptable), unique=True)
USER_NAMES = ListOf(USER_NAME, unique=True)
TEXTS = ListOf(TEXT)
TEXT_OR_TEXTS = ListOf(TEXT, or_one=True)
PATH = text("an absolute path", _is_path)
SHELL = text("an absolute path without ':' or slash at its end", _is_shell)
HOME_PATH = text("an absolute normalized path other than / and without ':'", _is_home_path)
IMAGE_PATH = text(
    "an absolute normalized path other than /", lambda p: is_normal_path(p) and p != "/"
)
UUID = text("a UUID", _UUID.match)
DATE = text("a date YYYY-MM-DD", _DATE.match)
ENVIRONMENT = ListOf(
    text("an assignment VARIABLE=value", lambda v: _VARIABLE.match(v) and _is_plain_line(v))
)
FILE_NAME = text("a file name", _is_file_name)
BASE64 = text("base64", _is_base64)
BLOB_MANIFEST = MapOf(
    "a file name of letters, digits, '-', '.', '_', '~' with a SHA-256",
    names.is_blob_name,
    text("64 lower-case hex digits", _SHA256.match),
)
RESOURCE_LIMITS = MapOf(
    "a resource limit of getrlimit(2), such as RLIMIT_NOFILE",
    _RESOURCE_LIMITS.__contains__,
    Struct({"cur": OrNull(UNSIGNED), "max": OrNull(UNSIGNED)}, {}),
)
RESIZE_MODE = Rule("off, grow, shrink-and-grow or a boolean", _resize_mode)
WEIGHT = Rule("an integer of 0..10000 or a boolean", _weight)
PKCS11_KEYS = ListOf(
    Struct({"uri": TEXT, "data": BASE64, "hashedPassword": TEXT}, {"padding": TEXT})
)
FIDO2_SALTS = ListOf(
    Struct(
        {"credential": BASE64, "salt": BASE64, "hashedPassword": TEXT},
        {"up": BOOLEAN, "uv": BOOLEAN, "clientPin": BOOLEAN},
    )
)
RECOVERY_KEYS = ListOf(Struct({"type": TEXT, "hashedPassword": TEXT}, {}))
SLOT_NAMES = MapOf("a slot name of letters, digits, '.', '_', '-'", names.is_slot_name, TEXT)
