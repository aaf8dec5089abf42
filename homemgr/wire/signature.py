"""D-Bus signatures and object paths: splitting, checking, alignment.

Knows the type system of the D-Bus specification and nothing of values, messages
or sockets. Imports nothing slow: the command line loads it on every start.
"""

from __future__ import annotations

from functools import lru_cache

#: Limits of the specification: 32 arrays in 32 structs, 255 bytes in all.
MAX_SIGNATURE_BYTES = 255
MAX_NESTING = 64

BASIC = frozenset("ybnqiuxtdhsog")
#: Multiple of which the first byte of a value stands, by the first letter of its type.
ALIGN = dict.fromkeys("ygv", 1) | dict.fromkeys("nq", 2) | dict.fromkeys("biuhsoa", 4)
ALIGN |= dict.fromkeys("xtd({", 8)


class CodecError(ValueError):
    """A value does not fit its signature, or bytes do not follow the wire format."""


class TooLarge(CodecError):
    """A message has more bytes or descriptors than a bus carries."""


def _end_of_type(signature: str, at: int, depth: int = 0) -> int:
    """Index behind the complete type that starts at ``at``."""
    if depth > MAX_NESTING or at >= len(signature):
        raise CodecError(f"signature {signature!r} is cut off or nested too deeply")
    letter = signature[at]
    if letter in BASIC or letter == "v":
        return at + 1
    if letter == "a":
        if signature[at + 1 : at + 2] == "{":
            return _end_of_entry(signature, at + 1, depth + 1)
        return _end_of_type(signature, at + 1, depth + 1)
    if letter != "(":
        raise CodecError(f"signature {signature!r} has {letter!r} where a type should be")
    # A struct: types up to the closing bracket, one at least.
    at += 1
    first = at
    while signature[at : at + 1] != ")":
        at = _end_of_type(signature, at, depth + 1)
    if at == first:
        raise CodecError(f"signature {signature!r} has an empty struct")
    return at + 1


def _end_of_entry(signature: str, at: int, depth: int) -> int:
    if signature[at + 1 : at + 2] not in BASIC:
        raise CodecError(f"signature {signature!r} has a dictionary without a basic key")
    end = _end_of_type(signature, at + 2, depth + 1)
    if signature[end : end + 1] != "}":
        raise CodecError(f"signature {signature!r} has a dictionary entry that is not a pair")
    return end + 1


@lru_cache(maxsize=256)
def split(signature: str) -> tuple[str, ...]:
    """The complete types of ``signature``; `CodecError` if it is not a signature."""
    if len(signature) > MAX_SIGNATURE_BYTES:
        raise CodecError("signature is longer than 255 bytes")
    types, at = [], 0
    while at < len(signature):
        end = _end_of_type(signature, at)
        types.append(signature[at:end])
        at = end
    return tuple(types)


def single(signature: str) -> str:
    """``signature``, if it is one complete type as a variant holds it."""
    types = split(signature)
    if len(types) != 1:
        raise CodecError(f"a variant holds one complete type, not {signature!r}")
    return types[0]


@lru_cache(maxsize=4096)
def is_object_path(path: str) -> bool:
    """Whether ``path`` may stand where D-Bus wants an object path."""
    if path == "/":
        return True
    if path[:1] != "/" or path[-1:] == "/" or "//" in path or not path.isascii():
        return False
    # isalnum() alone would refuse a path of underscores, and take letters of any script.
    letters = path.replace("/", "").replace("_", "")
    return not letters or letters.isalnum()
