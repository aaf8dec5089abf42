"""QR codes through libqrencode, where that is installed. See QRcode_encodeString in qrencode.h."""

from __future__ import annotations

import ctypes
from typing import Final

_SONAMES: Final = ("libqrencode.so.4", "libqrencode.so.3")
#: The smallest version that holds the text, the lowest level of correction, bytes as they are.
_ANY_VERSION, _LEVEL_L, _MODE_8, _CASE_SENSITIVE = 0, 0, 2, 1
#: Of what a byte of ``data`` says, the colour.
_BLACK: Final = 1


class _Code(ctypes.Structure):
    """QRcode of qrencode.h: a square of ``width`` modules, a byte for each."""

    _fields_ = (
        ("version", ctypes.c_int),
        ("width", ctypes.c_int),
        ("data", ctypes.POINTER(ctypes.c_ubyte)),
    )


def modules(text: str) -> list[list[bool]] | None:
    """The code for ``text``, row by row, True for black; None without the library."""
    library = _load()
    if library is None:
        return None
    encode, free = library.QRcode_encodeString, library.QRcode_free
    encode.restype = ctypes.POINTER(_Code)
    encode.argtypes = [ctypes.c_char_p, *[ctypes.c_int] * 4]
    free.restype, free.argtypes = None, [ctypes.POINTER(_Code)]
    code = encode(text.encode(), _ANY_VERSION, _LEVEL_L, _MODE_8, _CASE_SENSITIVE)
    if not code:
        return None
    try:
        width, data = code.contents.width, code.contents.data
        return [[bool(data[y * width + x] & _BLACK) for x in range(width)] for y in range(width)]
    finally:
        free(code)


def _load() -> ctypes.CDLL | None:
    for soname in _SONAMES:
        try:
            return ctypes.CDLL(soname)
        except OSError:
            continue
    return None
