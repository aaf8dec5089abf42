"""Other passwords for a volume, in steps between which a kill leaves the right ones.

As `rekeying` does it for slots in attributes: new slots are added before the record is written
and old ones destroyed after it. The note of it is a token of the header, which systemd-homed
leaves alone.
"""

from __future__ import annotations

import json
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from homemgr.storage.rekeying import digest, present

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from homemgr.storage.top import Top
    from homemgr.volume.luks import Volume

log = logging.getLogger(__name__)

_NOTE: Final = "homemgr-rekeying"


@contextmanager
def replacing(
    volume: Volume,
    top: Top,
    add: Callable[[], None],
    identity: bytes | None,
    dropped: Sequence[int] | None = None,
) -> Iterator[None]:
    """Have what ``add`` adds while the block runs; after it only what the record needs.

    Of the old slots all go then, or those with the numbers ``dropped`` if that is given.
    Without ``identity`` slots are only added.
    """
    taken = volume.slots()
    note: dict[str, object] = {
        "type": _NOTE,
        # The format wants it in every token; this one belongs to no slot.
        "keyslots": [],
        "taken": taken,
        "old": taken if dropped is None else list(dropped),
        "before": present(top),
    }
    if identity is not None:
        note["after"] = digest(identity)
    # Before the first new slot: a kill leaves none that nothing tells of.
    number = volume.set_token(json.dumps(note))
    try:
        add()
        yield
        # The record stays what it was: by the note `settle` would take for left over what was
        # added.
        if identity is None:
            volume.set_token(None, number)
    finally:
        settle(volume, top)


def settle(volume: Volume, top: Top) -> None:
    """Destroy slots that the home's record does not need, if a change of passwords left any."""
    for number, text in volume.tokens().items():
        note = _note(text)
        if note is None:
            continue
        now = present(top)
        if not now:
            # Its owner can have that at any time, and it must not decide who gets in.
            log.warning("%s has no record to read; all its key slots stay.", top.image_path)
        elif now == note.get("after"):
            _destroy(volume, note.get("old"))
        elif now == note.get("before"):
            taken = note.get("taken")
            had = taken if isinstance(taken, list) else volume.slots()
            _destroy(volume, [slot for slot in volume.slots() if slot not in had])
        else:
            log.warning("%s was changed elsewhere; all its key slots stay.", top.image_path)
        volume.set_token(None, number)


def _note(text: str) -> dict[str, object] | None:
    try:
        token = json.loads(text)
    except ValueError:
        return None
    is_ours = isinstance(token, dict) and token.get("type") == _NOTE
    return token if is_ours else None


def _destroy(volume: Volume, numbers: object) -> None:
    there = volume.slots()
    wanted = numbers if isinstance(numbers, list) else []
    # Never the last: what is in a note is worth less than a home.
    gone = [number for number in there if number in wanted]
    for number in gone[: len(there) - 1]:
        volume.destroy_slot(number)
