"""Passwords through libcrypt: make a hash, check one. See crypt(3), crypt_gensalt(3).

Keeps no password and no state: libcrypt's work area lives for one call, is wiped
and freed. Calls may run in several threads at once and do not hold the interpreter
lock; yescrypt takes 16 MiB per call, so the caller bounds how many run together.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import hmac
import os

#: libcrypt's own limit (CRYPT_MAX_PASSPHRASE_SIZE, terminating NUL included).
PASSPHRASE_LIMIT = 512

# libxcrypt is .1 where it took over from glibc's (Debian) and .2 where it did not (Fedora, Arch).
_SONAMES = ("libcrypt.so.1", "libcrypt.so.2")


class _Libcrypt:
    """The two functions we use, with prototypes, and free(3) for what they allocate."""

    def __init__(self) -> None:
        library = _load()
        pointer, integer = ctypes.c_void_p, ctypes.c_int
        self.crypt_ra = library.crypt_ra
        self.crypt_ra.restype = pointer
        self.crypt_ra.argtypes = [
            pointer,
            ctypes.c_char_p,
            ctypes.POINTER(pointer),
            ctypes.POINTER(integer),
        ]
        self.gensalt_ra = library.crypt_gensalt_ra
        # Not c_char_p: that would copy the text and lose the pointer to free.
        self.gensalt_ra.restype = pointer
        self.gensalt_ra.argtypes = [ctypes.c_char_p, ctypes.c_ulong, pointer, integer]
        self.free = ctypes.CDLL(None).free
        self.free.restype = None
        self.free.argtypes = [pointer]


def _load() -> ctypes.CDLL:
    for soname in _SONAMES:
        try:
            return ctypes.CDLL(soname, use_errno=True)
        except OSError:
            continue
    raise OSError(errno.ELIBACC, f"none of {', '.join(_SONAMES)} can be loaded")


@functools.cache
def _libcrypt() -> _Libcrypt:
    # At first use: a command that hashes nothing does not pay for loading.
    return _Libcrypt()


def preload() -> None:
    """Load libcrypt now, for processes that are forked from this one."""
    _libcrypt()


def hash_password(password: str, prefix: str | None = None) -> str:
    """Hash ``password`` with a fresh salt; ``prefix`` such as ``$y$`` chooses the method.

    ValueError for a password that cannot be hashed (NUL inside, too long) or a
    method that libcrypt does not have.
    """
    phrase = _encode(password)
    return _crypt(phrase, _new_setting(prefix)).decode("ascii")


def verify(password: str, hashed: str) -> bool:
    """Whether ``password`` makes ``hashed``; a hash that is no hash matches nothing."""
    try:
        wanted = hashed.encode("ascii")
        found = _crypt(_encode(password), wanted)
    except ValueError:
        return False
    return hmac.compare_digest(found, wanted)


def _encode(password: str) -> bytes:
    # Terminal input that is not UTF-8 arrives as surrogates; hash the bytes typed.
    phrase = password.encode("utf-8", "surrogateescape")
    if b"\0" in phrase:
        # C would stop here: "a\0b" would be as good as "a".
        raise ValueError("a password must not contain a NUL character")
    if len(phrase) >= PASSPHRASE_LIMIT:
        raise ValueError(f"a password must be shorter than {PASSPHRASE_LIMIT} bytes")
    return phrase


def _new_setting(prefix: str | None) -> bytes:
    if prefix is not None and "\0" in prefix:
        raise ValueError("a hashing method must not contain a NUL character")
    lib = _libcrypt()
    # Count 0 is the method's default cost, no bytes: libcrypt asks the kernel.
    found = lib.gensalt_ra(None if prefix is None else prefix.encode("ascii"), 0, None, 0)
    if not found:
        raise _failure(f"libcrypt cannot make a salt for hashing method {prefix!r}")
    try:
        return ctypes.string_at(found)
    finally:
        lib.free(found)


def _crypt(phrase: bytes, setting: bytes) -> bytes:
    if b"\0" in setting:
        raise ValueError("a password hash must not contain a NUL character")
    lib = _libcrypt()
    area, size = ctypes.c_void_p(None), ctypes.c_int(0)
    copy = ctypes.create_string_buffer(phrase)
    try:
        # The pointer goes in as is: no second copy that nobody wipes.
        found = lib.crypt_ra(
            ctypes.addressof(copy), setting, ctypes.byref(area), ctypes.byref(size)
        )
        hashed = ctypes.string_at(found) if found else b"*"
        if hashed.startswith(b"*"):
            raise _failure("libcrypt refuses this password hash")
        return hashed
    finally:
        ctypes.memset(copy, 0, len(copy))
        if area.value:
            ctypes.memset(area, 0, size.value)
            lib.free(area)


def _failure(text: str) -> Exception:
    number = ctypes.get_errno()
    # What the caller gave is a ValueError; a machine without memory is not.
    if number in (errno.EINVAL, errno.ERANGE, 0):
        return ValueError(text)
    return OSError(number, f"{text}: {os.strerror(number)}")
