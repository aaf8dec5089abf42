"""What clients may ask of a transfer: JSON objects, checked member by member."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TypeVar

from homemgr import errors
from homemgr.daemon.origins import check_fingerprint
from homemgr.record.secret import Secret
from homemgr.record.storages import ABILITIES

T = TypeVar("T")

#: Longest time to wait for a logout, seconds.
_MAX_WAIT_S = 7 * 24 * 3600
#: Origin and signer of one home, and some to spare.
_MAX_TRUSTED = 16
_MAX_TEXT = 255
#: Characters of all options of one call: paths to be restored, above all.
_MAX_OPTIONS = 1 << 20


@dataclass(frozen=True)
class SendOptions:
    """Of SendHome and ExportHome."""

    #: What the caller calls the other machine.
    host: str = ""
    #: Refresh a standby copy there; the home stays here.
    keep: bool = False
    #: Delete the data here once the other machine has confirmed.
    remove: bool = False
    #: How long to wait for the end of all sessions, seconds; None: for ever.
    wait_s: float | None = None
    #: Take the home back from where it was sent.
    undo: bool = False
    #: Write what is encrypted here to a file that is not.
    plaintext: bool = False
    #: What opens the home comes through the stream, from the side that asked its user.
    awaits_secret: bool = False
    #: What opens the home, and what another one gets its key slots of.
    secret: Secret = field(default_factory=Secret)

    def told(self) -> dict[str, object]:
        """As a worker is told; the secret is told it by itself."""
        shown = ("host", "keep", "remove", "wait_s", "undo", "awaits_secret")
        return {name: getattr(self, name) for name in shown}


@dataclass(frozen=True)
class ReceiveOptions:
    """Of ReceiveHome and ImportHome."""

    #: Fingerprints of origins and signers the caller accepts.
    trust: tuple[str, ...] = ()
    host: str = ""
    #: The only user that may arrive.
    name: str | None = None
    #: What the home is to be here; empty: what it is there, in this respect.
    storage: str = ""
    #: What the new home gets its key slots of; the origin is told it, once it is trusted, where
    #: it needs that to open the home.
    secret: Secret = field(default_factory=Secret)

    def told(self) -> dict[str, object]:
        """As a worker is told."""
        return {"host": self.host, "name": self.name}


@dataclass(frozen=True)
class ForgetOptions:
    """Of ForgetTransfer."""

    remove: bool = False
    force: bool = False


def to_send(text: str) -> SendOptions:
    """Options of SendHome and ExportHome; raises InvalidArgs."""
    flags = ("keep", "remove", "undo", "plaintext", "awaits_secret")
    given = Given(text, "host", "wait_s", "secret", *flags)
    options = SendOptions(
        host=given.text("host"),
        wait_s=given.seconds("wait_s"),
        secret=given.secret("secret"),
        **{name: given.flag(name) for name in flags},
    )
    if sum((options.keep, options.remove, options.undo)) > 1:
        raise errors.InvalidArgs("options: only one of keep, remove and undo can be asked for.")
    return options


def to_receive(text: str) -> ReceiveOptions:
    """Options of ReceiveHome and ImportHome; raises InvalidArgs."""
    given = Given(text, "trust", "host", "name", "storage", "secret")
    trust = given.texts("trust")
    for fingerprint in trust:
        check_fingerprint(fingerprint)
    storage = given.text("storage")
    if storage and storage not in ABILITIES:
        raise errors.InvalidArgs(f"storage: {storage!r} is none of {', '.join(sorted(ABILITIES))}.")
    return ReceiveOptions(
        trust, given.text("host"), given.text("name") or None, storage, given.secret("secret")
    )


def to_forget(text: str) -> ForgetOptions:
    """Options of ForgetTransfer; raises InvalidArgs."""
    given = Given(text, "remove", "force")
    return ForgetOptions(given.flag("remove"), given.flag("force"))


def host_of(text: str) -> str:
    """The only option of TrustOrigin; raises InvalidArgs."""
    return Given(text, "host").text("host")


class Given:
    """The members of one JSON object."""

    def __init__(self, text: str, *known: str) -> None:
        """Read ``text``; InvalidArgs if it has members that are not ``known``."""
        if len(text) > _MAX_OPTIONS:
            raise errors.InvalidArgs(f"options: expected at most {_MAX_OPTIONS} characters.")
        try:
            members = json.loads(text or "{}")
        except (ValueError, RecursionError) as error:
            raise errors.InvalidArgs("options: expected a JSON object.") from error
        if not isinstance(members, dict):
            raise errors.InvalidArgs("options: expected a JSON object.")
        unknown = sorted(set(members) - set(known))
        if unknown:
            raise errors.InvalidArgs(
                f"options: {unknown[0]!r} is unknown, expected {', '.join(known)}."
            )
        self._members = members

    def flag(self, name: str) -> bool:
        """True or false; false if it is not given."""
        return self._of(name, bool, default=False)

    def text(self, name: str, most: int = _MAX_TEXT) -> str:
        """One line of at most ``most`` characters; empty if it is not given."""
        value = self._of(name, str, default="")
        if len(value) > most or not value.isprintable():
            raise errors.InvalidArgs(
                f"options: {name} is no plain text: expected one line of at most {most} characters."
            )
        return value

    def texts(self, name: str, most: int = _MAX_TRUSTED) -> tuple[str, ...]:
        """Some texts; none if it is not given."""
        values = self._of(name, list, default=[])
        if len(values) > most or not all(isinstance(v, str) for v in values):
            raise errors.InvalidArgs(f"options: {name} is no list of at most {most} texts.")
        return tuple(values)

    def secret(self, name: str) -> Secret:
        """Passwords and so on; none if they are not given."""
        return Secret.from_json(self._of(name, dict, default={}))

    def number(self, name: str, most: int) -> int | None:
        """A whole number from 0 on; None if it is not given."""
        value = self._members.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            raise errors.InvalidArgs(f"options: {name} is no whole number from 0 to {most}.")
        return value

    def seconds(self, name: str) -> float | None:
        """A time; None if it is not given."""
        value = self._members.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise errors.InvalidArgs(f"options: {name} is no number.")
        if not 0 <= value <= _MAX_WAIT_S:
            raise errors.InvalidArgs(f"options: {name} is not within 0 and {_MAX_WAIT_S}.")
        return float(value)

    def _of(self, name: str, kind: type[T], *, default: T) -> T:
        value = self._members.get(name)
        if value is None:
            return default
        if not isinstance(value, kind):
            raise errors.InvalidArgs(f"options: {name} is no {kind.__name__}.")
        return value
