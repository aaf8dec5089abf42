"""PKCS#11 tokens: decrypt the key of a record's entry, and make such an entry.

A record holds a random key that is encrypted for the token's RSA key, or, for a key on an
elliptic curve, the public half of another one made for the purpose; the secret that both
share is the key then. What systemd-homed keeps in `pkcs11EncryptedKey` is the same, so its
entries open here and ours there.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from homemgr import errors
from homemgr.token import cryptoki, p11kit
from homemgr.token.cryptoki import CryptokiError, Session

if TYPE_CHECKING:
    from collections.abc import Iterator

    from homemgr.token.cryptoki import Module, TokenInfo
    from homemgr.token.p11kit import Uri
    from homemgr.token.public_keys import PublicKey

#: Codes of a login that say that the PIN is not the token's.
_WRONG_PIN: Final = (cryptoki.PIN_INCORRECT, cryptoki.PIN_INVALID, cryptoki.PIN_LEN_RANGE)


class Listed(NamedTuple):
    """A token that is there."""

    uri: str
    label: str
    manufacturer: str
    model: str


class Tokens:
    """The tokens of this moment. Remembers wrong PINs: a token counts them and locks itself."""

    def __init__(self, modules: list[Module]) -> None:
        """Look at what ``modules`` drive."""
        self._modules = modules
        self._refused: set[tuple[str, str]] = set()

    def listed(self) -> list[Listed]:
        """Those that one logs in to, which leaves out stores of certificates."""
        needed = cryptoki.LOGIN_REQUIRED | cryptoki.INITIALIZED
        found = [token for _, _, token in self._all() if token.flags & needed == needed]
        return [
            Listed(p11kit.uri_of(t), t.text("label"), t.text("manufacturer"), t.text("model"))
            for t in found
        ]

    def _all(self) -> Iterator[tuple[Module, int, TokenInfo]]:
        for module in self._modules:
            # A driver that is broken must not hide the tokens of others.
            try:
                found = [(slot, module.token(slot)) for slot in module.slots()]
            except CryptokiError:
                continue
            for slot, token in found:
                yield module, slot, token

    @contextmanager
    def logged_in(
        self, uri: Uri, pins: tuple[str, ...], *, by_itself: bool
    ) -> Iterator[tuple[Session, str]]:
        """A session on the token that ``uri`` means, and the PIN that opened it, if one did.

        ``by_itself``: the token may ask its user. Raises BadPasswordAndNoToken if it is not
        there, TokenPinNeeded, TokenProtectedAuthenticationPathNeeded, TokenPinLocked, BadPin
        and its kind.
        """
        there = next((each for each in self._all() if uri.means(each[2])), None)
        if there is None:
            raise errors.BadPasswordAndNoToken("The security token is not plugged in.")
        module, slot, token = there
        session = Session(module, slot)
        try:
            yield session, self._log_in(session, module, slot, token, pins, by_itself=by_itself)
        finally:
            session.close()

    def _log_in(
        self,
        session: Session,
        module: Module,
        slot: int,
        token: TokenInfo,
        pins: tuple[str, ...],
        *,
        by_itself: bool,
    ) -> str:
        label = token.text("label")
        if token.flags & cryptoki.PROTECTED_PATH:
            if not by_itself:
                raise errors.TokenProtectedAuthenticationPathNeeded(
                    f"Security token {label} asks for its PIN itself."
                )
            _require(session.login(None), label)
            return ""
        if not token.flags & cryptoki.LOGIN_REQUIRED:
            return ""
        if token.flags & cryptoki.PIN_IS_LOCKED:
            raise errors.TokenPinLocked(f"The PIN of security token {label} is locked.")
        if not pins:
            raise errors.TokenPinNeeded(f"Security token {label} needs its PIN.")
        for pin in pins:
            if (token.text("serial"), pin) in self._refused:
                continue
            code = session.login(pin.encode("utf-8", "surrogateescape"))
            if code not in _WRONG_PIN:
                _require(code, label)
                return pin
            self._refused.add((token.text("serial"), pin))
        raise _bad_pin(module.token(slot).flags, label)


def _require(code: int, label: str) -> None:
    if code == cryptoki.PIN_LOCKED:
        raise errors.TokenPinLocked(f"The PIN of security token {label} is locked.")
    if code in _WRONG_PIN:
        raise errors.BadPin(f"Security token {label} took the PIN for wrong.")
    if code != cryptoki.OK:
        raise errors.NotSupported(f"Cannot log in to security token {label}: error {code:#x}.")


def _bad_pin(flags: int, label: str) -> errors.HomeError:
    if flags & cryptoki.PIN_IS_LOCKED:
        return errors.TokenPinLocked(f"The PIN of security token {label} is locked.")
    if flags & cryptoki.PIN_FINAL_TRY:
        return errors.BadPinOneTryLeft(f"Wrong PIN for security token {label}, one try is left.")
    if flags & cryptoki.PIN_COUNT_LOW:
        return errors.BadPinFewTriesLeft(
            f"Wrong PIN for security token {label}, only a few tries are left."
        )
    return errors.BadPin(f"Wrong PIN for security token {label}.")


@contextmanager
def tokens() -> Iterator[Tokens]:
    """The tokens that are there now; NotSupported without libp11-kit or any driver."""
    with p11kit.modules() as modules:
        yield Tokens(modules)


# -- the key of an entry ----------------------------------------------------------------


def decrypted(session: Session, uri: Uri, data: bytes, padding: str = "") -> bytes:
    """The key that ``data`` holds for the private key that ``uri`` means.

    Raises NotSupported if there is no such key or it cannot do that.
    """
    try:
        handle = _private_key(session, uri)
        kind = int.from_bytes(session.attribute(handle, cryptoki.KEY_TYPE), "little")
        if kind == cryptoki.EC:
            # Imported by those who have such a key: it takes memory of a worker.
            from homemgr.token.public_keys import point_of

            return session.derive(handle, *point_of(data))
        mechanism = cryptoki.rsa_mechanism(padding)
        if kind != cryptoki.RSA or mechanism is None:
            raise errors.NotSupported(
                f"The key on the security token is of kind {kind:#x} with padding {padding!r:.40}: "
                "expected RSA with pkcs1, oaep-sha1 or oaep-sha256, or an elliptic curve."
            )
        return session.decrypt(handle, mechanism, data)
    except CryptokiError as error:
        raise errors.NotSupported(
            f"The security token cannot decrypt the key ({error})."
        ) from error


def _private_key(session: Session, uri: Uri) -> int:
    """The one private key that ``uri`` means and that can decrypt, or else derive."""
    said = [each for each in uri.attributes() if each[0] != cryptoki.CLASS]
    wanted = [*said, (cryptoki.CLASS, cryptoki.number(cryptoki.PRIVATE_KEY))]
    for use in (cryptoki.DECRYPT, cryptoki.DERIVE):
        found = session.find([*wanted, (use, b"\1")])
        if len(found) == 1:
            return found[0]
    raise errors.NotSupported(
        "The security token has no key to decrypt with, or several: "
        "then the URI has to name one, with object= or id=."
    )


# -- a new entry ------------------------------------------------------------------------


class Enrolled(NamedTuple):
    """What a new entry is made of; ``key`` is what the record's hash is made from."""

    data: bytes
    key: bytes
    #: The PIN that opened the token; empty if none did.
    pin: str


def enrol(tokens: Tokens, uri_text: str, pins: tuple[str, ...]) -> Enrolled:
    """Make a key for the token that ``uri_text`` means; raises like `Tokens.logged_in`.

    The token itself has to decrypt it once before anything is made of it.
    """
    from homemgr.token import public_keys

    uri = p11kit.Uri(uri_text)
    try:
        with tokens.logged_in(uri, pins, by_itself=True) as (session, pin):
            key, data = public_keys.lock(_public_key(session, uri))
            if decrypted(session, uri, data) != key:
                raise errors.NotSupported("The security token did not decrypt its key as it was.")
            return Enrolled(data, key, pin)
    finally:
        uri.close()


def _public_key(session: Session, uri: Uri) -> PublicKey:
    from homemgr.token import public_keys

    try:
        return public_keys.public_key_of(session, _private_key(session, uri))
    except (CryptokiError, ValueError) as error:
        raise errors.NotSupported(f"The security token's key cannot be read ({error}).") from error
