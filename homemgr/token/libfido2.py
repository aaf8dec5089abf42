"""libfido2 as far as it is needed: a device, a credential made on it, an assertion from it.

One class for each object of the library, no policy; see fido_dev_open(3), fido_cred_new(3),
fido_assert_new(3). Numbers are those of fido.h and of CTAP, "Status codes".
"""

from __future__ import annotations

import ctypes
import functools
from ctypes import POINTER, byref, c_bool, c_char_p, c_int, c_size_t, c_void_p
from typing import TYPE_CHECKING, Final

from homemgr import library

if TYPE_CHECKING:
    from collections.abc import Callable

OK: Final = 0x00
UNSUPPORTED_ALGORITHM, UNSUPPORTED_OPTION, NO_CREDENTIALS = 0x26, 0x2B, 0x2E
USER_ACTION_TIMEOUT, ACTION_TIMEOUT = 0x2F, 0x3A
PIN_INVALID, PIN_BLOCKED, PIN_AUTH_BLOCKED, PIN_REQUIRED = 0x31, 0x32, 0x34, 0x36
UP_REQUIRED, UV_BLOCKED, UV_INVALID = 0x3B, 0x3C, 0x3F
#: The library's own: the device said nothing in time.
RX: Final = -2

_HMAC_SECRET, _CRED_PROTECT, _PROTECT_UV_REQUIRED = 1, 2, 3
_OMIT, _FALSE, _TRUE = 0, 1, 2
#: Nobody verifies what the token signs: the secret that it gives is all that is wanted.
_NO_CLIENT_DATA: Final = bytes(32)

ALGORITHMS: Final = {"es256": -7, "rs256": -257, "eddsa": -8}

_SONAME, _PACKAGE = "libfido2.so.1", "libfido2-1"
_DATA = [c_void_p, c_char_p, c_size_t]
_PROTOTYPES: dict[str, library.Prototype] = {
    "fido_init": (None, [c_int]),
    "fido_dev_new": (c_void_p, []),
    "fido_dev_free": (None, [POINTER(c_void_p)]),
    "fido_dev_open": (c_int, [c_void_p, c_char_p]),
    "fido_dev_close": (c_int, [c_void_p]),
    "fido_dev_set_timeout": (c_int, [c_void_p, c_int]),
    "fido_dev_is_fido2": (c_bool, [c_void_p]),
    "fido_dev_get_cbor_info": (c_int, [c_void_p, c_void_p]),
    "fido_dev_get_retry_count": (c_int, [c_void_p, POINTER(c_int)]),
    "fido_dev_make_cred": (c_int, [c_void_p, c_void_p, c_char_p]),
    "fido_dev_get_assert": (c_int, [c_void_p, c_void_p, c_char_p]),
    "fido_cbor_info_new": (c_void_p, []),
    "fido_cbor_info_free": (None, [POINTER(c_void_p)]),
    "fido_cbor_info_extensions_ptr": (POINTER(c_char_p), [c_void_p]),
    "fido_cbor_info_extensions_len": (c_size_t, [c_void_p]),
    "fido_cbor_info_options_name_ptr": (POINTER(c_char_p), [c_void_p]),
    "fido_cbor_info_options_value_ptr": (POINTER(c_bool), [c_void_p]),
    "fido_cbor_info_options_len": (c_size_t, [c_void_p]),
    "fido_cred_new": (c_void_p, []),
    "fido_cred_free": (None, [POINTER(c_void_p)]),
    "fido_cred_set_type": (c_int, [c_void_p, c_int]),
    "fido_cred_set_rp": (c_int, [c_void_p, c_char_p, c_char_p]),
    "fido_cred_set_user": (
        c_int,
        [c_void_p, c_char_p, c_size_t, c_char_p, c_char_p, c_char_p],
    ),
    "fido_cred_set_clientdata_hash": (c_int, _DATA),
    "fido_cred_set_extensions": (c_int, [c_void_p, c_int]),
    "fido_cred_set_prot": (c_int, [c_void_p, c_int]),
    "fido_cred_id_ptr": (c_void_p, [c_void_p]),
    "fido_cred_id_len": (c_size_t, [c_void_p]),
    "fido_assert_new": (c_void_p, []),
    "fido_assert_free": (None, [POINTER(c_void_p)]),
    "fido_assert_set_rp": (c_int, [c_void_p, c_char_p]),
    "fido_assert_set_clientdata_hash": (c_int, _DATA),
    "fido_assert_allow_cred": (c_int, _DATA),
    "fido_assert_set_extensions": (c_int, [c_void_p, c_int]),
    "fido_assert_set_hmac_salt": (c_int, _DATA),
    "fido_assert_set_up": (c_int, [c_void_p, c_int]),
    "fido_assert_set_uv": (c_int, [c_void_p, c_int]),
    "fido_assert_hmac_secret_ptr": (c_void_p, [c_void_p, c_size_t]),
    "fido_assert_hmac_secret_len": (c_size_t, [c_void_p, c_size_t]),
    "fido_strerr": (c_char_p, [c_int]),
}


class Fido2Error(Exception):
    """The library or the token refused; ``code`` is its number."""

    def __init__(self, code: int) -> None:
        """Take the library's words for it."""
        super().__init__(f"{_libfido2().fido_strerr(code).decode()}, {code:#x}")
        self.code = code


@functools.cache
def _libfido2() -> ctypes.CDLL:
    lib = library.load("Security tokens of this kind", _SONAME, _PACKAGE, _PROTOTYPES)
    lib.fido_init(0)
    return lib


def _checked(code: int) -> None:
    if code != OK:
        raise Fido2Error(code)


class _Object:
    """One object of the library; freed by `close`."""

    def __init__(self, kind: str) -> None:
        self._lib = _libfido2()
        self._free: Callable[[object], None] = getattr(self._lib, f"fido_{kind}_free")
        self._handle = c_void_p(getattr(self._lib, f"fido_{kind}_new")())
        if not self._handle:
            raise MemoryError

    def close(self) -> None:
        """Give it back."""
        self._free(byref(self._handle))


class Assertion(_Object):
    """A question to a token: does it know ``credential``, and what secret has it for ``salt``."""

    def __init__(self, relying_party: str, credential: bytes, salt: bytes = b"") -> None:
        """Without a salt only whether it knows the credential."""
        super().__init__("assert")
        lib, own = self._lib, self._handle
        _checked(lib.fido_assert_set_rp(own, relying_party.encode()))
        _checked(lib.fido_assert_set_clientdata_hash(own, _NO_CLIENT_DATA, len(_NO_CLIENT_DATA)))
        _checked(lib.fido_assert_allow_cred(own, credential, len(credential)))
        if salt:
            _checked(lib.fido_assert_set_extensions(own, _HMAC_SECRET))
            _checked(lib.fido_assert_set_hmac_salt(own, salt, len(salt)))

    def set_presence(self, wanted: bool | None) -> None:  # noqa: FBT001 -- the one thing it says
        """Whether somebody has to touch the token; None does not speak of it."""
        _checked(self._lib.fido_assert_set_up(self._handle, _option(wanted)))

    def set_verification(self, wanted: bool | None) -> None:  # noqa: FBT001 -- as above
        """Whether the token has to recognise its user; None does not speak of it."""
        _checked(self._lib.fido_assert_set_uv(self._handle, _option(wanted)))

    def ask(self, device: Device, pin: str | None) -> int:
        """Ask, which waits for the user where he has to act; returns the status code."""
        words = None if pin is None else pin.encode("utf-8", "surrogateescape")
        return int(self._lib.fido_dev_get_assert(device.handle, self._handle, words))

    def secret(self) -> bytes:
        """What the token gave."""
        lib, own = self._lib, self._handle
        place = lib.fido_assert_hmac_secret_ptr(own, 0)
        return ctypes.string_at(place, lib.fido_assert_hmac_secret_len(own, 0)) if place else b""


class Credential(_Object):
    """A credential to be made on a token; the token keeps nothing of it but its own key."""

    def __init__(self, relying_party: tuple[str, str], user: tuple[str, str | None]) -> None:
        """``relying_party`` with its display name, and so the ``user``."""
        super().__init__("cred")
        lib, own = self._lib, self._handle
        _checked(lib.fido_cred_set_rp(own, *(name.encode() for name in relying_party)))
        name, shown = user[0].encode(), user[1].encode() if user[1] else None
        _checked(lib.fido_cred_set_user(own, name, len(name), name, shown, None))
        _checked(lib.fido_cred_set_clientdata_hash(own, _NO_CLIENT_DATA, len(_NO_CLIENT_DATA)))

    def set_algorithm(self, name: str) -> None:
        """One of ALGORITHMS, for a signature that nobody looks at."""
        _checked(self._lib.fido_cred_set_type(self._handle, ALGORITHMS[name]))

    def set_extensions(self, *, verification: bool) -> None:
        """A secret comes with it; with ``verification`` it is used for a recognised user only."""
        protect = _CRED_PROTECT if verification else 0
        _checked(self._lib.fido_cred_set_extensions(self._handle, _HMAC_SECRET | protect))
        if verification:
            _checked(self._lib.fido_cred_set_prot(self._handle, _PROTECT_UV_REQUIRED))

    def make(self, device: Device, pin: str | None) -> int:
        """Have it made, which waits for a touch; returns the status code."""
        words = None if pin is None else pin.encode("utf-8", "surrogateescape")
        return int(self._lib.fido_dev_make_cred(device.handle, self._handle, words))

    def identity(self) -> bytes:
        """What the token knows it by."""
        lib, own = self._lib, self._handle
        return ctypes.string_at(lib.fido_cred_id_ptr(own), lib.fido_cred_id_len(own))


class Device(_Object):
    """An open token."""

    def __init__(self, path: str, timeout_s: float) -> None:
        """Open the device node ``path``; one that says nothing for ``timeout_s`` is given up."""
        super().__init__("dev")
        try:
            _checked(self._lib.fido_dev_set_timeout(self._handle, int(timeout_s * 1000)))
            _checked(self._lib.fido_dev_open(self._handle, path.encode()))
        except Fido2Error:
            super().close()
            raise

    @property
    def handle(self) -> c_void_p:
        """The library's pointer."""
        return self._handle

    def close(self) -> None:
        """Let others open it."""
        self._lib.fido_dev_close(self._handle)
        super().close()

    def features(self) -> tuple[set[str], dict[str, bool]]:
        """Its extensions and options; none of a token that is older than FIDO2."""
        if not self._lib.fido_dev_is_fido2(self._handle):
            return set(), {}
        info = _Object("cbor_info")
        try:
            own = info._handle
            _checked(self._lib.fido_dev_get_cbor_info(self._handle, own))
            names = self._lib.fido_cbor_info_extensions_ptr(own)
            count = self._lib.fido_cbor_info_extensions_len(own)
            extensions = {names[place].decode() for place in range(count)}
            names = self._lib.fido_cbor_info_options_name_ptr(own)
            values = self._lib.fido_cbor_info_options_value_ptr(own)
            count = self._lib.fido_cbor_info_options_len(own)
            options = {names[place].decode(): bool(values[place]) for place in range(count)}
            return extensions, options
        finally:
            info.close()

    def pin_tries(self) -> int | None:
        """How many wrong PINs it still takes; None if it does not say."""
        left = c_int(0)
        code = self._lib.fido_dev_get_retry_count(self._handle, byref(left))
        return left.value if code == OK else None


def _option(wanted: bool | None) -> int:  # noqa: FBT001 -- the library's three values
    if wanted is None:
        return _OMIT
    return _TRUE if wanted else _FALSE
