"""What lies on a device by its signatures, through libblkid: told, never used or changed."""

from __future__ import annotations

import ctypes
import errno
import functools
from ctypes import POINTER, byref, c_char_p, c_int, c_int64, c_size_t, c_void_p
from typing import TYPE_CHECKING, Final

from homemgr.library import load

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SONAME, _PACKAGE = "libblkid.so.1", "libblkid1"
#: What blkid_do_safeprobe answers; all else says that the device could not be read.
_AMBIVALENT: Final = -2
_FOUND: Final = 0
_NOTHING: Final = 1
#: What names a thing, in the order in which they are asked for.
_NAMES: Final = (b"TYPE", b"PTTYPE")

_PROBE = c_void_p
_PROTOTYPES: Final[Mapping[str, tuple[object, Sequence[object]]]] = {
    "blkid_new_probe": (_PROBE, []),
    "blkid_free_probe": (None, [_PROBE]),
    "blkid_probe_set_device": (c_int, [_PROBE, c_int, c_int64, c_int64]),
    "blkid_probe_enable_partitions": (c_int, [_PROBE, c_int]),
    "blkid_do_safeprobe": (c_int, [_PROBE]),
    "blkid_probe_lookup_value": (
        c_int,
        [_PROBE, c_char_p, POINTER(c_char_p), POINTER(c_size_t)],
    ),
}


@functools.cache
def _library() -> ctypes.CDLL:
    return load("Homes on devices", _SONAME, _PACKAGE, _PROTOTYPES)


def found_on(device: int) -> str | None:
    """What a person would call the content of an open device; None if there is none.

    Raises OSError if it cannot be read, NotSupported without the library.
    """
    library = _library()
    probe = library.blkid_new_probe()
    try:
        if not probe or library.blkid_probe_set_device(probe, device, 0, 0):
            raise OSError(0, "libblkid cannot look at the device")
        library.blkid_probe_enable_partitions(probe, 1)
        status = library.blkid_do_safeprobe(probe)
        if status == _AMBIVALENT:
            return "several things"
        if status not in (_FOUND, _NOTHING):
            raise OSError(errno.EIO, "what lies on the device cannot be read")
        return _name(library, probe) if status == _FOUND else None
    finally:
        library.blkid_free_probe(probe)


def _name(library: ctypes.CDLL, probe: int) -> str:
    for name in _NAMES:
        value = c_char_p()
        if library.blkid_probe_lookup_value(probe, name, byref(value), None) == 0:
            return (value.value or b"").decode(errors="replace")
    return "something"
