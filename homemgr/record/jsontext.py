"""JSON as user records need it: strict reading, and the three written forms.

Knows text and plain values only, nothing of fields or sections' meaning. Refuses
on reading whatever systemd's parser, or a signature over the normal form, could
take differently. Implements the canonical form of systemd.io/USER_RECORD.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final, NoReturn, TypeAlias

from homemgr.errors import InvalidRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

Json: TypeAlias = "bool | int | str | list[Json] | dict[str, Json] | None"
JsonObject: TypeAlias = "dict[str, Json]"

#: Longest record text that is looked at; homed's own files are a few KiB.
MAX_RECORD_BYTES: Final = 1 << 20
#: Longest record that is taken in, as it is written: what machines, signatures and other slots add
#: to it later must not make it one that nobody reads any more.
MAX_NEW_RECORD_BYTES: Final = MAX_RECORD_BYTES - (128 << 10)
#: Most values in one object, a few times what the largest record has. Each takes longer to judge
#: than to write, and who reads them lets nobody else have a turn meanwhile.
MAX_VALUES: Final = 1 << 16
#: Deepest nesting; the user record format itself needs six levels.
MAX_DEPTH: Final = 64
#: The integers a JSON number of systemd can hold.
MIN_INTEGER: Final = -(1 << 63)
MAX_INTEGER: Final = (1 << 64) - 1

#: Members that no signature covers: they differ from machine to machine.
UNSIGNED_SECTIONS: Final = ("binding", "secret", "signature", "status")

_LONGEST_INTEGER: Final = 24  # "-9223372036854775808" has 20 characters, leading zeros are no JSON
_LONGEST_KEY_SHOWN: Final = 64
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+\Z")
# DEL, NUL and lone surrogates: systemd's parser refuses the first two, UTF-8 the third.
_REFUSED_CHARACTER = re.compile("[\x00\x7f\ud800-\udfff]")

# Keys of which one string serves all records; see share_keys.
_SHARED_KEYS: dict[str, str] = {}

_COMPACT = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, allow_nan=False, sort_keys=True, separators=(",", ":")
)
_PRETTY = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, allow_nan=False, sort_keys=True, indent="\t",
    separators=(",", " : "),
)  # fmt: skip


class _Refused(ValueError):
    """A value that a hook met; hooks do not know where in the text they are."""


class _Culprit:
    """Stands in the place of a refused value while its path is looked for."""

    def __init__(self, problem: str) -> None:
        self.problem = problem


def child(path: str, key: str) -> str:
    """The JSON path of a member: ``.a.b``; keys that are no plain words are quoted."""
    if _PLAIN_KEY.match(key):
        return f"{path}.{key[:_LONGEST_KEY_SHOWN]}"
    return f"{path}.{json.dumps(key[:_LONGEST_KEY_SHOWN])}"


def element(path: str, index: int) -> str:
    """The JSON path of an array element: ``.a[0]``."""
    return f"{path or '.'}[{index}]"


def share_keys(keys: Iterable[str]) -> None:
    """Have these keys in memory once, however many records hold them.

    Named by the program, never learnt from what is read: that would be kept for good.
    """
    for key in keys:
        _SHARED_KEYS.setdefault(key, key)


def parse(text: str | bytes) -> JsonObject:
    """Read one JSON object; raises InvalidRecord that begins with the path of the culprit."""
    text = _decode(text)
    # What separates values, though some of it may stand in texts: told without reading them.
    if sum(map(text.count, ",[{")) > MAX_VALUES:
        raise InvalidRecord(f".: expected at most {MAX_VALUES} values, found more.")
    value = parse_any(text)
    if not isinstance(value, dict):
        raise InvalidRecord(f".: expected an object, found {kind(value)}.")
    return value


def parse_any(text: str | bytes) -> Json:
    """The same for any value, such as a list of records."""
    text = _decode(text)
    try:
        value: Json = _STRICT.decode(text)
    except _Refused as error:
        raise InvalidRecord(_locate(text) or f".: {error}") from error
    except json.JSONDecodeError as error:
        raise _syntax(error) from error
    except RecursionError as error:
        raise InvalidRecord(f".: nested deeper than {MAX_DEPTH} levels.") from error
    # Nesting deeper than the number of opening brackets is impossible, and refused
    # characters come as DEL or as escape: the usual record is not walked at all.
    if text.count("{") + text.count("[") > MAX_DEPTH or "\x7f" in text or "\\u" in text:
        check_values(value)
    return value


def check_values(value: Json) -> None:
    """Refuse what :func:`parse` would refuse in a value that was built, not read."""
    for path, problem in _problems(value, "", 0):
        raise InvalidRecord(f"{path or '.'}: {problem}")


def canonical(record: Mapping[str, Json]) -> bytes:
    """The bytes a signature is made over: signed sections, sorted, without white space."""
    signed = {key: value for key, value in record.items() if key not in UNSIGNED_SECTIONS}
    return _COMPACT.encode(signed).encode()


def compact(value: Json) -> str:
    """One line, keys sorted at every level: what goes to the bus and to the user database.

    Sorted because homed shuffles arrays that hold unsorted objects (its defect 2).
    """
    return _COMPACT.encode(value)


def pretty(value: Json) -> str:
    """The form of host files and ``~/.identity``: tabs, ``" : "``, sorted, final newline."""
    return _PRETTY.encode(value) + "\n"


def kind(value: Json) -> str:
    """What sort of value this is, for messages; never its content."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    names = {int: "a number", str: "a string", list: "an array", dict: "an object"}
    return names.get(type(value), f"a Python {type(value).__name__}")


# --- reading --------------------------------------------------------------------


def _decode(text: str | bytes) -> str:
    try:
        raw = text.encode() if isinstance(text, str) else bytes(text)
        if len(raw) > MAX_RECORD_BYTES:
            raise InvalidRecord(
                f".: expected at most {MAX_RECORD_BYTES} bytes of JSON, found {len(raw)}."
            )
        return text if isinstance(text, str) else raw.decode()
    except UnicodeError as error:
        raise InvalidRecord(".: expected UTF-8 text, found other bytes.") from error


def _syntax(error: json.JSONDecodeError) -> InvalidRecord:
    # Only the parser's fixed words, never error.doc: the text may hold a password.
    return InvalidRecord(f".: line {error.lineno}, column {error.colno}: {error.msg}.")


def _unique_pairs(pairs: list[tuple[str, Json]]) -> JsonObject:
    shared = _SHARED_KEYS
    members = {shared.get(key, key): value for key, value in pairs}
    if len(members) != len(pairs):
        raise _Refused("a key occurs twice in one object.")
    return members


def _bounded_int(text: str) -> int:
    # The length test comes first: int() of a megabyte of digits takes minutes.
    if len(text) > _LONGEST_INTEGER or not MIN_INTEGER <= (number := int(text)) <= MAX_INTEGER:
        raise _Refused(f"expected an integer of {MIN_INTEGER}..{MAX_INTEGER}, found another.")
    return number


def _refuse_real(_text: str) -> NoReturn:
    raise _Refused("expected an integer, found a number with a fraction or an exponent.")


def _refuse_constant(_text: str) -> NoReturn:
    raise _Refused("expected JSON, found a number that JSON does not know.")


_STRICT = json.JSONDecoder(
    object_pairs_hook=_unique_pairs,
    parse_int=_bounded_int,
    parse_float=_refuse_real,
    parse_constant=_refuse_constant,
)


# --- finding the path of a refusal, the rare way -----------------------------------


def _locate(text: str) -> str:
    """Read again with culprits left in place, and word the first one with its path."""

    def pairs_or_culprit(pairs: list[tuple[str, object]]) -> object:
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                return dict([*pairs, (key, _Culprit("this key occurs twice in its object."))])
            seen.add(key)
        return dict(pairs)

    def number_or_culprit(text: str) -> object:
        try:
            return _bounded_int(text)
        except _Refused as error:
            return _Culprit(str(error))

    def culprit(text: str) -> object:
        try:
            _refuse_real(text)
        except _Refused as error:
            return _Culprit(str(error))

    try:
        value = json.loads(
            text,
            object_pairs_hook=pairs_or_culprit,
            parse_int=number_or_culprit,
            parse_float=culprit,
            parse_constant=culprit,
        )
    except (json.JSONDecodeError, RecursionError):
        return ""  # broken further on as well: then the first refusal is worded without its path
    return next((f"{path or '.'}: {problem}" for path, problem in _problems(value, "", 0)), "")


def _problems(value: object, path: str, depth: int) -> Iterator[tuple[str, str]]:
    """Walk a value and yield the path and wording of everything that is refused."""
    if depth > MAX_DEPTH:
        yield path, f"nested deeper than {MAX_DEPTH} levels."
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                yield path, "expected keys to be strings, found another."
            elif _REFUSED_CHARACTER.search(key):
                yield path, "a key holds U+0000, U+007F or half a surrogate pair."
            else:
                yield from _problems(item, child(path, key), depth + 1)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _problems(item, element(path, index), depth + 1)
    elif problem := _problem_of_scalar(value):
        yield path, problem


def _problem_of_scalar(value: object) -> str:
    if isinstance(value, str):
        bad = _REFUSED_CHARACTER.search(value)
        return "the string holds U+0000, U+007F or half a surrogate pair." if bad else ""
    if isinstance(value, _Culprit):
        return value.problem
    if value is None or isinstance(value, bool):
        return ""
    if isinstance(value, int):
        inside = MIN_INTEGER <= value <= MAX_INTEGER
        return "" if inside else f"expected an integer of {MIN_INTEGER}..{MAX_INTEGER}."
    return f"expected a JSON value without fractions, found {type(value).__name__}."
