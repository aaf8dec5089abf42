"""Homes that need no secret: whether root may have one activated without anybody's password.

Pure. An administrator says so in the record, for machines that he names by their id: that the
files lie on an encrypted disk is true of a machine, and does not travel with the home. It never
lets anybody in by itself: who proved by a key, or by root's word, who he is, finds his home.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from homemgr.errors import InvalidRecord
from homemgr.record.fields import UNASKED_ON
from homemgr.record.storages import ABILITIES

if TYPE_CHECKING:
    from homemgr.record.effective import EffectiveRecord

#: Storages that can be opened without a key.
_KEYLESS: Final = [name for name, storage in ABILITIES.items() if not storage.has_key]
_DEFAULT: Final = "directory"


def check(effective: EffectiveRecord, default_storage: str = _DEFAULT) -> None:
    """Raise InvalidRecord if the record asks for what its storage cannot do."""
    storage = effective.storage or default_storage
    if effective.without_secret and storage not in _KEYLESS:
        raise InvalidRecord(
            f".{UNASKED_ON}: the home of {effective.user_and_realm} has storage {storage},"
            f" which only its password opens; expected {' or '.join(_KEYLESS)}."
        )


def is_allowed(effective: EffectiveRecord, now_usec: int) -> bool:
    """Whether the home is opened for root without a secret now: its account must be open."""
    begin, end = effective.not_before_usec, effective.not_after_usec
    return (
        effective.without_secret
        and (effective.storage or _DEFAULT) in _KEYLESS
        and not effective.locked
        and (begin is None or begin <= now_usec)
        and (end is None or now_usec <= end)
    )
