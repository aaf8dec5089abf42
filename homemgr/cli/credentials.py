"""Credentials for one home: from the environment, from the user, as the service asks for them.

The service says by error name what is missing; `unlock` asks for it and calls
again. Nothing here is ever printed. Environment and questions are homectl's.
"""

from __future__ import annotations

import json
import os
import sys

from homemgr.cli import dumps
from homemgr.cli.complain import Reported, complain, complain_of
from homemgr.cli.home1 import BusError, error_is

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from homemgr.record.jsontext import JsonObject

    T = TypeVar("T")

#: Errors that the user answers by doing something, with what he is told and the permission.
_PERMISSIONS = {
    "TokenProtectedAuthenticationPathNeeded": (
        "Please enter the PIN on the security token of user {}.",
        "pkcs11ProtectedAuthenticationPathPermitted",
    ),
    "TokenUserPresenceNeeded": (
        "Please confirm presence on the security token of user {}.",
        "fido2UserPresencePermitted",
    ),
    "TokenUserVerificationNeeded": (
        "Please verify yourself on the security token of user {}.",
        "fido2UserVerificationPermitted",
    ),
}
_PIN_ERRORS = {
    "TokenPinNeeded": "",
    "BadPin": "The PIN is wrong.",
    "BadPinFewTriesLeft": "The PIN is wrong, only a few tries are left.",
    "BadPinOneTryLeft": "The PIN is wrong, only one try is left!",
}
_PASSWORD_ERRORS = {
    "BadPassword": "The password is wrong, or not sufficient.",
    "BadPasswordAndNoToken": "The password is wrong, and no security token is plugged in.",
    "BadRecoveryKey": "The recovery key is wrong.",
}


class Credentials:
    """What was given so far to unlock one home, newest first; only `to_json` lets it out."""

    __slots__ = ("_members",)

    def __init__(self) -> None:
        """Nothing yet."""
        self._members: dict[str, list[str] | bool] = {}

    @classmethod
    def from_environment(cls) -> Credentials:
        """Take PASSWORD and PIN (removing them), or the credentials of a service manager."""
        found = cls()
        password = _passed("PASSWORD", "home.password")
        pin = token_pin()
        if password is not None:
            found.add_password(password)
        # A recovery key travels as a password: the service tells them apart by their form.
        recovery_key = credential("home.recovery-key")
        if recovery_key is not None:
            found.add_password(recovery_key)
        if pin is not None:
            found.set_pin(pin)
        return found

    def __repr__(self) -> str:
        """Stars."""
        return "<Credentials ***>"

    def add_password(self, password: str) -> None:
        """Another password to try; recovery keys count as passwords."""
        known = self._members.get("password")
        self._members["password"] = [password, *(known if isinstance(known, list) else [])]

    def set_pin(self, pin: str) -> None:
        """The PIN of a security token; a token counts wrong ones, so no other is kept."""
        self._members["tokenPin"] = [pin]

    def take_pins(self, record: JsonObject) -> None:
        """Have the PINs of the secret section of ``record`` as well, if it has any."""
        secret = record.get("secret")
        pins = secret.get("tokenPin") if isinstance(secret, dict) else None
        if isinstance(pins, list):
            self._members["tokenPin"] = [str(pin) for pin in pins]

    def permit(self, name: str) -> None:
        """The user was told what to do on the token."""
        self._members[name] = True

    @property
    def is_empty(self) -> bool:
        """Whether nothing was given."""
        return not self._members

    @property
    def has_password(self) -> bool:
        """Whether there was anything to try."""
        return bool(self._members.get("password"))

    def passwords(self) -> list[str]:
        """All passwords, newest first."""
        known = self._members.get("password")
        return list(known) if isinstance(known, list) else []

    def merged_into(self, record: JsonObject) -> JsonObject:
        """A copy of ``record`` whose secret section holds these as well."""
        known = record.get("secret")
        secret: JsonObject = dict(known) if isinstance(known, dict) else {}
        for name, value in self._members.items():
            old = secret.get(name)
            if isinstance(value, bool):
                secret[name] = value
            else:
                secret[name] = [*value, *(old if isinstance(old, list) else [old] if old else [])]
        return {**record, "secret": secret} if secret else record

    def to_json(self) -> str:
        """The text of a ``secret`` argument."""
        return json.dumps(self._members, ensure_ascii=False)


def unlock(
    user: str,
    credentials: Credentials,
    call: Callable[[], T],
    doing: str,
    *,
    may_ask: bool = True,
    asks_for: str = "password",
) -> T:
    """``call`` until it succeeds, asking for what the service misses; raises Reported.

    ``asks_for`` is how a question calls the password: where there are two, it is the current one.
    """
    # No limit of our own: the service counts attempts, and an empty answer ends it.
    while True:
        try:
            return call()
        except BusError as error:
            name = error.name.rpartition(".")[2]
            if not (may_ask and can_be_answered(error)):
                complain_of(doing, error)
                raise Reported from error
            if name in _PERMISSIONS:
                text, permission = _PERMISSIONS[name]
                print(text.format(user), file=sys.stderr)
                credentials.permit(permission)
            elif name in _PIN_ERRORS:
                _say(_PIN_ERRORS[name])
                credentials.set_pin(ask_secret(f"Please enter security token PIN for user {user}:"))
            else:
                _say(_PASSWORD_ERRORS[name] if credentials.has_password else "")
                what = "recovery key" if name == "BadRecoveryKey" else asks_for
                credentials.add_password(ask_secret(f"Please enter {what} for user {user}:"))


def token_pin() -> str | None:
    """The PIN of a security token that was given beforehand, in PIN or as a credential."""
    return _passed("PIN", "home.token-pin")


def new_password(user: str, *, may_ask: bool) -> str:
    """A new password: from NEWPASSWORD, or typed twice; never empty."""
    given = _passed("NEWPASSWORD", "home.new-password")
    if given:
        return given
    if given is not None:
        complain(f"The new password for user {user} is empty.", "Set NEWPASSWORD to what it is.")
        raise Reported
    if not may_ask:
        complain(f"No new password for user {user} was given.", "Set NEWPASSWORD.")
        raise Reported
    while True:
        first = ask_secret(f"Please enter new password for user {user}:")
        if first == ask_secret(f"Please enter new password for user {user} (repeat):"):
            return first
        complain("The passwords are not the same, try again.")


def can_be_answered(error: BusError) -> bool:
    """Whether the service misses something that the user can say or do."""
    # By its full name: another service's BadPassword is none of ours.
    name = error.name.rpartition(".")[2]
    answers = (_PERMISSIONS, _PIN_ERRORS, _PASSWORD_ERRORS)
    return error_is(error, name) and any(name in table for table in answers)


def _say(text: str) -> None:
    if text:
        complain(text)


def ask_secret(question: str) -> str:
    """What is typed without echo; raises Reported if there is nobody to ask."""
    # The terminal is touched by those only who are asked.
    from homemgr.cli.prompt import ask

    dumps.forbid()
    return ask(question)


def _passed(variable: str, name: str) -> str | None:
    # Removed at once: programs we start, and our own /proc entry's heirs, do not need it.
    value = os.environ.pop(variable, None)
    dumps.forbid()
    if value is None:
        return credential(name)
    try:
        value.encode()
    except UnicodeEncodeError:
        complain(f"The environment variable {variable} is not UTF-8.")
        raise Reported from None
    return value


def credential(name: str) -> str | None:
    """A credential passed by the service manager, see systemd.exec(5)."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        return None
    # Absent is normal: a unit passes the credentials it has.
    try:
        with open(os.path.join(directory, name), encoding="utf-8") as file:
            return file.read().removesuffix("\n")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        complain(f"The credential {name} is not UTF-8.")
        raise Reported from None
