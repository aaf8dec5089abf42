"""FIDO2 tokens: the secret that one has for a record's entry, and a new credential on one.

The token computes HMAC-SHA256 of a salt in the record with a key that never leaves it
(CTAP, extension hmac-secret). What systemd-homed keeps in `fido2HmacSalt` is the same, so its
entries open here and ours there.
"""

from __future__ import annotations

import dataclasses
import secrets
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from homemgr import errors
from homemgr.token import libfido2
from homemgr.token.libfido2 import Assertion, Credential, Device, Fido2Error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

#: Fixed in every record there is.
RELYING_PARTY: Final = "io.systemd.home"
_DISPLAY_NAME: Final = "Home Directory"
_EXTENSION: Final = "hmac-secret"
_SALT_BYTES: Final = 32

#: A token waits 30 s for a touch and says so meanwhile; one that says nothing at all hangs.
_TIMEOUT_S: Final = 40.0
#: From this number of tries on the user is told.
_FEW_TRIES: Final = 3


@dataclass(frozen=True)
class Manner:
    """What using a credential takes; None in a record of before systemd 248: if the token asks."""

    presence: bool | None = None
    verification: bool | None = None
    pin: bool | None = None


@dataclass(frozen=True)
class Entry:
    """One of a record's `fido2HmacSalt`."""

    credential: bytes
    salt: bytes
    manner: Manner


@dataclass(frozen=True)
class Means:
    """What there is to use a credential with: PINs, and what the user knows he will have to do."""

    pins: Sequence[str] = ()
    touches: bool = False
    is_recognised: bool = False
    #: Device and PIN that did not fit: a token counts them and locks itself.
    refused: set[tuple[str, str]] = field(default_factory=set)


class _Token:
    """An open token that can give secrets."""

    def __init__(self, path: str, device: Device, options: dict[str, bool]) -> None:
        """Defaults of options are those of CTAP, authenticatorGetInfo."""
        self.path = path
        self.device = device
        self.has_presence = options.get("up", True)
        self.has_verification = options.get("uv", False)
        self.has_pin = options.get("clientPin", False)

    def knows(self, entry: Entry) -> bool:
        """Whether the entry's credential is the token's; nobody has to touch it for that."""
        if entry.manner.verification and self.has_verification:
            # Credentials may be hidden until the user is recognised: only trying tells.
            return True
        with closing(Assertion(RELYING_PARTY, entry.credential)) as question:
            question.set_presence(False if self.has_presence else None)
            return question.ask(self.device, None) != libfido2.NO_CREDENTIALS


@contextmanager
def _opened(path: str) -> Iterator[_Token | None]:
    """The token at ``path``; None if it gives no secrets, or is no such token."""
    with closing(Device(path, _TIMEOUT_S)) as device:
        extensions, options = device.features()
        yield _Token(path, device, options) if _EXTENSION in extensions else None


def secret(paths: Iterable[str], entry: Entry, means: Means) -> bytes:
    """What the token that knows the entry's credential answers to its salt.

    Raises BadPasswordAndNoToken if none of ``paths`` does, and what the token wants that it
    was not given: TokenPinNeeded, TokenUserPresenceNeeded, TokenUserVerificationNeeded, BadPin
    and its kind, TokenPinLocked, TokenActionTimeout.
    """
    problem = errors.BadPasswordAndNoToken("The security token is not plugged in.")
    for path in paths:
        # A token that is broken, or somebody else's and in use, must not hide the right one.
        try:
            with _opened(path) as token:
                if token is None or not token.knows(entry):
                    continue
                return _Dialogue(token, entry, means).hold()
        except Fido2Error as error:
            problem = errors.BadPasswordAndNoToken(f"Security token {path}: {error}.")
    raise problem


class _Dialogue:
    """One question to one token, asked again with more if the token wants more."""

    def __init__(self, token: _Token, entry: Entry, means: Means) -> None:
        self._token = token
        self._entry = entry
        self._means = means
        self.manner = entry.manner

    def hold(self) -> bytes:
        """Ask until there is an answer; raises the failure that it is."""
        self._require_able()
        self._require_told()
        entry = self._entry
        with closing(Assertion(RELYING_PARTY, entry.credential, entry.salt)) as question:
            if self._token.has_verification and self.manner.verification is not None:
                question.set_verification(self.manner.verification)
            # At most once more for each thing that the record leaves open.
            for _ in range(3):
                if self._token.has_presence:
                    question.set_presence(bool(self.manner.presence))
                code = self._ask(question)
                if code == libfido2.OK:
                    return question.secret()
                if not self._may_give_more(code):
                    break
            raise self._failure(code)

    def _require_able(self) -> None:
        for wanted, able, what in (
            (self.manner.pin, self._token.has_pin, "has no PIN"),
            (self.manner.presence, self._token.has_presence, "cannot be touched"),
            (self.manner.verification, self._token.has_verification, "recognises nobody"),
        ):
            if wanted and not able:
                raise errors.NotSupported(f"The security token {what}, which the record asks for.")

    def _require_told(self) -> None:
        # Nobody touches a thing that he does not know to wait for him.
        if self.manner.presence and not self._means.touches:
            raise failure_of(self._token.device, libfido2.UP_REQUIRED)
        if self.manner.verification and not self._means.is_recognised:
            raise errors.TokenUserVerificationNeeded("The security token recognises its user.")

    def _ask(self, question: Assertion) -> int:
        token, means = self._token, self._means
        if not self.manner.pin:
            return question.ask(token.device, None)
        code = libfido2.PIN_INVALID if means.pins else libfido2.PIN_REQUIRED
        for pin in means.pins:
            if (token.path, pin) in means.refused:
                continue
            code = question.ask(token.device, pin)
            if code != libfido2.PIN_INVALID:
                break
            means.refused.add((token.path, pin))
        return code

    def _may_give_more(self, code: int) -> bool:
        """Turn on what the token asks for and the record leaves open."""
        # Some tokens say the second when they mean the first.
        wants_touch = code in (libfido2.UP_REQUIRED, libfido2.UNSUPPORTED_OPTION)
        may_touch = self._token.has_presence and self._means.touches
        if wants_touch and may_touch and self.manner.presence is None:
            self.manner = dataclasses.replace(self.manner, presence=True)
            return True
        if code == libfido2.PIN_REQUIRED and self._token.has_pin and self.manner.pin is None:
            self.manner = dataclasses.replace(self.manner, pin=True)
            return True
        return False

    def _failure(self, code: int) -> errors.HomeError:
        if code == libfido2.NO_CREDENTIALS:
            return errors.BadPasswordAndNoToken("The security token is another one.")
        return failure_of(self._token.device, code)


def failure_of(device: Device, code: int) -> errors.HomeError:
    """The failure that a status code of a token stands for."""
    match code:
        case libfido2.PIN_REQUIRED:
            return errors.TokenPinNeeded("The security token needs its PIN.")
        case libfido2.PIN_INVALID:
            return _bad_pin(device.pin_tries())
        case libfido2.PIN_BLOCKED | libfido2.PIN_AUTH_BLOCKED | libfido2.UV_BLOCKED:
            return errors.TokenPinLocked("The security token takes no more PINs.")
        case libfido2.UP_REQUIRED:
            return errors.TokenUserPresenceNeeded("The security token has to be touched.")
        case libfido2.ACTION_TIMEOUT | libfido2.USER_ACTION_TIMEOUT | libfido2.RX:
            return errors.TokenActionTimeout("Nobody touched the security token in time.")
        case libfido2.UV_INVALID:
            return errors.TokenUserVerificationNeeded("The security token recognised nobody.")
        case libfido2.UNSUPPORTED_ALGORITHM:
            return errors.NotSupported("The security token does not have this algorithm.")
    return errors.NotSupported(f"The security token refused ({Fido2Error(code)}).")


def _bad_pin(tries_left: int | None) -> errors.HomeError:
    text = "Wrong PIN for the security token"
    if tries_left is None or tries_left > _FEW_TRIES:
        return errors.BadPin(f"{text}.")
    if tries_left > 1:
        return errors.BadPinFewTriesLeft(f"{text}, {tries_left} tries are left.")
    if tries_left == 1:
        return errors.BadPinOneTryLeft(f"{text}, one try is left.")
    return errors.TokenPinLocked("The PIN of the security token is locked.")


# -- a new credential ---------------------------------------------------------------------


@dataclass(frozen=True)
class Enrolled:
    """A credential that was made: what of it goes into a record, and the secret behind it."""

    entry: Entry
    secret: bytes
    #: The PIN that the token took; empty if none was needed.
    pin: str


def enrol(
    path: str,
    user: tuple[str, str | None],
    algorithm: str,
    manner: Manner,
    pins: Sequence[str],
    tell: Callable[[str], None],
) -> Enrolled:
    """Make a credential for ``user`` (name, and the one shown) on the token at ``path``.

    What the token cannot do is left out of ``manner``, what it insists on is taken in, and
    ``tell`` says so, and when to touch it. Raises NotSupported if it is no such token,
    TokenPinNeeded, BadPin and its kind, TokenPinLocked, TokenActionTimeout.
    """
    try:
        with _opened(path) as token:
            if token is None:
                raise errors.NotSupported(
                    f"{path} is no FIDO2 token with the extension {_EXTENSION}."
                )
            return _enrol(token, user, algorithm, _possible(token, manner, tell), pins, tell)
    except Fido2Error as error:
        raise errors.NotSupported(f"Security token {path}: {error}.") from error


def _possible(token: _Token, manner: Manner, tell: Callable[[str], None]) -> Manner:
    """``manner`` without what the token cannot do."""
    for name, able, what in (
        ("pin", token.has_pin, "has no PIN"),
        ("presence", token.has_presence, "cannot be touched"),
        ("verification", token.has_verification, "recognises nobody"),
    ):
        if getattr(manner, name) and not able:
            tell(f"This security token {what}: it will not be asked for that.")
            manner = dataclasses.replace(manner, **{name: False})
    return manner


def _enrol(
    token: _Token,
    user: tuple[str, str | None],
    algorithm: str,
    manner: Manner,
    pins: Sequence[str],
    tell: Callable[[str], None],
) -> Enrolled:
    with closing(Credential((RELYING_PARTY, _DISPLAY_NAME), user)) as credential:
        credential.set_algorithm(algorithm)
        credential.set_extensions(verification=bool(manner.verification))
        pin = _make(token, credential, pins, needs_pin=bool(manner.pin), tell=tell)
        entry = Entry(credential.identity(), secrets.token_bytes(_SALT_BYTES), manner)
    # What was not asked for may still be what the token insists on.
    open_manner = dataclasses.replace(
        manner, presence=manner.presence or None, pin=manner.pin or None
    )
    if manner.presence:
        tell("Please touch the security token once more.")
    means = Means([pin] if pin else [], touches=True, is_recognised=True)
    dialogue = _Dialogue(token, dataclasses.replace(entry, manner=open_manner), means)
    secret_of_salt = dialogue.hold()
    asked = dialogue.manner
    if asked.presence and not manner.presence:
        tell("This security token has to be touched each time.")
    final = Manner(bool(asked.presence), bool(asked.verification), bool(asked.pin))
    return Enrolled(dataclasses.replace(entry, manner=final), secret_of_salt, pin)


def _make(
    token: _Token,
    credential: Credential,
    pins: Sequence[str],
    *,
    needs_pin: bool,
    tell: Callable[[str], None],
) -> str:
    """Have the credential made; gives the PIN that it took, which may be none."""
    code = libfido2.PIN_REQUIRED
    if not needs_pin:
        tell("Please touch the security token if it blinks.")
        code = credential.make(token.device, None)
        if code == libfido2.OK:
            return ""
    if code == libfido2.PIN_REQUIRED and pins:
        tell("Please touch the security token if it blinks.")
        for pin in pins:
            code = credential.make(token.device, pin)
            if code == libfido2.OK:
                return pin
            if code != libfido2.PIN_INVALID:
                break
    raise failure_of(token.device, code)
