"""FIDO tokens among the devices that the kernel tells of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from homemgr.token import hidraw

if TYPE_CHECKING:
    from pathlib import Path

FIDO = bytes.fromhex("06d0f10901a1010920150026ff007508954081020921150026ff00750895409102c0")
MOUSE = bytes.fromhex("05010902a1010901a100c0c0")
#: A keyboard that is also a token: the page comes late, after a long item.
BOTH = MOUSE + bytes.fromhex("fe0305aabbcc") + FIDO


@pytest.mark.parametrize(
    ("descriptor", "pages"),
    [
        (FIDO, [0xF1D0]),
        (MOUSE, [1]),
        (BOTH, [1, 0xF1D0]),
        (FIDO[:2], [0xD0]),
        (b"\xfe", []),
        (b"\xfe\xff", []),
        (b"", []),
        (b"\x07\xd0\xf1\x00\x00", [0xF1D0]),
    ],
)
def test_usage_pages_are_found_also_in_what_is_cut_off(descriptor: bytes, pages: list[int]) -> None:
    assert list(hidraw.usage_pages(descriptor)) == pages


def plug_in(place: Path, name: str, descriptor: bytes, **said: str) -> None:
    device = place / name / "device"
    device.mkdir(parents=True)
    (device / "report_descriptor").write_bytes(descriptor)
    for directory, variable in ((device.parent, "DEVNAME"), (device, "HID_NAME")):
        if variable in said:
            (directory / "uevent").write_text(f"DRIVER=x\n{variable}={said[variable]}\n")


def test_tokens_are_told_from_other_devices_and_named(tmp_path: Path) -> None:
    plug_in(tmp_path, "hidraw10", FIDO, DEVNAME="hidraw10", HID_NAME="Key = Ten")
    plug_in(tmp_path, "hidraw2", FIDO)
    plug_in(tmp_path, "hidraw1", MOUSE)
    (tmp_path / "hidraw3").mkdir()
    assert hidraw.tokens(tmp_path) == [("/dev/hidraw2", ""), ("/dev/hidraw10", "Key = Ten")]
    assert hidraw.tokens(tmp_path / "none") == []
