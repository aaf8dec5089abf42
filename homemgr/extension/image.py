"""Open an extension: from a path to directories that can become layers of an overlay.

Judges what is inside and shows it under the user's ids. A failure says in one whole
sentence why this extension cannot be used; nothing of it is left then.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from homemgr.errors import (
    ExtensionDamaged,
    ExtensionDoesNotFit,
    ExtensionNotTrusted,
    ExtensionNotUsable,
)
from homemgr.extension import hierarchies, release
from homemgr.extension.digest import PLACES
from homemgr.extension.shelf import Shelf
from homemgr.extension.volume import Trust, open_volume
from homemgr.files import DIRECTORY_FLAGS, GUARDED_FLAGS, Fd, read_limited
from homemgr.kernel.mounts import MOUNT_ATTR_IDMAP, mount_setattr
from homemgr.kernel.openat2 import (
    RESOLVE_BENEATH,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
    openat2,
)
from homemgr.kernel.syscall import AT_EMPTY_PATH

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from homemgr.extension.digest import Places
    from homemgr.extension.find import Candidate, Found
    from homemgr.extension.release import Host
    from homemgr.extension.volume import Volume

    #: A new user namespace that shows this uid and gid as the local user's, and no other ids.
    Namespaces = Callable[[int, int], Fd]

NO_SHELF = Shelf()

#: Inside an extension: what merges into the home area.
HOME = "home"

_RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV
_LOOK = os.O_PATH | os.O_DIRECTORY

#: What a file system without idmapped mounts answers, such as overlayfs.
_NO_IDMAP = (errno.EINVAL, errno.EOPNOTSUPP)

#: What a file system answers when what it reads makes no sense (EFSCORRUPTED, EFSBADCRC).
_CORRUPT = (errno.EIO, errno.EUCLEAN, errno.EBADMSG)


@dataclass(frozen=True)
class Policy:
    """What the administrator allows of extensions."""

    #: Show root's files in a read-only image as the user's.
    map_root: bool = True
    #: Refuse an image with a verity signature that this machine cannot verify.
    refuse_unverifiable_signature: bool = True


class Extension:
    """An opened extension: a detached mount in which its files are the user's.

    Owns the mount until the end of its ``with`` block or `close`; an overlay made of its
    layers before that keeps what it needs by itself.
    """

    def __init__(
        self, candidate: Candidate, mount: Fd, home: Fd, depth: int, offer: hierarchies.Offer
    ) -> None:
        """Take over ``mount``, and ``home`` in it."""
        self.name = candidate.name
        self.version = candidate.version
        self.path = candidate.path
        self.hierarchies = offer.hierarchies
        #: Names at the top of its home that are no directories, or not its business.
        self.unmergeable = offer.unmergeable
        #: How many file systems a layer is stacked on; one more with the home's overlay.
        self.depth = depth
        self._mount = mount
        self._home = home

    def layer(self, hierarchy: str) -> Fd | None:
        """Its directory for ``hierarchy`` (O_PATH, the caller closes it); None if it has none."""
        try:
            return openat2(self._home.fileno(), hierarchy, _LOOK, _RESOLVE)
        except OSError as error:
            # A file or link where another extension has a directory is not merged.
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return None
            raise

    def whole(self) -> Fd:
        """All it has for a home; the caller closes it."""
        return self._home.duplicate()

    def close(self) -> None:
        """Let go of the mount."""
        self._home.close()
        self._mount.close()

    def __enter__(self) -> Extension:
        """Own the mount until the end of the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go, whatever happened."""
        self.close()


def open_newest(
    found: Found,
    *,
    host: Host,
    local_uid: int,
    local_gid: int,
    policy: Policy,
    userns: Namespaces,
    places: Places = PLACES,
    shelf: Shelf = NO_SHELF,
) -> Extension:
    """Open the newest version that was made for this machine.

    Only a version for another system is passed over: a damaged one is never replaced by an
    older one in silence.
    """
    refusal: ExtensionDoesNotFit | None = None
    for candidate in found.choices:
        try:
            return open_extension(
                candidate,
                host=host,
                local_uid=local_uid,
                local_gid=local_gid,
                policy=policy,
                userns=userns,
                places=places,
                shelf=shelf,
            )
        except ExtensionDoesNotFit as error:
            refusal = refusal or error
    raise refusal or ExtensionNotUsable(f"Extension {found.name} has no version at all.")


def open_extension(
    candidate: Candidate,
    *,
    host: Host,
    local_uid: int,
    local_gid: int,
    policy: Policy,
    userns: Namespaces,
    places: Places = PLACES,
    shelf: Shelf = NO_SHELF,
) -> Extension:
    """Open one version of an extension and show its files as the local user's."""
    trust = Trust(host.architecture, policy.refuse_unverifiable_signature, places, shelf)
    try:
        with open_volume(candidate, trust) as volume:
            return _open(candidate, volume, host, (local_uid, local_gid), policy, userns)
    except OSError as error:
        kind = ExtensionDamaged if error.errno in _CORRUPT else ExtensionNotUsable
        raise kind(f"Extension {candidate.path} cannot be opened: {error}.") from error


def _open(
    candidate: Candidate,
    volume: Volume,
    host: Host,
    local_ids: tuple[int, int],
    policy: Policy,
    userns: Namespaces,
) -> Extension:
    # Looked up before ids are mapped: the directories above may belong to somebody who
    # does not exist afterwards, and would then be closed even to us.
    with _open_home(candidate, volume.base) as home:
        owner = os.fstat(home.fileno())
        _require_owner(candidate, volume, owner, policy)
        with volume.view(volume.base) as top:
            _require_fit(candidate, top, host)
        with userns(owner.st_uid, owner.st_gid) as namespace:
            _map(candidate, volume.base, namespace)
        with ExitStack() as undo:
            shown = undo.enter_context(volume.view(home))
            offer = _offer(candidate, shown, local_ids)
            mount = undo.enter_context(volume.base.duplicate())
            undo.pop_all()
    return Extension(candidate, mount, shown, volume.depth, offer)


def _map(candidate: Candidate, mount: Fd, namespace: Fd) -> None:
    number = mount.fileno()
    try:
        mount_setattr(
            number, "", AT_EMPTY_PATH, attr_set=MOUNT_ATTR_IDMAP, userns_fd=namespace.fileno()
        )
    except OSError as error:
        if error.errno not in _NO_IDMAP:
            raise
        raise ExtensionNotUsable(
            f"The file system of {candidate.path} cannot show files under other ids; as an image"
            " the extension would have a file system of its own."
        ) from error


def _open_home(candidate: Candidate, base: Fd) -> Fd:
    try:
        return openat2(base.fileno(), HOME, _LOOK, _RESOLVE)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        raise ExtensionNotUsable(
            f"{candidate.path} has no directory {HOME!r}: nothing in it is for a home area."
        ) from error


def _require_owner(
    candidate: Candidate, volume: Volume, owner: os.stat_result, policy: Policy
) -> None:
    """Refuse to show root's files as the user's, and what others than root may have changed."""
    path, ids = candidate.path, f"{owner.st_uid}:{owner.st_gid}"
    if 0 not in (owner.st_uid, owner.st_gid):
        if volume.is_sealed:
            return
        raise ExtensionNotTrusted(
            f"{path}/{HOME} belongs to {ids}, and processes that run as such can get to it;"
            f" `chmod 0700 {path}` keeps them out."
        )
    if not volume.is_image:
        raise ExtensionNotTrusted(
            f"{path}/{HOME} belongs to {ids}; expected an owner and a group other than root."
            f" `chmod 0700 {path}` and `chown -R 65534:65534 {path}/{HOME}` make it usable."
        )
    if not policy.map_root:
        raise ExtensionNotTrusted(
            f"In {path} the directory {HOME!r} belongs to {ids}, and MapRoot=no in"
            " extensions.conf forbids to show root's files as a user's."
        )


def _require_fit(candidate: Candidate, top: Fd, host: Host) -> None:
    fields = release.parse(_release_text(candidate, top))
    if reason := release.misfit(fields, host):
        raise ExtensionDoesNotFit(
            f"Extension {candidate.path} was made for another system: {reason}."
        )


def _release_text(candidate: Candidate, top: Fd) -> str:
    for name in release.file_names(candidate.name):
        path = f"{release.DIRECTORY}/{name}"
        try:
            file = openat2(top.fileno(), path, os.O_RDONLY | GUARDED_FLAGS, _RESOLVE)
        except FileNotFoundError:
            continue
        with file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ExtensionNotUsable(f"{path} in {candidate.path} must be a regular file.")
            return read_limited(file.fileno(), release.LIMIT, path).decode("utf-8", "replace")
    expected = f"{release.DIRECTORY}/{release.file_names(candidate.name)[0]}"
    raise ExtensionNotUsable(f"{candidate.path} is not an extension: it has no {expected}.")


def _offer(candidate: Candidate, shown: Fd, local_ids: tuple[int, int]) -> hierarchies.Offer:
    seen = os.fstat(shown.fileno())
    if (seen.st_uid, seen.st_gid) != local_ids:
        # Whatever went wrong, nobody else's files may get into the home.
        raise ExtensionNotUsable(
            f"{candidate.path} shows its files as those of {seen.st_uid}:{seen.st_gid}, not of"
            f" {local_ids[0]}:{local_ids[1]}."
        )

    def contents(path: str, limit: int) -> list[hierarchies.Entry]:
        try:
            directory = openat2(shown.fileno(), path or ".", DIRECTORY_FLAGS, _RESOLVE)
        except PermissionError:
            # Somebody else's, who is nobody here: there is nothing in it for the user.
            return []
        with directory, os.scandir(directory.fileno()) as entries:
            return [
                hierarchies.Entry(entry.name, entry.is_dir(follow_symlinks=False))
                for entry in islice(entries, limit)
            ]

    try:
        return hierarchies.offered(contents)
    except ValueError as error:
        raise ExtensionNotUsable(f"{candidate.path} cannot be merged: {error}.") from error
