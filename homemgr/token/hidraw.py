"""FIDO tokens that are plugged in, by what the kernel says of them; no device is opened for it.

A FIDO token is a HID device whose report descriptor has a collection of the usage page that
the FIDO Alliance has been given. See sysfs, "HID Device Class Definition" section 6.2.2, CTAP
"CTAPHID, HID report descriptor".
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_CLASS: Final = Path("/sys/class/hidraw")
_DEVICES: Final = Path("/dev")
_USAGE_PAGE, _LONG_ITEM, _FIDO_PAGE = 0x04, 0xFE, 0xF1D0
#: The kernel takes descriptors of at most this length.
_DESCRIPTOR_BYTES: Final = 4096


class Found(NamedTuple):
    """A token: its device node, and the name it gives itself."""

    path: str
    name: str


def tokens(directory: Path = _CLASS) -> list[Found]:
    """All FIDO tokens, those that were plugged in first coming first."""
    try:
        nodes = sorted(directory.iterdir(), key=lambda node: (len(node.name), node.name))
    except FileNotFoundError:
        # Not one HID device, or a kernel that knows none.
        return []
    return [
        Found(str(_DEVICES / _said(node, "DEVNAME", node.name)), _said(node / "device", "HID_NAME"))
        for node in nodes
        if _is_fido(node)
    ]


def _is_fido(node: Path) -> bool:
    try:
        with (node / "device" / "report_descriptor").open("rb") as file:
            return _FIDO_PAGE in usage_pages(file.read(_DESCRIPTOR_BYTES))
    except OSError:
        # Unplugged meanwhile.
        return False


def usage_pages(descriptor: bytes) -> Iterator[int]:
    """The usage pages that a report descriptor names; ends where it is cut off."""
    place = 0
    while place < len(descriptor):
        prefix = descriptor[place]
        if prefix == _LONG_ITEM:
            length = descriptor[place + 1] + 2 if place + 1 < len(descriptor) else 0
        else:
            length = (0, 1, 2, 4)[prefix & 3]
            if prefix & 0xFC == _USAGE_PAGE:
                yield int.from_bytes(descriptor[place + 1 : place + 1 + length], "little")
        place += 1 + length


def _said(device: Path, variable: str, otherwise: str = "") -> str:
    """What the kernel says of a device in a variable of its events."""
    try:
        text = (device / "uevent").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return otherwise
    lines = dict(line.partition("=")[::2] for line in text.splitlines())
    return lines.get(variable, otherwise)
