"""A disk image: which of its partitions is the extension, and who vouches for that.

A signature in the image counts if a certificate in verity.d made it, and the kernel then
checks every block that is read. See the specifications UAPI.2 and UAPI.3.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from homemgr.errors import ExtensionDamaged, ExtensionNotTrusted, ExtensionNotUsable
from homemgr.extension import certificates, hash_tree, partition_types, verified
from homemgr.volume import gpt
from homemgr.volume.reading import reader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homemgr.files import Fd
    from homemgr.volume.gpt import Partition

log = logging.getLogger(__name__)


def partitions(path: str, image: Fd) -> list[Partition]:
    """What is on the disk; ExtensionDamaged if its table is not whole."""
    size = os.fstat(image.fileno()).st_size
    try:
        return gpt.partitions(reader(image.fileno(), 0, size), size)
    except ValueError as error:
        raise ExtensionDamaged(f"Disk image {path} is damaged: {error}.") from error


def choose(path: str, found: Sequence[Partition], architecture: str) -> Partition:
    """The partition to mount if nobody signed one."""
    try:
        return partition_types.choose(found, architecture)
    except ValueError as error:
        raise ExtensionNotUsable(f"Disk image {path} cannot be used: {error}.") from error


def open_signed(
    path: str, image: Fd, found: Sequence[Partition], architecture: str, *, is_required: bool
) -> Fd | None:
    """A device that shows the signed partition, checked while it is read; None if none is signed.

    None as well if the signature is worth nothing here, and is not required.
    """
    if not partition_types.is_signed(found):
        return None
    try:
        return _open_signed(image, found, architecture)
    except (ValueError, verified.CannotVerifyError) as error:
        if not is_required:
            log.warning("The verity signature of %s counts for nothing: %s.", path, error)
            return None
        kind = ExtensionNotTrusted if isinstance(error, ValueError) else ExtensionNotUsable
        raise kind(
            f"Disk image {path} carries a verity signature, which cannot be verified here:"
            f" {error}. RequireSignature=no in extensions.conf lets its stored digest be enough."
        ) from error


def _open_signed(image: Fd, found: Sequence[Partition], architecture: str) -> Fd:
    where = partition_types.signature(found, architecture)
    read = reader(image.fileno(), where.start, where.size)
    signed = hash_tree.signed(read(0, hash_tree.SIGNATURE_LIMIT))
    parts = partition_types.sealed(found, where, architecture, signed.root_hash)
    certificates.require_signed(signed.content, signed.signature, certificates.trusted())
    data, hashes = parts
    superblock = reader(image.fileno(), hashes.start, hashes.size)(0, hash_tree.SUPERBLOCK_BYTES)
    tree = hash_tree.parse(superblock, signed.root_hash, data.size, hashes.size)
    return verified.open_verified(image, parts, tree, signed.root_hash)
