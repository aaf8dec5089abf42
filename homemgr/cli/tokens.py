"""Security tokens on the command line: which are there, and how one becomes part of a record.

A token is used here, on the machine and with the rights of whoever types, as with homectl; the
service then asks it once more, and so proves that it can before anybody relies on it. The
libraries are loaded when a token is named.
"""

from __future__ import annotations

import base64
import sys
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from homemgr import errors
from homemgr.cli.complain import complain
from homemgr.cli.credentials import ask_secret, token_pin
from homemgr.cli.output import print_table
from homemgr.cli.record_source import add_token_pin, hashed
from homemgr.cli.token_wishes import AUTO

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from homemgr.cli.arguments import Arguments
    from homemgr.cli.token_wishes import Wishes
    from homemgr.record.jsontext import Json, JsonObject

T = TypeVar("T")

_URI, _DEVICE = "pkcs11-token-uri", "fido2-device"
_LIST = "list"
_WRONG_PIN = (errors.BadPin, errors.BadPinFewTriesLeft, errors.BadPinOneTryLeft)


def show_if_asked(arguments: Arguments) -> bool:
    """Print the tokens that are there if an option asks for the list; False if none does."""
    is_asked = False
    for option, text in arguments.given:
        if text == _LIST and option.name in (_URI, _DEVICE):
            is_asked = True
            _show_pkcs11(arguments) if option.name == _URI else _show_fido2(arguments)
    return is_asked


def _show_pkcs11(arguments: Arguments) -> None:
    from homemgr.token.pkcs11 import tokens

    with tokens() as there:
        rows = there.listed()
    _show(("URI", "LABEL", "MANUFACTURER", "MODEL"), rows, arguments)


def _show_fido2(arguments: Arguments) -> None:
    from homemgr.token import hidraw

    _show(("PATH", "NAME"), hidraw.tokens(), arguments)


def _show(columns: Sequence[str], rows: Sequence[Sequence[str]], arguments: Arguments) -> None:
    if rows:
        print_table(columns, rows, legend=not arguments.has("no-legend"))
    else:
        print("No security token is plugged in.", file=sys.stderr)


# -- into a record ----------------------------------------------------------------------


def enrol(record: JsonObject, wishes: Wishes, *, may_ask: bool) -> None:
    """Add an entry for each token to ``record``, and the PINs to its secret.

    Raises what tokens answer, NotSupported where they cannot be used.
    """
    pins = _Pins(record, may_ask=may_ask)
    if wishes.uris:
        _enrol_pkcs11(record, wishes, pins)
    for device in wishes.devices:
        _enrol_fido2(record, device, wishes, pins)


def _enrol_pkcs11(record: JsonObject, wishes: Wishes, pins: _Pins) -> None:
    from homemgr.token.pkcs11 import enrol as enrol_token
    from homemgr.token.pkcs11 import tokens

    with tokens() as there:
        for text in wishes.uris:
            uri = _only([t.uri for t in there.listed()], "PKCS#11", _URI, text)
            made = pins.tried(uri, partial(enrol_token, there, uri))
            pins.used(made.pin)
            word = _base64(made.key)
            entry: JsonObject = {
                "uri": uri,
                "data": _base64(made.data),
                "hashedPassword": hashed(word),
            }
            _append(record, "pkcs11EncryptedKey", entry)
            _append_once(record, "pkcs11TokenUri", uri)


def _enrol_fido2(record: JsonObject, text: str, wishes: Wishes, pins: _Pins) -> None:
    from homemgr.token import fido2, hidraw

    path = _only([t.path for t in hidraw.tokens()], "FIDO2", _DEVICE, text)
    manner = fido2.Manner(wishes.with_presence, wishes.with_verification, wishes.with_pin)
    user = _user_and_realm(record), str(record["realName"]) if record.get("realName") else None
    made = pins.tried(
        path,
        lambda given: fido2.enrol(path, user, wishes.algorithm, manner, given, _tell),
    )
    pins.used(made.pin)
    entry = made.entry
    credential = _base64(entry.credential)
    salt: JsonObject = {
        "credential": credential,
        "salt": _base64(entry.salt),
        "hashedPassword": hashed(_base64(made.secret)),
        "up": bool(entry.manner.presence),
        "uv": bool(entry.manner.verification),
        "clientPin": bool(entry.manner.pin),
    }
    _append(record, "fido2HmacSalt", salt)
    _append_once(record, "fido2HmacCredential", credential)


class _Pins:
    """The PINs of one command line: given beforehand, or typed where a token asks."""

    def __init__(self, record: JsonObject, *, may_ask: bool) -> None:
        self._record = record
        self._may_ask = may_ask
        given = token_pin()
        self._given = (given,) if given else ()

    def tried(self, token: str, attempt: Callable[[tuple[str, ...]], T]) -> T:
        """What ``attempt`` gives with the token's PIN, asked for until it is right."""
        pins = self._given
        while True:
            try:
                return attempt(pins)
            except (errors.TokenPinNeeded, *_WRONG_PIN) as error:
                if not self._may_ask:
                    raise
                if isinstance(error, _WRONG_PIN):
                    complain(error.message)
                pins = (ask_secret(f"Please enter the PIN of security token {token}:"),)

    def used(self, pin: str) -> None:
        """Hand a PIN on to the service, which will ask the same token."""
        if pin:
            add_token_pin(self._record, pin)


def _only(found: list[str], kind: str, option: str, text: str) -> str:
    """The token that ``text`` names; for auto the one that is there, if it is the only one."""
    if text != AUTO:
        return text
    if len(found) != 1:
        count = "more than one" if found else "no"
        raise errors.NotSupported(
            f"There is {count} {kind} token: expected one. See --{option}=list."
        )
    return found[0]


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _user_and_realm(record: JsonObject) -> str:
    realm = record.get("realm")
    return f"{record['userName']}@{realm}" if realm else str(record["userName"])


def _append(record: JsonObject, name: str, entry: JsonObject) -> None:
    privileged = record.get("privileged")
    members: JsonObject = dict(privileged) if isinstance(privileged, dict) else {}
    known = members.get(name)
    members[name] = [*(known if isinstance(known, list) else []), entry]
    record["privileged"] = members


def _append_once(record: JsonObject, name: str, text: str) -> None:
    known = record.get(name)
    listed: list[Json] = known if isinstance(known, list) else [known] if known else []
    record[name] = listed if text in listed else [*listed, text]


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
