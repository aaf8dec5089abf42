"""The secret section: what a caller proves who he is with. Never shown, never kept.

Knows the members of a secret and how recovery keys are spelled. A Secret prints as
stars and refuses to be serialised; :meth:`Secret.to_json` is the one way out, used
on the worker's socket only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn, cast

from homemgr.errors import InvalidArgs, InvalidRecord
from homemgr.record import jsontext
from homemgr.record.fields import FIELDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from homemgr.record.jsontext import Json, JsonObject
    from homemgr.record.model import UserRecord

#: More than these in one call would be guessing around the rate limit, which counts calls.
MAX_PASSWORDS: Final = 32
MAX_TOKEN_PINS: Final = 32

_FLAGS: Final = (
    "pkcs11ProtectedAuthenticationPathPermitted",
    "fido2UserPresencePermitted",
    "fido2UserVerificationPermitted",
)
_MODHEX: Final = frozenset("cbdefghijklnrtuv")
_RECOVERY_KEY_LETTERS: Final = 64
_RECOVERY_KEY_GROUP: Final = 8


class Secret:
    """Passwords, token PINs and permissions of one call; immutable, dropped after use."""

    __slots__ = ("flags", "passwords", "token_pins")

    def __init__(
        self,
        passwords: Iterable[str] = (),
        token_pins: Iterable[str] = (),
        flags: Mapping[str, bool] | None = None,
    ) -> None:
        """Repetitions are dropped: each password tried costs a slow hash."""
        self.passwords: Final = tuple(dict.fromkeys(passwords))
        self.token_pins: Final = tuple(dict.fromkeys(token_pins))
        self.flags: Final = dict(flags or {})
        if len(self.passwords) > MAX_PASSWORDS or len(self.token_pins) > MAX_TOKEN_PINS:
            raise InvalidArgs(
                f"The secret holds too many credentials: expected at most {MAX_PASSWORDS} "
                f"passwords and {MAX_TOKEN_PINS} PINs."
            )

    @classmethod
    def parse(cls, text: str | bytes) -> Secret:
        """Read the JSON of a ``secret`` argument; raises InvalidArgs without its contents."""
        return cls.from_json(jsontext.parse(text))

    @classmethod
    def from_json(cls, members: Mapping[str, object], path: str = "") -> Secret:
        """Take the members of a secret section; unknown ones are passed over."""
        pins = [*_texts(members, "tokenPin", path), *_texts(members, "pkcs11Pin", path)]
        flags = {name: _flag(members, name, path) for name in _FLAGS if _is_set(members, name)}
        return cls(_texts(members, "password", path), pins, flags)

    @classmethod
    def of_record(cls, record: UserRecord) -> Secret:
        """The secret section a record came with; empty if there is none."""
        return cls.from_json(record.section("secret"), ".secret")

    @property
    def is_empty(self) -> bool:
        """Whether there is no credential yet: answered at once, without delay."""
        return not self.passwords and not self.token_pins

    def merged(self, other: Secret) -> Secret:
        """Both together, ours first; a permission given in either is given."""
        # Given once is given: a later call that does not repeat it takes nothing back.
        flags = {**self.flags, **other.flags}
        flags.update({name: True for name in flags if self.flags.get(name)})
        return Secret(
            (*self.passwords, *other.passwords), (*self.token_pins, *other.token_pins), flags
        )

    def to_json(self) -> JsonObject:
        """The members of a secret section. For the worker's socket, and nothing else."""
        members: JsonObject = dict(self.flags)
        if self.passwords:
            members["password"] = list(self.passwords)
        if self.token_pins:
            members["tokenPin"] = list(self.token_pins)
        return members

    def __repr__(self) -> str:
        """Stars, whatever it holds; not even how many."""
        return "<Secret ***>"

    def __reduce__(self) -> NoReturn:
        """Refuse pickling and copying to places that outlive the call."""
        raise TypeError("a Secret cannot be serialised")


def normalise_recovery_key(text: str) -> str | None:
    """The spelling a recovery key is hashed and slotted in; None if this is none.

    Taken in either case, as 64 letters or with all its dashes.
    """
    letters = text.lower()
    if "-" in letters:
        groups = letters.split("-")
        if any(len(group) != _RECOVERY_KEY_GROUP for group in groups):
            return None
        letters = "".join(groups)
    if len(letters) != _RECOVERY_KEY_LETTERS or not set(letters) <= _MODHEX:
        return None
    starts = range(0, _RECOVERY_KEY_LETTERS, _RECOVERY_KEY_GROUP)
    return "-".join(letters[i : i + _RECOVERY_KEY_GROUP] for i in starts)


def _is_set(members: Mapping[str, object], name: str) -> bool:
    return members.get(name) is not None


def _texts(members: Mapping[str, object], name: str, path: str) -> list[str]:
    if not _is_set(members, name):
        return []
    value = _read(members, name, path)
    return [str(item) for item in value] if isinstance(value, list) else []


def _flag(members: Mapping[str, object], name: str, path: str) -> bool:
    return bool(_read(members, name, path))


def _read(members: Mapping[str, object], name: str, path: str) -> Json:
    try:
        # Read under .secret, whose values never appear in a message.
        return FIELDS[name].rule.read(cast("Json", members[name]), jsontext.child(".secret", name))
    except InvalidRecord as error:
        raise InvalidArgs(error.message.removeprefix("" if path else ".secret")) from None
