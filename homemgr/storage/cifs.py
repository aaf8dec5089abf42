"""Storage `cifs`: a directory on a file server, mounted with the user's own password.

As systemd-homed has it. Who a file belongs to is made up by the mount, which shows all of them as
the user's: there is nothing on a disk here to be mapped, and Linux maps no ids of such mounts. The
server decides who may read them, whatever the record says; so a password that it does not take
opens nothing, and becomes nobody's password here.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Final

from homemgr.errors import (
    BadPassword,
    HomeAbsent,
    NotSupported,
    PathExists,
    from_os_error,
)
from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.kernel.identity import filesystem_identity
from homemgr.kernel.mountinfo import file_systems
from homemgr.kernel.mounts import MS_PRIVATE, OPEN_TREE_CLONE, mount_setattr, open_tree
from homemgr.kernel.openat2 import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2
from homemgr.kernel.statx import place
from homemgr.kernel.syscall import AT_EMPTY_PATH, AT_FDCWD
from homemgr.record.share import share_of
from homemgr.storage import directory, hidden, inner
from homemgr.storage.embedded import IDENTITY
from homemgr.storage.kind import Area, Storage
from homemgr.storage.top import Top, restrictions
from homemgr.storage.tree import delete_tree
from homemgr.volume import smb

if TYPE_CHECKING:
    from collections.abc import Iterator

    from homemgr.record.share import Share
    from homemgr.storage.idmapping import IdMapping
    from homemgr.storage.kind import Content, Image, Words

_WITHIN: Final = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
_KIND: Final = "cifs"


class Cifs(Storage):
    """A directory on a file server."""

    goes_with_mount = True

    def open(self, image: Image, words: Words, *, is_active: bool) -> Area:
        """Open it by the mount that is there, or with the first of ``words`` the server takes."""
        if is_active:
            mounted = _mounted(image)
            if mounted is not None:
                return CifsArea(Top(mounted, image.path), image, ExitStack())
        name = inner.name_of(image)
        hidden.take_away(name)
        with ExitStack() as on_failure:
            held = on_failure.enter_context(ExitStack())
            share = share_of(image.effective)
            root = held.enter_context(_mount(image, share, words))
            held.callback(hidden.take_away, name)
            hidden.make_cloneable(root, name)
            top = Top(_open_directory(root, share), image.path)
            on_failure.pop_all()
        return CifsArea(top, image, held)

    def create(
        self, image: Image, parent: Fd, file_name: str, content: Content, words: Words
    ) -> list[str]:
        """Fill the directory, which is made if it is missing and has to be empty."""
        share = share_of(image.effective)
        uid = _uid(image)
        with _mount(image, share, words) as root:
            with filesystem_identity(uid, uid):
                _make_directories(root, share)
            with _open_directory(root, share) as top, ExitStack() as undo:
                _require_empty(top, share)
                undo.callback(_empty, top)
                with filesystem_identity(uid, uid):
                    skipped = directory.populate(top, **content.first)
                undo.pop_all()
        return skipped

    def close(self, image: Image) -> bool:
        """Take away what a worker that was killed has left mounted."""
        hidden.take_away(inner.name_of(image))
        return True

    def set_aside(self, parent: Fd, file_name: str) -> None:
        """Nothing: what is on a server stays there."""

    def delete_aside(self, parent: Fd, file_name: str) -> None:
        """Nothing: what is on a server stays there."""


class CifsArea(Area):
    """An open home on a file server."""

    def __init__(self, top: Top, image: Image, held: ExitStack) -> None:
        """``held`` is let go of in any case, whether or not the home stays in use."""
        super().__init__(top)
        self._image = image
        self._held = held

    def attach(self, mapping: IdMapping, *, nosuid: bool, nodev: bool, noexec: bool) -> Fd:
        """A detached mount of the home, whose ids the mount has made up already."""
        mount = open_tree(self.top.fd.fileno(), "", AT_EMPTY_PATH | OPEN_TREE_CLONE)
        with ExitStack() as on_failure:
            on_failure.callback(mount.close)
            mount_setattr(
                mount.fileno(),
                "",
                AT_EMPTY_PATH,
                attr_set=restrictions(nosuid=nosuid, nodev=nodev, noexec=noexec),
                propagation=MS_PRIVATE,
            )
            on_failure.pop_all()
        return mount

    @contextmanager
    def rekeying(
        self, words: Words, identity: bytes | None, dropped: Words | None = None
    ) -> Iterator[None]:
        """Refuse words that the server takes none of: nobody could open the home with them."""
        try:
            _mount(self._image, share_of(self._image.effective), words).close()
        except BadPassword as error:
            raise NotSupported(
                f"The file server of {self._image.path} does not take the new password. Change it"
                " there first, then here."
            ) from error
        yield

    def resize(self, wanted: int) -> int:
        """Refuse: what is there for whom is the server's business."""
        raise NotSupported(f"The file server decides how much {self._image.path} may hold.")

    def close(self) -> None:
        """Let go of all of it."""
        self.top.close()
        self._held.close()
        super().close()


def _mount(image: Image, share: Share, words: Words) -> Fd:
    """The share, with the first of ``words`` that the server takes; BadPassword if none."""
    smb.require_kernel()
    uid, mode = str(_uid(image)), f"0{image.effective.access_mode & 0o777:o}"
    values = {"username": share.user, "uid": uid, "gid": uid}
    values |= {"file_mode": mode, "dir_mode": mode}
    if share.domain is not None:
        values["domain"] = share.domain
    options = ["forceuid", "forcegid", *share.mount_options]
    if image.is_copied:
        # Of a file that was only seen in its directory the kernel does not know the further names.
        options.append("actimeo=0")
    try:
        address = smb.address_of(share.host)
        for word in words.words:
            try:
                return smb.mount(share.unc, address, word, values, options)
            except OSError as error:
                if not smb.is_refused(error):
                    raise
    except OSError as error:
        # A look-up has numbers of its own, which are none of the system's.
        number = error.errno if error.errno and error.errno > 0 else errno.EHOSTUNREACH
        told = OSError(number, error.strerror)
        raise from_os_error(told, f"Mounting {share.unc}") from error
    raise BadPassword(f"The file server takes none of the passwords for {share.service}.")


def _uid(image: Image) -> int:
    uid = image.effective.uid
    if uid is None:
        raise NotSupported(f"{image.path} has no user on this machine; register the record first.")
    return uid


def _mounted(image: Image) -> Fd | None:
    """The home that is mounted now, by a mount of its own; None if something else is there."""
    shown = image.effective.home_directory
    # Looked up, not asked: it may be a mount of the user's own.
    kind, _ = file_systems().get(place(AT_FDCWD, shown).mount_id, ("", ""))
    if kind != _KIND:
        return None
    with open_tree(AT_FDCWD, shown, OPEN_TREE_CLONE) as mount:
        return Fd.open(".", DIRECTORY_FLAGS, dir_fd=mount.fileno())


def _open_directory(root: Fd, share: Share) -> Fd:
    try:
        return openat2(root.fileno(), share.directory or ".", DIRECTORY_FLAGS, _WITHIN)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        raise HomeAbsent(f"There is no directory {share.service}.") from error


def _make_directories(root: Fd, share: Share) -> None:
    with ExitStack() as opened:
        at = root
        for part in filter(None, share.directory.split("/")):
            with suppress(FileExistsError):
                # One that is there is as good, if it is a directory: the next line sees to that.
                os.mkdir(part, 0o700, dir_fd=at.fileno())
            at = opened.enter_context(openat2(at.fileno(), part, DIRECTORY_FLAGS, _WITHIN))


def _require_empty(top: Fd, share: Share) -> None:
    """Raise PathExists, which says what to do: on a server nobody but a person deletes anything."""
    names = os.listdir(top.fileno())
    if not names:
        return
    # The record is what a creation writes last.
    advice = (
        f"It holds a home: register the record in {IDENTITY} there instead."
        if IDENTITY in names
        else "It holds no home, but may hold what a creation that was killed has left: empty it if"
        " so, then run the same command again."
    )
    raise PathExists(f"{share.service} is not empty; a new home needs an empty directory. {advice}")


def _empty(top: Fd) -> None:
    """Take back what a creation that failed has left."""
    for name in os.listdir(top.fileno()):
        with suppress(OSError):
            if stat.S_ISDIR(os.stat(name, dir_fd=top.fileno(), follow_symlinks=False).st_mode):
                delete_tree(top, name)
            else:
                os.unlink(name, dir_fd=top.fileno())
