"""libp11-kit: the modules that the system's configuration names, and PKCS#11 URIs (RFC 7512).

Which modules there are is said by files of packages and the administrator alone, see
pkcs11.conf(5): never by a URI, whose `module-path` is not looked at, and never by files in
root's home directory, which libp11-kit passes over for root.
"""

from __future__ import annotations

import ctypes
import functools
from contextlib import contextmanager
from ctypes import POINTER, byref, c_char_p, c_int, c_ulong, c_void_p
from typing import TYPE_CHECKING, Final

from homemgr import library
from homemgr.errors import InvalidArgs, NotSupported
from homemgr.token.cryptoki import Attribute, Module, TokenInfo

if TYPE_CHECKING:
    from collections.abc import Iterator

_SONAME, _PACKAGE = "libp11-kit.so.0", "p11-kit or libp11-kit0"
_FOR_ANY: Final = 0xFFFF
_PROTOTYPES: dict[str, library.Prototype] = {
    "p11_kit_modules_load_and_initialize": (POINTER(c_void_p), [c_int]),
    "p11_kit_modules_finalize_and_release": (None, [POINTER(c_void_p)]),
    "p11_kit_uri_new": (c_void_p, []),
    "p11_kit_uri_free": (None, [c_void_p]),
    "p11_kit_uri_parse": (c_int, [c_char_p, c_int, c_void_p]),
    "p11_kit_uri_format": (c_int, [c_void_p, c_int, POINTER(c_void_p)]),
    "p11_kit_uri_match_token_info": (c_int, [c_void_p, POINTER(TokenInfo)]),
    "p11_kit_uri_get_token_info": (POINTER(TokenInfo), [c_void_p]),
    "p11_kit_uri_get_attributes": (POINTER(Attribute), [c_void_p, POINTER(c_ulong)]),
}


@functools.cache
def _p11_kit() -> ctypes.CDLL:
    return library.load("Security tokens of this kind", _SONAME, _PACKAGE, _PROTOTYPES)


@contextmanager
def modules() -> Iterator[list[Module]]:
    """All modules that could be initialised, until the end of the block; NotSupported if none."""
    lib = _p11_kit()
    found = lib.p11_kit_modules_load_and_initialize(0)
    if not found:
        raise NotSupported("No driver of PKCS#11 tokens could be loaded; see pkcs11.conf(5).")
    try:
        addresses: list[int] = []
        while found[len(addresses)]:
            addresses.append(found[len(addresses)])
        yield [Module(address) for address in addresses]
    finally:
        lib.p11_kit_modules_finalize_and_release(found)


class Uri:
    """A PKCS#11 URI: which token is meant, and which object on it."""

    def __init__(self, text: str) -> None:
        """Read ``text``; raises InvalidArgs if it is no such URI."""
        self._lib = _p11_kit()
        self._uri = c_void_p(self._lib.p11_kit_uri_new())
        if "\0" in text or self._lib.p11_kit_uri_parse(text.encode(), _FOR_ANY, self._uri):
            self.close()
            raise InvalidArgs(f"{text!r:.200} is no PKCS#11 URI, expected pkcs11:NAME=VALUE;...")

    def close(self) -> None:
        """Free what the library holds."""
        self._lib.p11_kit_uri_free(self._uri)

    def means(self, token: TokenInfo) -> bool:
        """Whether ``token`` fits all that the URI says about the token."""
        return bool(self._lib.p11_kit_uri_match_token_info(self._uri, byref(token)))

    def attributes(self) -> list[tuple[int, bytes]]:
        """What it says about the object on the token."""
        count = c_ulong(0)
        found = self._lib.p11_kit_uri_get_attributes(self._uri, byref(count))
        listed = [found[place] for place in range(count.value)]
        return [(each.type, ctypes.string_at(each.value, each.length)) for each in listed]


def uri_of(token: TokenInfo) -> str:
    """The URI that means just this token."""
    lib = _p11_kit()
    uri, text = c_void_p(lib.p11_kit_uri_new()), c_void_p()
    try:
        # By value, into the structure that belongs to the URI.
        lib.p11_kit_uri_get_token_info(uri)[0] = token
        if lib.p11_kit_uri_format(uri, _FOR_ANY, byref(text)):
            raise NotSupported(f"Token {token.text('label')} cannot be named by a URI.")
        assert text.value is not None
        return ctypes.string_at(text.value).decode()
    finally:
        if text.value:
            _libc().free(text)
        lib.p11_kit_uri_free(uri)


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None)
    libc.free.restype, libc.free.argtypes = None, [c_void_p]
    return libc
