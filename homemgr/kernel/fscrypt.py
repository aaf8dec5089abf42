"""fscrypt: directories whose names and contents a file system encrypts, and the keys for it.

See the kernel's Documentation/filesystems/fscrypt.rst and linux/fscrypt.h. A key lives in the
file system, for every process, from `add_key` to `remove_key`; policies of version 1 and 2
differ in how they name it.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import hmac
import struct
from enum import IntEnum
from typing import NamedTuple

_SET_POLICY = 0x800C6613
_GET_POLICY_EX = 0xC0096616
_ADD_KEY = 0xC0506617
_REMOVE_KEY_ALL_USERS = 0xC0406619
_GET_KEY_STATUS = 0xC080661A

#: struct fscrypt_policy_v1 and _v2: version, modes of contents and names, flags, name of the key.
_POLICY = {1: struct.Struct("=4B8s"), 2: struct.Struct("=4B4x16s")}
#: Room for any policy.
_POLICY_BYTES = _POLICY[2].size
#: struct fscrypt_key_specifier: how the key is named, then its name.
_KEY_NAME = "=I4x32s"
#: struct fscrypt_add_key_arg: after the name the size, then the key itself.
_ADD_ARG = f"{_KEY_NAME}I36x"
#: struct fscrypt_remove_key_arg and _get_key_status_arg: flags or the status after the name.
_REMOVE_ARG, _STATUS_ARG = f"{_KEY_NAME}I20x", f"{_KEY_NAME}24xII4x52x"

_FILES_BUSY = 1

#: Of contents and names of new directories: AES-256-XTS, AES-256-CTS, names padded to 32 bytes.
_XTS, _CTS, _PAD_32 = 1, 4, 3

#: A key for all of these modes (bytes).
KEY_BYTES = 64

#: What file systems and kernels without encryption answer.
NOT_SUPPORTED = (errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS)


class KeyStatus(IntEnum):
    """What a file system knows of a key."""

    ABSENT = 1
    PRESENT = 2
    #: No file can be opened with it any more; those that are open can still be read.
    INCOMPLETELY_REMOVED = 3


class KeyName(NamedTuple):
    """The name of a key, as policies of one version have it; not the key."""

    version: int
    name: bytes


def key_name(key: bytes | bytearray, version: int) -> KeyName:
    """The name that ``key`` has in policies of ``version``."""
    if version == 1:
        # By custom; the kernel takes any 8 bytes.
        return KeyName(1, hashlib.sha512(hashlib.sha512(key).digest()).digest()[:8])
    # HKDF-SHA512 without salt, of which the first 16 bytes are asked for.
    extracted = hmac.digest(bytes(64), key, "sha512")
    return KeyName(2, hmac.digest(extracted, b"fscrypt\0\x01\x01", "sha512")[:16])


def get_policy(fd: int) -> KeyName | None:
    """The key that names and contents in a directory are encrypted with; None if they are not."""
    area = bytearray(struct.pack("=Q", _POLICY_BYTES) + bytes(_POLICY_BYTES))
    try:
        fcntl.ioctl(fd, _GET_POLICY_EX, area)
    except OSError as error:
        if error.errno in (errno.ENODATA, *NOT_SUPPORTED):
            return None
        raise
    version = 1 if area[8] == 0 else area[8]
    if version not in _POLICY:
        return None
    return KeyName(version, _POLICY[version].unpack_from(area, 8)[-1])


def set_policy(fd: int, key: KeyName) -> None:
    """Have an empty directory encrypted from now on; ``key`` must be there, see `add_key`."""
    # Version 1 has the number 0 on the wire.
    wire_version = 0 if key.version == 1 else key.version
    policy = _POLICY[key.version].pack(wire_version, _XTS, _CTS, _PAD_32, key.name)
    fcntl.ioctl(fd, _SET_POLICY, bytearray(policy))


def add_key(fd: int, key: bytes | bytearray, version: int) -> None:
    """Let everybody on the file system of ``fd`` read what is encrypted with ``key``."""
    area = bytearray(struct.pack(_ADD_ARG, *key_name(key, version), len(key)) + key)
    try:
        fcntl.ioctl(fd, _ADD_KEY, area)
    finally:
        # No copy of the key stays in our memory, whatever has become of the call.
        area[:] = bytes(len(area))


def remove_key(fd: int, key: KeyName) -> bool:
    """Take a key from the file system of ``fd``, and all that was read with it from memory.

    False if files are open that go on to be readable; ask again when they are closed. That
    the key is not there is no error. Writes out what is in memory only.
    """
    area = bytearray(struct.pack(_REMOVE_ARG, *key, 0))
    try:
        fcntl.ioctl(fd, _REMOVE_KEY_ALL_USERS, area)
    except OSError as error:
        if error.errno != errno.ENOKEY:
            raise
        return True
    return not struct.unpack(_REMOVE_ARG, area)[2] & _FILES_BUSY


def key_status(fd: int, key: KeyName) -> KeyStatus:
    """Whether the file system of ``fd`` has a key."""
    area = bytearray(struct.pack(_STATUS_ARG, *key, 0, 0))
    fcntl.ioctl(fd, _GET_KEY_STATUS, area)
    return KeyStatus(struct.unpack(_STATUS_ARG, area)[2])
