"""The keys of `luks` homes in use, kept by the kernel so that their devices can get another size.

The kernel takes a new table for a device only with its key, and who gave the word for that is
long gone then. It lies in a keyring of the service, out of which nobody can read it, and goes with
the service, when the home is locked and when it is closed. Without it a home gets another size
only from somebody who knows its password.
"""

from __future__ import annotations

import errno
import logging
from contextlib import suppress

from homemgr.errors import NotSupported
from homemgr.kernel import device_mapper, keyring

log = logging.getLogger(__name__)

#: What the parameters of a device begin with, after its cipher, if its key is in a keyring.
_IN_KEYRING = "logon"


def keep(device: str, key: bytearray) -> None:
    """Keep the key of the device of this name. Best effort: its user is about to get his home."""
    try:
        description = _description(device)
        if description is not None:
            keyring.keep(_ring(device), description, key)
    except OSError as error:
        log.info("The key of %s is not kept, its size stays: %s.", device, error.strerror)


def is_kept(device: str) -> bool:
    """Whether `resize` can do anything with the device."""
    with suppress(OSError):
        return keyring.has(_ring(device))
    return False


def forget(device: str) -> None:
    """Keep the key of the device no longer."""
    # Where there are no keyrings none is kept.
    with suppress(OSError):
        keyring.drop(_ring(device))


def resize(device: str, size: int) -> None:
    """Have the device show ``size`` bytes, with the key that is kept. Raises NotSupported."""
    with device_mapper.open_control() as control:
        fd = control.fileno()
        table = device_mapper.table(fd, device)
        try:
            device_mapper.load(fd, device, table.kind, size, table.parameters, is_writable=True)
        except OSError as error:
            if error.errno != errno.ENOKEY:
                raise
            raise NotSupported(f"The key of {device} is not kept any more.") from error
        device_mapper.resume(fd, device)


def _ring(device: str) -> str:
    return f"homemgr:{device}"


def _description(device: str) -> str | None:
    """What the key of a device is called, if the kernel has it from a keyring."""
    with device_mapper.open_control() as control:
        parameters = device_mapper.table(control.fileno(), device).parameters
    # As in ":32:logon:cryptsetup:UUID-d0", see Documentation/.../dm-crypt.rst of the kernel.
    _, _, where = parameters.split(" ")[1].partition(":")
    kind, _, description = where.partition(":")[2].partition(":")
    return description if kind == _IN_KEYRING else None
