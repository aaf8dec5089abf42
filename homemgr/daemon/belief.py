"""Whom a machine believes that a home comes from, that its record is his, and its files are.

One origin, who introduced himself and signed for whom it is; one signer of the record,
perhaps somebody else; both accepted before, or by the caller. At the end the origin's seal.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.daemon.introductions import A_FILE, content_text, verified
from homemgr.daemon.origins import Origin, untrusted
from homemgr.record import signature
from homemgr.record.signature import PublicKey

if TYPE_CHECKING:
    from collections.abc import Iterable

    from homemgr.daemon.transfers import Transfers
    from homemgr.job import Message
    from homemgr.record.model import UserRecord

log = logging.getLogger(__name__)


class Belief:
    """What one run of a transfer into this machine has found out about its origin."""

    def __init__(
        self, transfers: Transfers, receiver: str, *, trust: Iterable[str], by_uid: int
    ) -> None:
        """Be ``receiver``; ``by_uid`` accepts what has a fingerprint of ``trust``."""
        self._transfers = transfers
        self._services = transfers.manager.services
        self._receiver = receiver
        self._trust = frozenset(trust)
        self._by_uid = by_uid
        self._nonce = b""
        self._origin: Origin | None = None
        #: Keys of the origin and of who signed the record it came with.
        self._key: PublicKey | None = None
        self._signer: PublicKey | None = None

    def meet(self, introduction: Message, nonce: bytes) -> tuple[UserRecord, Origin]:
        """The record and who sends it, if the introduction is for us and answers our nonce.

        Raises WrongReceiver, BadSignature, StreamError.
        """
        record, self._key, self._origin = verified(introduction, nonce, self._receiver)
        self._nonce = nonce
        return record, self._origin

    async def require_trust(self, record: UserRecord) -> None:
        """Raise UntrustedOrigin unless origin and signer were accepted; note new acceptances."""
        assert self._origin is not None
        signer = _signer_of(record, self._origin)
        strangers = [
            one
            for one in (self._origin, signer)
            if one is not None and not self._is_trusted(PublicKey.from_pem(one.public_key.encode()))
        ]
        refused = [one for one in strangers if one.fingerprint not in self._trust]
        if refused:
            for one in refused:
                self._transfers.origins.note_seen(one)
            raise untrusted(strangers, record.name)
        if signer is None and not signature.verdict(record, self._services.keyring).is_accepted:
            raise signature.unknown_signer(record)
        for one in strangers:
            await self._transfers.trust(one, by_uid=self._by_uid)
        self._signer = (
            self._key if signer is None else PublicKey.from_pem(signer.public_key.encode())
        )

    def _is_trusted(self, key: PublicKey) -> bool:
        known = self._services.keyring.name_of(key) is not None
        return known or self._transfers.origins.trusts(key)

    def require_signer(self, record: UserRecord) -> None:
        """Raise BadSignature unless a key we accept, or the signer met before, made it."""
        if signature.verdict(record, self._services.keyring).is_accepted:
            return
        signer = signature.named_signer(record)
        if signer is None or not (signer == self._signer or self._is_trusted(signer)):
            raise signature.unknown_signer(record)

    def require_seal(self, record: UserRecord, digest: str, told: object) -> None:
        """Raise AlteredContent unless the origin sealed this record and files with this digest.

        Who changed an export himself says so, with the digest of what it holds by now.
        """
        assert self._key is not None
        try:
            seal = bytes.fromhex(told) if isinstance(told, str) else b""
        except ValueError as error:
            raise errors.StreamError("The seal of the home is no hexadecimal text.") from error
        if self._key.verifies(seal, content_text(self._nonce, self._receiver, digest, record)):
            return
        if self._receiver != A_FILE:
            raise errors.AlteredContent("What arrived is not what its origin has sent.")
        if digest not in self._trust:
            what = "was changed after" if seal else "bears no seal of"
            raise errors.AlteredContent(
                f"The export {what} its origin{' wrote it' if seal else ''}. If you know what it"
                f" holds, import it with --trust={digest}, which accepts just this."
            )
        log.warning(
            "The home of %s is not what its origin exported; content %s was accepted by uid %d.",
            record.name,
            digest,
            self._by_uid,
        )


def _signer_of(record: UserRecord, origin: Origin) -> Origin | None:
    """Who signed the record, as an entry of the list; None if its signature names nobody."""
    key = signature.named_signer(record)
    if key is None:
        return None
    if key.fingerprint == origin.fingerprint:
        return origin
    host = f"signer of {record.user_and_realm}, from {origin.host}"
    return Origin(key.fingerprint, key.pem, host, "")
