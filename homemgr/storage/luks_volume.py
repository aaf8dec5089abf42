"""The encrypted volume of a `luks` home: found, unlocked with words, given slots for them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from homemgr.errors import BadPassword, HomeAbsent, NotSupported, UnrecognizedHomeFormat
from homemgr.kernel import address_space
from homemgr.record.volume_settings import volume_settings
from homemgr.storage import inner
from homemgr.storage.wipe import wipe
from homemgr.volume.luks import LEAST, MOST_THREADS, Pbkdf, Volume

if TYPE_CHECKING:
    from homemgr.record.jsontext import JsonObject
    from homemgr.record.volume_settings import VolumeSettings
    from homemgr.storage.image_parts import Part
    from homemgr.storage.kind import Image, Words
    from homemgr.volume.luks import Cost

log = logging.getLogger(__name__)

#: Processor time for one try of one slot, for each of its threads (s): programs have it take up
#: to two seconds on the machine that it was made on, which may be a faster one.
_TRY_S: Final = 10.0
#: If the record has a slot of ours take longer: as many times as long.
_TRY_FACTOR: Final = 3
#: To add one the library measures this machine first, in several rounds, which have taken
#: thirteen times the time cost where new memory is slow. No stranger has a say in these.
_MEASURING_S: Final = 20.0
_MEASURING_FACTOR: Final = 20


def load(device: str, image: Image, settings: VolumeSettings) -> Volume:
    """The volume on a device. Raises UnrecognizedHomeFormat if it is not that of the home."""
    try:
        volume = Volume.load(device)
    except OSError as error:
        raise UnrecognizedHomeFormat(f"{image.path} holds no LUKS2 volume: {error}.") from error
    if settings.luks_uuid not in (None, volume.uuid):
        volume.close()
        raise UnrecognizedHomeFormat(
            f"The volume of {image.path} is not the one its user had here: its UUID is"
            f" {volume.uuid}, expected {settings.luks_uuid}."
        )
    return volume


def of_active(image: Image) -> Volume:
    """The volume of a home whose device is there."""
    try:
        return Volume.of_active(inner.name_of(image))
    except OSError as error:
        raise HomeAbsent(f"The volume of {image.path} is not open.") from error


def binding(volume: Volume, part: Part) -> JsonObject:
    """What a record's binding says of it."""
    cipher, mode = volume.cipher
    found: JsonObject = {
        "luksUuid": volume.uuid,
        "luksCipher": cipher,
        "luksCipherMode": mode,
        "luksVolumeKeySize": volume.key_size,
    }
    return found if part.guid is None else {**found, "partitionUuid": part.guid}


def unlock(volume: Volume, words: Words, image: Image) -> bytearray:
    """The key of the volume; BadPassword if no word gives it."""
    for word in words.words:
        found = _behind(volume, word, words, image)
        if found is not None:
            return found[1]
    raise BadPassword(f"None of the passwords unlocks the volume of {image.path}.")


def opened_by(volume: Volume, words: Words, image: Image) -> list[int]:
    """The numbers of the slots that one of ``words`` opens."""
    numbers = []
    for word in words.words:
        found = _behind(volume, word, words, image)
        if found is not None:
            number, key = found
            wipe(key)
            numbers.append(number)
    return numbers


def _behind(volume: Volume, word: str, words: Words, image: Image) -> tuple[int, bytearray] | None:
    """The first slot that ``word``, one of ``words``, opens, and the key.

    Whoever made the header decides how long each takes, and how many there are: 32 at most.
    """
    time_s = max(_TRY_S, _TRY_FACTOR * _time_cost_s(volume_settings(image.effective)))
    for slot, cost in _affordable(volume, image.path).items():
        with words.working(time_s * cost.threads, cost.memory):
            key = volume.key_behind(word, slot)
        if key is not None:
            return slot, key
    return None


def _affordable(volume: Volume, path: str) -> dict[int, Cost]:
    """The slots that may be tried on this machine; NotSupported if there are others alone."""
    most = address_space.most_at_once()
    costs = {slot: volume.cost(slot) for slot in volume.tried()}
    found = {slot: cost for slot, cost in costs.items() if cost.memory <= most}
    if len(found) < len(costs):
        left_out = f"{path}: key slots that take more than {most >> 20} MiB of memory, a quarter"
        left_out += " of this machine's, are not tried"
        if not found:
            raise NotSupported(
                f"{left_out}, and it has no other. Add one elsewhere with `cryptsetup luksAddKey"
                " --pbkdf-memory`, or set luksPbkdfMemoryCost and change the password there."
            )
        log.warning("%s.", left_out)
    return found


def _time_cost_s(settings: VolumeSettings) -> float:
    return settings.pbkdf_time_usec / 1_000_000


def add_slots(volume: Volume, key: bytearray, words: Words, settings: VolumeSettings) -> None:
    """Have each of ``words`` unlock it too; what nobody can guess is not stretched for long."""
    usual = Pbkdf(
        settings.pbkdf,
        settings.pbkdf_hash,
        max(1, settings.pbkdf_time_usec // 1000),
        # More could never be opened here.
        max(32, min(settings.pbkdf_memory, address_space.most_at_once()) // 1024),
        settings.pbkdf_threads,
        settings.pbkdf_iterations,
    )
    threads = min(MOST_THREADS, max(1, settings.pbkdf_threads))
    time_s = _MEASURING_S + _MEASURING_FACTOR * _time_cost_s(settings) * threads
    for word in words.words:
        volume.stretch(LEAST if word in words.random else usual)
        with words.working(time_s, usual.memory_kib << 10):
            volume.add_slot(key, word)
