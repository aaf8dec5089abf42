"""Homes on devices are told from what else may lie there, without a password."""

from __future__ import annotations

import json
import os
import uuid
from typing import TYPE_CHECKING

import pytest

from homemgr.files import Fd
from homemgr.volume import luks_header
from homemgr.volume.luks import Layout, Volume
from homemgr.volume.probe import RECORD_TYPE, SUBSYSTEM, USER_HOME, UserHome, bears, user_homes
from tests.disk_images import GENERIC, Part, gpt_image

if TYPE_CHECKING:
    from pathlib import Path

LUKS_UUID = str(uuid.uuid4())
PARTITION_UUID = str(uuid.uuid4())


@pytest.fixture
def volume(tmp_path: Path) -> bytes:
    """A volume as systemd-homed and we make it, without its data."""
    path = tmp_path / "volume"
    with path.open("wb") as file:
        file.truncate(17 << 20)
    layout = Layout(LUKS_UUID, "anna", SUBSYSTEM, "aes", "xts-plain64", 512)
    with Volume.format_device(str(path), bytearray(os.urandom(32)), layout) as made:
        made.set_token(json.dumps({"type": RECORD_TYPE, "keyslots": [], "record": "", "iv": ""}))
    return path.read_bytes()


def homes_in(path: Path, content: bytes) -> list[UserHome]:
    path.write_bytes(content)
    with Fd.open(str(path), os.O_RDONLY) as device:
        return user_homes(device.fileno())


def test_a_home_is_found_where_it_is(volume: bytes, tmp_path: Path) -> None:
    image = tmp_path / "disk"
    alone = homes_in(image, volume)
    assert alone == [UserHome("anna", 0, len(volume), None, LUKS_UUID, has_record=True)]
    home = Part(USER_HOME, volume, "bert@example.org", PARTITION_UUID)
    (found,) = homes_in(image, gpt_image([Part(GENERIC, b"pictures"), home]))
    assert (found.owner, found.partition_uuid) == ("bert@example.org", PARTITION_UUID)
    assert image.read_bytes()[found.offset :].startswith(volume)
    assert found.size == len(volume)
    assert found.has_record


def test_what_is_half_made_is_known_by_its_name(volume: bytes, tmp_path: Path) -> None:
    image = tmp_path / "disk"
    # As cryptsetup has it between two writes: without a sum.
    torn = volume[:448] + bytes(64) + volume[512:]
    blank = bytes(1 << 20)
    named = gpt_image([Part(USER_HOME, blank, "anna", PARTITION_UUID)])
    for content, uuids in (
        (torn, {LUKS_UUID}),
        (gpt_image([Part(USER_HOME, torn, "anna", PARTITION_UUID)]), {LUKS_UUID, PARTITION_UUID}),
        (named, {PARTITION_UUID}),
        (blank, set()),
        (b"", set()),
    ):
        assert homes_in(image, content) == []
        with Fd.open(str(image), os.O_RDONLY) as device:
            asked = (LUKS_UUID, PARTITION_UUID, str(uuid.uuid4()), "")
            assert {one for one in asked if bears(device.fileno(), one)} == uuids


def test_what_is_no_home_is_told_from_one(volume: bytes, tmp_path: Path) -> None:
    image = tmp_path / "disk"
    without_record = volume.replace(RECORD_TYPE.encode(), b"other-program")
    stranger = without_record.replace(SUBSYSTEM.encode(), bytes(len(SUBSYSTEM)))
    # A checksum is over all of it: both are damaged headers, and count for nothing.
    for content in (b"", bytes(1 << 20), without_record, stranger, volume[: 1 << 20]):
        assert homes_in(image, content) == []
    parts = [Part(GENERIC, volume, "anna"), Part(USER_HOME, b"no volume", "anna")]
    assert homes_in(image, gpt_image(parts)) == []


def test_an_encrypted_disk_of_somebody_else_is_no_home(tmp_path: Path) -> None:
    image = tmp_path / "disk"
    image.write_bytes(bytes(17 << 20))
    layout = Layout(LUKS_UUID, "backup", "", "aes", "xts-plain64", 512)
    Volume.format_device(str(image), bytearray(32), layout).close()
    with Fd.open(str(image), os.O_RDONLY) as device:
        assert user_homes(device.fileno()) == []


@pytest.mark.parametrize("at", [6, 8, 24, 448, 4096])
def test_a_damaged_header_is_none(volume: bytes, at: int) -> None:
    damaged = bytearray(volume)
    damaged[at] ^= 1
    assert luks_header.parse(lambda start, size: bytes(damaged[start : start + size])) is None
