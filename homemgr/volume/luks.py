"""LUKS2 volumes through libcryptsetup: one class for an open header, no policy.

Functions, structures and numbers are those of libcryptsetup.h, version 2.4 and later. Keys and
passwords go from memory to memory; nothing of them is in a message of the library.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint32, c_void_p
from typing import TYPE_CHECKING, Final, NamedTuple

from homemgr.library import load
from homemgr.volume import udev

if TYPE_CHECKING:
    from collections.abc import Mapping

_SONAME, _PACKAGE = "libcryptsetup.so.12", "libcryptsetup12"

_LUKS2 = b"LUKS2"
_ANY_SLOT, _ANY_TOKEN = -1, -1
_SLOT_INACTIVE, _SLOT_ACTIVE, _SLOT_ACTIVE_LAST = 1, 2, 3
_ALLOW_DISCARDS = 1 << 3
_DEACTIVATE_DEFERRED = 1 << 0
_NO_BENCHMARK = 1 << 1
_KEYRING_KEY = 1 << 11
_PRIORITY_NORMAL = 1
_LOG_ERROR = 1
#: What libcryptsetup counts in.
_SECTOR = 512

#: More than that no cipher has: two keys of 256 bits.
_LONGEST_KEY = 64

_LOG_FUNCTION = ctypes.CFUNCTYPE(None, c_int, c_char_p, c_void_p)


class _PbkdfType(ctypes.Structure):
    """struct crypt_pbkdf_type."""

    _fields_ = (
        ("type", c_char_p),
        ("hash", c_char_p),
        ("time_ms", c_uint32),
        ("iterations", c_uint32),
        ("max_memory_kb", c_uint32),
        ("parallel_threads", c_uint32),
        ("flags", c_uint32),
    )


class _ParametersLuks2(ctypes.Structure):
    """struct crypt_params_luks2."""

    _fields_ = (
        ("pbkdf", POINTER(_PbkdfType)),
        ("integrity", c_char_p),
        ("integrity_params", c_void_p),
        ("data_alignment", c_size_t),
        ("data_device", c_char_p),
        ("sector_size", c_uint32),
        ("label", c_char_p),
        ("subsystem", c_char_p),
    )


_DEVICE, _KEY = c_void_p, [c_void_p, c_size_t]
_PROTOTYPES: Mapping[str, tuple[object, list[object]]] = {
    "crypt_init": (c_int, [POINTER(c_void_p), c_char_p]),
    "crypt_init_by_name": (c_int, [POINTER(c_void_p), c_char_p]),
    "crypt_free": (None, [_DEVICE]),
    "crypt_set_log_callback": (None, [_DEVICE, _LOG_FUNCTION, c_void_p]),
    "crypt_set_metadata_size": (c_int, [_DEVICE, ctypes.c_uint64, ctypes.c_uint64]),
    "crypt_set_pbkdf_type": (c_int, [_DEVICE, POINTER(_PbkdfType)]),
    "crypt_format": (
        c_int,
        [_DEVICE, c_char_p, c_char_p, c_char_p, c_char_p, *_KEY, POINTER(_ParametersLuks2)],
    ),
    "crypt_load": (c_int, [_DEVICE, c_char_p, c_void_p]),
    "crypt_get_uuid": (c_char_p, [_DEVICE]),
    "crypt_get_cipher": (c_char_p, [_DEVICE]),
    "crypt_get_cipher_mode": (c_char_p, [_DEVICE]),
    "crypt_get_volume_key_size": (c_int, [_DEVICE]),
    "crypt_get_data_offset": (ctypes.c_uint64, [_DEVICE]),
    "crypt_resize": (c_int, [_DEVICE, c_char_p, ctypes.c_uint64]),
    "crypt_keyslot_max": (c_int, [c_char_p]),
    "crypt_keyslot_status": (c_int, [_DEVICE, c_int]),
    "crypt_keyslot_get_priority": (c_int, [_DEVICE, c_int]),
    "crypt_keyslot_get_pbkdf": (c_int, [_DEVICE, c_int, POINTER(_PbkdfType)]),
    "crypt_keyslot_add_by_volume_key": (c_int, [_DEVICE, c_int, *_KEY, *_KEY]),
    "crypt_keyslot_destroy": (c_int, [_DEVICE, c_int]),
    "crypt_volume_key_get": (c_int, [_DEVICE, c_int, c_void_p, POINTER(c_size_t), *_KEY]),
    "crypt_activate_by_volume_key": (c_int, [_DEVICE, c_char_p, *_KEY, c_uint32]),
    "crypt_deactivate_by_name": (c_int, [_DEVICE, c_char_p, c_uint32]),
    "crypt_suspend": (c_int, [_DEVICE, c_char_p]),
    "crypt_resume_by_volume_key": (c_int, [_DEVICE, c_char_p, *_KEY]),
    "crypt_token_max": (c_int, [c_char_p]),
    "crypt_token_json_get": (c_int, [_DEVICE, c_int, POINTER(c_char_p)]),
    "crypt_token_json_set": (c_int, [_DEVICE, c_int, c_char_p]),
}


class Pbkdf(NamedTuple):
    """How a password is stretched; memory in KiB. With ``iterations`` nothing is measured."""

    kind: str
    hash: str
    time_ms: int
    memory_kib: int
    threads: int
    iterations: int | None = None


#: As little as the library allows; as systemd-homed has it for the words of tokens.
LEAST: Final = Pbkdf("pbkdf2", "sha512", 0, 0, 0, iterations=1000)


#: More the library uses for none, whatever a header says.
MOST_THREADS: Final = 4


class Cost(NamedTuple):
    """What a try of a slot takes: bytes of memory, and threads."""

    memory: int
    threads: int


class Layout(NamedTuple):
    """What a new volume is like; sizes in bytes, the header's as systemd-homed has them."""

    uuid: str
    label: str
    subsystem: str
    cipher: str
    mode: str
    sector_size: int
    metadata_size: int = 4 << 20
    keyslots_size: int = 8 << 20


@functools.cache
def _library() -> ctypes.CDLL:
    # At first use: whoever has no such home needs no library.
    if udev.is_running() and not udev.answers():
        # Or libdevmapper would wait for it for ever; it reads this when it is loaded.
        os.environ["DM_DISABLE_UDEV"] = "1"
    library = load("Encrypted volumes", _SONAME, _PACKAGE, _PROTOTYPES)
    # What has no volume to tell it goes to standard error else.
    library.crypt_set_log_callback(None, _deaf, None)
    return library


_deaf = _LOG_FUNCTION(lambda _level, _message, _user: None)


class Volume:
    """The header of a LUKS2 volume, open until `close`. Failures are OSError."""

    def __init__(self, handle: c_void_p) -> None:
        """Use `format_device`, `load` or `of_active`."""
        self._lib = _library()
        self._handle = handle
        self._said: list[str] = []
        # Kept: the library calls it as long as the handle lives.
        self._log = _LOG_FUNCTION(self._hear)
        self._lib.crypt_set_log_callback(handle, self._log, None)

    @classmethod
    def _open(cls, function: str, name: str) -> Volume:
        handle = c_void_p()
        status = getattr(_library(), function)(byref(handle), name.encode())
        if status < 0:
            raise OSError(-status, "The device is no LUKS volume, or cannot be opened", name)
        return cls(handle)

    @classmethod
    def format_device(cls, device: str, key: bytearray, layout: Layout) -> Volume:
        """Make ``device`` a volume with this key; there is no slot in it yet."""
        volume = cls._open("crypt_init", device)
        try:
            volume._format(key, layout)
        except OSError:
            volume.close()
            raise
        return volume

    @classmethod
    def load(cls, device: str) -> Volume:
        """The volume on ``device``."""
        volume = cls._open("crypt_init", device)
        try:
            volume._check(volume._lib.crypt_load(volume._handle, _LUKS2, None))
        except OSError:
            volume.close()
            raise
        return volume

    @classmethod
    def of_active(cls, name: str) -> Volume:
        """The volume that is active under ``name``."""
        return cls._open("crypt_init_by_name", name)

    def close(self) -> None:
        """Let go of the header; what is active stays."""
        if self._handle:
            self._lib.crypt_free(self._handle)
            self._handle = c_void_p()

    def __enter__(self) -> Volume:
        """Own until the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go, whatever happened."""
        self.close()

    def _hear(self, level: int, message: bytes, _user: object) -> None:
        if level == _LOG_ERROR:
            self._said.append(message.decode(errors="replace").strip())

    def _check(self, status: int) -> int:
        said, self._said = " ".join(self._said), []
        if status < 0:
            raise OSError(-status, said or "The volume's library gives no reason")
        return status

    def _format(self, key: bytearray, layout: Layout) -> None:
        lib, handle = self._lib, self._handle
        self._check(lib.crypt_set_metadata_size(handle, layout.metadata_size, layout.keyslots_size))
        # Everything else is what the library takes by itself; the slots have their own.
        parameters = _ParametersLuks2(
            sector_size=layout.sector_size,
            label=layout.label.encode(),
            subsystem=layout.subsystem.encode(),
        )
        # Or the digest of the key would be measured too.
        self.stretch(LEAST)
        texts = (layout.cipher, layout.mode, layout.uuid)
        names = [text.encode() for text in texts]
        self._check(lib.crypt_format(handle, _LUKS2, *names, *_pointer(key), byref(parameters)))

    # --- what it is ---------------------------------------------------------------------

    @property
    def uuid(self) -> str:
        """Its UUID."""
        return str((self._lib.crypt_get_uuid(self._handle) or b"").decode())

    @property
    def cipher(self) -> tuple[str, str]:
        """Cipher and mode."""
        cipher = self._lib.crypt_get_cipher(self._handle) or b""
        return cipher.decode(), (self._lib.crypt_get_cipher_mode(self._handle) or b"").decode()

    @property
    def key_size(self) -> int:
        """Size of its key in bytes."""
        return int(self._lib.crypt_get_volume_key_size(self._handle))

    # --- slots ----------------------------------------------------------------------------

    def stretch(self, pbkdf: Pbkdf) -> None:
        """How slots that are added from now on stretch their passwords."""
        is_argon = pbkdf.kind.startswith("argon2")
        kind = _PbkdfType(
            type=pbkdf.kind.encode(),
            hash=pbkdf.hash.encode(),
            time_ms=pbkdf.time_ms,
            iterations=pbkdf.iterations or 0,
            max_memory_kb=pbkdf.memory_kib if is_argon else 0,
            parallel_threads=pbkdf.threads if is_argon else 0,
            flags=_NO_BENCHMARK if pbkdf.iterations else 0,
        )
        self._check(self._lib.crypt_set_pbkdf_type(self._handle, byref(kind)))

    def slots(self) -> list[int]:
        """The numbers of the slots that hold the key."""
        in_use = (_SLOT_ACTIVE, _SLOT_ACTIVE_LAST)
        return [
            number
            for number in range(self._lib.crypt_keyslot_max(_LUKS2))
            if self._lib.crypt_keyslot_status(self._handle, number) in in_use
        ]

    def tried(self) -> list[int]:
        """Those that a word is tried with, in the library's order: who prefers some says so."""
        priority = {
            slot: self._lib.crypt_keyslot_get_priority(self._handle, slot) for slot in self.slots()
        }
        usual = [slot for slot in priority if priority[slot] >= _PRIORITY_NORMAL]
        return sorted(usual, key=lambda slot: -priority[slot])

    def cost(self, slot: int) -> Cost:
        """What its header says that a try of it takes."""
        kind = _PbkdfType()
        self._check(self._lib.crypt_keyslot_get_pbkdf(self._handle, slot, byref(kind)))
        threads = min(MOST_THREADS, max(1, kind.parallel_threads))
        return Cost(kind.max_memory_kb << 10, threads)

    def add_slot(self, key: bytearray, word: str) -> int:
        """Have ``word`` unlock it too; the number of its slot."""
        data = word.encode()
        arguments = (_ANY_SLOT, *_pointer(key), data, len(data))
        return self._check(self._lib.crypt_keyslot_add_by_volume_key(self._handle, *arguments))

    def destroy_slot(self, number: int) -> None:
        """Overwrite a slot."""
        self._check(self._lib.crypt_keyslot_destroy(self._handle, number))

    def key_behind(self, word: str, slot: int = _ANY_SLOT) -> bytearray | None:
        """The key, if ``word`` unlocks the slot; all are tried if none is given."""
        data, size = word.encode(), c_size_t(_LONGEST_KEY)
        key = (ctypes.c_char * _LONGEST_KEY)()
        arguments = (slot, key, byref(size), data, len(data))
        status = self._lib.crypt_volume_key_get(self._handle, *arguments)
        try:
            if status in (-errno.EPERM, -errno.ENOENT):
                self._said.clear()
                return None
            self._check(status)
            return bytearray(key.raw[: size.value])
        finally:
            ctypes.memset(key, 0, _LONGEST_KEY)

    # --- tokens -----------------------------------------------------------------------------

    def tokens(self) -> dict[int, str]:
        """The JSON texts that programs keep in the header, by number."""
        found = {}
        for number in range(self._lib.crypt_token_max(_LUKS2)):
            text = c_char_p()
            if self._lib.crypt_token_json_get(self._handle, number, byref(text)) >= 0:
                found[number] = (text.value or b"").decode(errors="replace")
        self._said.clear()
        return found

    def set_token(self, text: str | None, number: int = _ANY_TOKEN) -> int:
        """Write a token, anew if no number is given; None deletes that one. Gives its number."""
        data = None if text is None else text.encode()
        return self._check(self._lib.crypt_token_json_set(self._handle, number, data))

    # --- the device ---------------------------------------------------------------------------

    def activate(self, name: str, key: bytearray, *, discards: bool) -> None:
        """Make it a device called ``name``; EEXIST if there is one, EPERM for another key."""
        arguments = (name.encode(), *_pointer(key), _ALLOW_DISCARDS if discards else 0)
        self._check(self._lib.crypt_activate_by_volume_key(self._handle, *arguments))

    def deactivate(self, name: str, *, once_unused: bool = False) -> None:
        """Take the device away: at once, or EBUSY; or as soon as nobody uses it."""
        flags = _DEACTIVATE_DEFERRED if once_unused else 0
        self._check(self._lib.crypt_deactivate_by_name(self._handle, name.encode(), flags))

    @property
    def data_offset(self) -> int:
        """Bytes before what is encrypted."""
        return int(self._lib.crypt_get_data_offset(self._handle)) * _SECTOR

    def resize(self, name: str, key: bytearray, size: int) -> None:
        """Have the device called ``name`` show ``size`` bytes; who uses it goes on."""
        # The kernel takes a table only with the key, which lies in the keyring of this process.
        arguments = (None, *_pointer(key), _KEYRING_KEY)
        self._check(self._lib.crypt_activate_by_volume_key(self._handle, *arguments))
        self._check(self._lib.crypt_resize(self._handle, name.encode(), size // _SECTOR))

    def suspend(self, name: str) -> None:
        """Take the key out of memory; who reads or writes waits until `resume`."""
        self._check(self._lib.crypt_suspend(self._handle, name.encode()))

    def resume(self, name: str, key: bytearray) -> None:
        """Put the key back."""
        arguments = (name.encode(), *_pointer(key))
        self._check(self._lib.crypt_resume_by_volume_key(self._handle, *arguments))


def _pointer(key: bytearray) -> tuple[object, int]:
    """The key where it lies, so that there is no copy that nobody wipes."""
    return (ctypes.c_char * len(key)).from_buffer(key), len(key)
