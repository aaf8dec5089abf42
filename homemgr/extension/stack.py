"""One overlay from descriptors of its layers, see Documentation/filesystems/overlayfs.rst.

Gives a detached mount that nobody sees yet. Knows neither where layers come from nor
where the overlay goes. Every option is set, as defaults differ between kernels.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, NamedTuple

from homemgr.errors import NotSupported, from_os_error
from homemgr.extension.hierarchies import STACK_LIMIT, too_deep, too_many_layers
from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.kernel.capabilities import (
    CAP_CHOWN,
    CAP_DAC_OVERRIDE,
    CAP_FOWNER,
    CAP_SYS_ADMIN,
    only_capabilities,
)
from homemgr.kernel.identity import filesystem_identity
from homemgr.kernel.mounts import (
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    fs_messages,
    fsconfig_create,
    fsconfig_set_fd,
    fsconfig_set_string,
    fsmount,
    fsopen,
)
from homemgr.kernel.statfs import ECRYPTFS_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC, file_system_type

if TYPE_CHECKING:
    from collections.abc import Sequence

#: What the mount table says an overlay of ours comes from; a label follows.
SOURCE = "homemgr"

#: The kernel copies up with the capabilities of whoever mounted. One less, and copying up
#: fails or the overlay is read-only without a word; file capabilities are never copied up.
_CAPABILITIES = CAP_SYS_ADMIN | CAP_DAC_OVERRIDE | CAP_CHOWN | CAP_FOWNER

#: What is written must still be readable without us, and by any set of layers.
_OPTIONS = {
    # One device number and lasting inode numbers, though the layers are many file systems.
    "xino": "on",
    # Else a renamed directory is empty where the extension is not.
    "redirect_dir": "nofollow",
    # Else files in the home may be without their data.
    "metacopy": "off",
    # Else the next session, with other layers, fails with ESTALE.
    "index": "off",
    "nfs_export": "off",
    # Else the home's directory gets an attribute with an identity.
    "uuid": "null",
}

#: If all that is written is thrown away, changing owner or mode need not copy the data.
_OPTIONS_THROWN_AWAY = {"redirect_dir": "on", "metacopy": "on"}

#: From this version of Linux on overlayfs takes layers that are mounted nowhere.
_NEEDED = (6, 15)

_STACKED = (OVERLAYFS_SUPER_MAGIC, ECRYPTFS_SUPER_MAGIC)

#: What a directory shows besides its owner and mode, and tmpfs can store.
_ACLS = ("system.posix_acl_access", "system.posix_acl_default")


class Owner(NamedTuple):
    """Whose the home is, with the ids that its mount shows."""

    uid: int
    gid: int

    @classmethod
    def of(cls, directory: Fd) -> Owner:
        """The owner of ``directory``, which is the top of a home."""
        found = os.fstat(directory.fileno())
        return cls(found.st_uid, found.st_gid)


class Layer(NamedTuple):
    """A directory that is merged: for messages its name, and a descriptor of it."""

    name: str
    directory: Fd


class Upper(NamedTuple):
    """Where an overlay writes to; both directories are below the same mount."""

    directory: Fd
    work: Fd


class Options(NamedTuple):
    """How the overlays of one home are mounted."""

    nosuid: bool = True
    nodev: bool = True
    noexec: bool = False
    #: Room for what is thrown away, as tmpfs(5) writes it.
    memory: str = "25%"
    #: For what is thrown away, if every layer's overlay attributes can be trusted.
    metacopy: bool = False


def writable(
    layers: Sequence[tuple[str, Fd]],
    upper: Upper,
    owner: Owner,
    options: Options,
    label: str = "",
) -> Fd:
    """An overlay that writes into ``upper``; of ``layers`` the first one wins."""
    if os.fstat(upper.directory.fileno()).st_dev != os.fstat(upper.work.fileno()).st_dev:
        # Nothing can be renamed from there, which is how files are copied up.
        raise NotSupported(
            "It is another subvolume than the home, and can be merged only read-only."
        )
    return _build(layers, owner, options, _OPTIONS, upper, label)


def read_only(
    layers: Sequence[tuple[str, Fd]], owner: Owner, options: Options, label: str = ""
) -> Fd:
    """An overlay that cannot be written to; there must be two layers at least."""
    return _build(layers, owner, options, _OPTIONS, None, label)


def ephemeral(
    layers: Sequence[tuple[str, Fd]], owner: Owner, options: Options, label: str = ""
) -> Fd:
    """An overlay that writes into memory of its own; looks like the first layer at its top."""
    chosen = _OPTIONS | _OPTIONS_THROWN_AWAY if options.metacopy else _OPTIONS
    with ExitStack() as closing:
        # Open until the overlay has it: a detached mount goes with its descriptor.
        memory = closing.enter_context(mount_memory(owner, options.memory))
        upper = closing.enter_context(_make(memory, "upper", owner))
        work = closing.enter_context(_make(memory, "work", owner))
        copy_attributes(layers[0][1], upper)
        return _build(layers, owner, options, chosen, Upper(upper, work), label)


def mount_memory(owner: Owner, size: str) -> Fd:
    """A detached file system in memory that ``owner`` owns."""
    with fsopen("tmpfs") as fs:
        for key, value in (
            ("source", SOURCE),
            ("size", size),
            ("mode", "0700"),
            ("uid", str(owner.uid)),
            ("gid", str(owner.gid)),
        ):
            fsconfig_set_string(fs.fileno(), key, value)
        fsconfig_create(fs.fileno())
        return fsmount(fs.fileno(), MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)


def empty_layer(owner: Owner) -> Fd:
    """A layer with nothing in it: the kernel takes no overlay of a single one."""
    return mount_memory(owner, "4k")


def copy_attributes(source: Fd, target: Fd) -> None:
    """Make the directory ``target`` look like ``source``: mode, ACLs and times."""
    found = os.fstat(source.fileno())
    # By path: a descriptor that was opened only to look cannot be asked.
    here, there = (f"/proc/self/fd/{fd.fileno()}" for fd in (source, target))
    for name in _ACLS:
        # Not there, or neither side knows ACLs.
        with suppress(OSError):
            os.setxattr(there, name, os.getxattr(here, name))
    os.chmod(there, stat.S_IMODE(found.st_mode))
    os.utime(there, ns=(found.st_atime_ns, found.st_mtime_ns))


def _make(parent: Fd, name: str, owner: Owner) -> Fd:
    with filesystem_identity(*owner):
        os.mkdir(name, 0o700, dir_fd=parent.fileno())
    return Fd.open(name, DIRECTORY_FLAGS, dir_fd=parent.fileno())


def _build(
    layers: Sequence[tuple[str, Fd]],
    owner: Owner,
    options: Options,
    chosen: dict[str, str],
    upper: Upper | None,
    label: str,
) -> Fd:
    _check(layers)
    with fsopen("overlay") as fs:
        try:
            fsconfig_set_string(fs.fileno(), "source", f"{SOURCE}{label}")
            for key, value in chosen.items():
                fsconfig_set_string(fs.fileno(), key, value)
            # Work directory, whiteouts and copies belong to whom the mounter seems to be.
            with filesystem_identity(*owner), only_capabilities(_CAPABILITIES):
                _add_layers(fs.fileno(), layers, upper)
                fsconfig_create(fs.fileno())
            mount = fsmount(fs.fileno(), _attributes(options, is_writable=upper is not None))
        except OSError as error:
            said = "; ".join(fs_messages(fs.fileno()))
            raise _refused(layers, error, said) from error
        return _checked(mount, fs, is_writable=upper is not None)


def _check(layers: Sequence[tuple[str, Fd]]) -> None:
    reason = too_many_layers("it", len(layers))
    for name, directory in layers:
        # How deep it is stacked cannot be asked; one is what we make ourselves.
        reason = reason or too_deep(name, 1 if _is_stacked(directory) else 0)
    if reason:
        raise NotSupported(reason)


def _is_stacked(directory: Fd) -> bool:
    return file_system_type(directory.fileno()) in _STACKED


def _add_layers(fs: int, layers: Sequence[tuple[str, Fd]], upper: Upper | None) -> None:
    for _, directory in layers:
        set_directory(fs, "lowerdir+", directory)
    if upper is not None:
        set_directory(fs, "upperdir", upper.directory)
        set_directory(fs, "workdir", upper.work)


def set_directory(fs: int, key: str, directory: Fd) -> None:
    """Give overlayfs the ``directory`` as its ``key``, by descriptor where the kernel can."""
    try:
        fsconfig_set_fd(fs, key, directory.fileno())
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF):
            raise
        # Before Linux 6.13 it is a path, and this one needs no name of the directory. EBADF
        # is the answer to a descriptor that was opened only to look.
        fsconfig_set_string(fs, key, f"/proc/self/fd/{directory.fileno()}")


def _attributes(options: Options, *, is_writable: bool) -> int:
    attributes = 0 if is_writable else MOUNT_ATTR_RDONLY
    attributes |= MOUNT_ATTR_NOSUID if options.nosuid else 0
    attributes |= MOUNT_ATTR_NODEV if options.nodev else 0
    attributes |= MOUNT_ATTR_NOEXEC if options.noexec else 0
    return attributes


def _checked(mount: Fd, fs: Fd, *, is_writable: bool) -> Fd:
    # The kernel makes it read-only without an error if its work directory is of no use.
    if bool(os.fstatvfs(mount.fileno()).f_flag & os.ST_RDONLY) is not is_writable:
        return mount
    mount.close()
    said = "; ".join(fs_messages(fs.fileno())) or "the kernel does not say why"
    raise NotSupported(f"It could be merged only read-only, not for writing: {said}.")


def too_old(error: OSError, kernel: str = "") -> str:
    """Why a kernel of this release refuses layers; empty if that has another reason."""
    kernel = kernel or os.uname().release
    numbers = re.match(r"(\d+)\.(\d+)", kernel)
    # EOPNOTSUPP: that of Linux 6.1 takes no descriptors at all.
    if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP) or numbers is None:
        return ""
    if (int(numbers[1]), int(numbers[2])) >= _NEEDED:
        return ""
    needed = ".".join(map(str, _NEEDED))
    return (
        f"this kernel ({kernel}) merges no layers that are mounted nowhere; expected Linux {needed}"
    )


def _refused(layers: Sequence[tuple[str, Fd]], error: OSError, said: str) -> Exception:
    stacked = next((name for name, directory in layers if _is_stacked(directory)), None)
    if error.errno == errno.EINVAL and stacked is not None and not said:
        # Of this the kernel tells its log only.
        return NotSupported(too_deep(stacked, STACK_LIMIT))
    names = ", ".join(name for name, _ in layers[:5])
    doing = f"Cannot merge {names}"
    if reason := too_old(error):
        return NotSupported(f"{doing}: {reason} or newer.")
    if not said:
        return from_os_error(error, doing)
    return NotSupported(f"{doing}: {said} ({os.strerror(error.errno or errno.EIO)}).")
