"""What the security tokens of this moment answer to the entries of one record.

An answer is the key in base64: that text is what records have hashes of, and what key slots
know as a password.

Each kind of token is imported by those alone who have one, where they ask it: its library may
be missing or broken on this machine, and must not keep the other kind from answering.
"""

from __future__ import annotations

import base64
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from homemgr import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from homemgr.token.fido2 import Means
    from homemgr.token.pkcs11 import Tokens

    #: An entry of `pkcs11EncryptedKey` or `fido2HmacSalt`, as it stands in a record.
    RecordEntry = Mapping[str, object]


@dataclass(frozen=True)
class Given:
    """What a caller gave to open tokens with, and what he knows he will have to do."""

    pins: tuple[str, ...] = ()
    enters_pin: bool = False
    touches: bool = False
    is_recognised: bool = False


def answers(
    pkcs11: Sequence[RecordEntry], fido2: Sequence[RecordEntry], given: Given
) -> Iterator[str | errors.HomeError]:
    """One answer for each entry, in their order: the word, or why there is none."""
    yield from _each(pkcs11, lambda until: _pkcs11(given, until))
    yield from _each(fido2, lambda _until: _fido2(given))


def _each(
    entries: Sequence[RecordEntry],
    begin: Callable[[ExitStack], Callable[[RecordEntry], bytes]],
) -> Iterator[str | errors.HomeError]:
    if not entries:
        return
    with ExitStack() as until_all_are_asked:
        try:
            ask = begin(until_all_are_asked)
        except errors.HomeError as error:
            yield from [error] * len(entries)
            return
        for entry in entries:
            try:
                yield base64.b64encode(ask(entry)).decode()
            except errors.HomeError as error:
                yield error


def _pkcs11(given: Given, until: ExitStack) -> Callable[[RecordEntry], bytes]:
    from homemgr.token.pkcs11 import tokens

    there = until.enter_context(tokens())
    return lambda entry: _decrypted(there, entry, given)


def _decrypted(tokens: Tokens, entry: RecordEntry, given: Given) -> bytes:
    from homemgr.token import p11kit
    from homemgr.token.pkcs11 import decrypted

    uri = p11kit.Uri(str(entry["uri"]))
    try:
        with tokens.logged_in(uri, given.pins, by_itself=given.enters_pin) as (session, _pin):
            return decrypted(session, uri, _bytes(entry, "data"), str(entry.get("padding", "")))
    finally:
        uri.close()


def _fido2(given: Given) -> Callable[[RecordEntry], bytes]:
    from homemgr.token import hidraw
    from homemgr.token.fido2 import Means

    paths = [found.path for found in hidraw.tokens()]
    means = Means(given.pins, given.touches, given.is_recognised)
    return lambda entry: _secret(paths, entry, means)


def _secret(paths: Sequence[str], entry: RecordEntry, means: Means) -> bytes:
    from homemgr.token.fido2 import Entry, Manner, secret

    presence, verification, pin = (_claim(entry, name) for name in ("up", "uv", "clientPin"))
    manner = Manner(presence, verification, pin)
    wanted = Entry(_bytes(entry, "credential"), _bytes(entry, "salt"), manner)
    return secret(paths, wanted, means)


def _bytes(entry: RecordEntry, name: str) -> bytes:
    return base64.b64decode(str(entry[name]))


def _claim(entry: RecordEntry, name: str) -> bool | None:
    value = entry.get(name)
    return value if isinstance(value, bool) else None
