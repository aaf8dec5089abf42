"""Storage `fscrypt`: a directory that the file system encrypts, names and contents.

The key of each home is random, sealed once for every password (see `sealing`). It is in the
file system from opening to closing, and only what was read with it leaves memory with it, not
the caches of the whole machine. Homes of systemd-homed are used as they are, with policies of
version 1 and 2 alike: a key of either can be given to the file system.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from homemgr.errors import (
    FileNotFound,
    HomeAbsent,
    HomeNotActive,
    HostileHome,
    NotSupported,
)
from homemgr.kernel import fscrypt
from homemgr.kernel.fscrypt import KeyName, KeyStatus
from homemgr.storage import (
    accelerators,
    directory,
    key_slots,
    limits,
    paths,
    rekeying,
    sealing,
)
from homemgr.storage.directory import GONE_PREFIX, NEW_PREFIX
from homemgr.storage.kind import Area, Storage
from homemgr.storage.wipe import wipe

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from homemgr.files import Fd
    from homemgr.storage.kind import Content, Image, Words
    from homemgr.storage.sealing import Sealed
    from homemgr.storage.top import Top

#: Version of the policy of new homes.
_VERSION = 2

#: Pauses while files are open that should be closed: who used them may be on his way out.
_PAUSES_S = (0.01, 0.02, 0.05, 0.1)


class FscryptArea(Area):
    """An open home whose passwords can be changed with the key that they seal."""

    def __init__(self, top: Top, policy: KeyName, words: Words, key: bytearray | None) -> None:
        """Own all of it. ``key`` is None if the file system had it already; ``words`` give it."""
        super().__init__(top)
        self._policy = policy
        self._words = words
        self._key = key

    def put_key(self, key: bytearray) -> None:
        """Give the key to the file system, until `close` unless the home is kept."""
        parent = self._closing.enter_context(paths.open_safe_parent(self.top.image_path))
        self._closing.callback(_take_key_away, parent, self._policy)
        fscrypt.add_key(self.top.fd.fileno(), key, self._policy.version)

    @contextmanager
    def rekeying(
        self, words: Words, identity: bytes | None, dropped: Words | None = None
    ) -> Iterator[None]:
        """Add slots, and remove the old ones, or those ``dropped``, when ``identity`` is there."""
        slots = key_slots.read(self.top.fd.fileno())
        if self._key is None:
            self._key = sealing.unsealed(self.top, self._policy, self._words)
        # A home that systemd-homed before 259 can open stays one.
        is_old = self._policy.version == 1 and all(slot.is_old for slot in slots)
        sealed = sealing.sealed_for(self._key, words, is_old=is_old)
        opened = None if dropped is None else sealing.opened_by(slots, self._policy, dropped)
        with rekeying.replacing(self.top, sealed, identity, opened):
            yield

    def close(self) -> None:
        """Forget the key as well."""
        if self._key is not None:
            wipe(self._key)
        super().close()


class Fscrypt(Storage):
    """An encrypted directory, for all else like `directory`."""

    def open(self, image: Image, words: Words, *, is_active: bool) -> Area:
        """Open it, with a word unless it is in use and not locked."""
        with ExitStack() as on_failure:
            top = on_failure.enter_context(directory.open_home(image.path))
            policy = _policy_of(top)
            has_key = is_active and _status(top.fd, policy) is KeyStatus.PRESENT
            key = None if has_key else sealing.unsealed(top, policy, words)
            area = FscryptArea(top, policy, words, key)
            on_failure.enter_context(area)
            if key is not None:
                area.put_key(key)
            rekeying.settle(top)
            on_failure.pop_all()
        return area

    def open_used(self, image: Image) -> Area:
        """Read it with the key that the file system has."""
        with ExitStack() as on_failure:
            top = on_failure.enter_context(directory.open_home(image.path))
            if _status(top.fd, _policy_of(top)) is not KeyStatus.PRESENT:
                raise HomeNotActive(f"The key of {image.path} is not in memory.")
            # Slots are not settled: who is at work on it may be about to replace them.
            on_failure.pop_all()
        return Area(top)

    def create(
        self, image: Image, parent: Fd, file_name: str, content: Content, words: Words
    ) -> list[str]:
        """Make it with a key of its own; NotSupported where directories cannot be encrypted."""
        if fscrypt.get_policy(parent.fileno()) is not None:
            raise NotSupported(
                f"{paths.location(parent.fileno())} is encrypted itself: what is in there cannot"
                " have a key of its own."
            )
        with ExitStack() as closing:
            key = bytearray(os.urandom(fscrypt.KEY_BYTES))
            closing.callback(wipe, key)
            sealed = sealing.sealed_for(key, words, is_old=False)

            limit = limits.preparing(image.effective, parent)

            def encrypt(top: Fd) -> None:
                _add_key(top, key, paths.location(parent.fileno()))
                # After the top directory is closed, which would stay readable else.
                policy = fscrypt.key_name(key, _VERSION)
                closing.callback(_take_key_away, parent, policy)
                fscrypt.set_policy(top.fileno(), policy)
                _put_slots(top, sealed)
                limit(top)

            return directory.create(parent, file_name, **content.first, prepare_top=encrypt)

    def close(self, image: Image) -> bool:
        """Remove the key from the file system."""
        try:
            with paths.open_safe_parent(image.path) as parent:
                policy = _policy_at(parent, os.path.basename(image.path))
                return policy is None or _take_key_away(parent, policy)
        except (FileNotFound, FileNotFoundError):
            return True

    def lock(self, image: Image) -> None:
        """Remove the key; what is open, the top directory for one, stays readable."""
        with paths.open_safe_parent(image.path) as parent:
            policy = _policy_at(parent, os.path.basename(image.path))
            if policy is None:
                raise HomeAbsent(f"There is no encrypted directory at {image.path}.")
            fscrypt.remove_key(parent.fileno(), policy)

    def is_locked(self, image: Image) -> bool:
        """Whether the key was removed while the top directory was open, as mounted it is."""
        try:
            with directory.open_home(image.path) as top:
                return _status(top.fd, _policy_of(top)) is KeyStatus.INCOMPLETELY_REMOVED
        except (HomeAbsent, HostileHome):
            return False

    def set_aside(self, parent: Fd, file_name: str) -> None:
        """Rename it."""
        directory.set_aside(parent, file_name)

    def delete_aside(self, parent: Fd, file_name: str) -> None:
        """Delete the tree, for which no key is needed."""
        directory.delete_aside(parent, file_name)

    def sweep(self, parent: Fd) -> Sequence[str]:
        """Remove the keys of homes whose creation or removal was cut short; nothing else."""
        for name in os.listdir(parent.fileno()):
            if not name.startswith((NEW_PREFIX, GONE_PREFIX)):
                continue
            tree = directory.lock_tree(parent, name)
            if tree is None:
                continue
            with tree:
                policy = fscrypt.get_policy(tree.fileno())
            if policy is not None:
                _take_key_away(parent, policy)
        return ()


def _add_key(top: Fd, key: bytearray, where: str) -> None:
    try:
        fscrypt.add_key(top.fileno(), key, _VERSION)
    except OSError as error:
        if error.errno in fscrypt.NOT_SUPPORTED:
            raise NotSupported(
                f"The file system of {where} does not encrypt directories: ext4 and f2fs do with"
                " the feature `encrypt` (`tune2fs -O encrypt DEVICE`)."
            ) from error
        raise


def _put_slots(top: Fd, sealed: Sequence[Sealed]) -> None:
    for number, text in enumerate(sealed):
        os.setxattr(top.fileno(), key_slots.attribute(number), text.slot, os.XATTR_CREATE)
    # Not before all slots have room.
    for number, text in enumerate(sealed):
        accelerators.write(top.fileno(), number, text.accelerator)


def _policy_of(top: Top) -> KeyName:
    policy = fscrypt.get_policy(top.fd.fileno())
    if policy is None:
        raise HostileHome(f"{top.image_path} is not encrypted; expected a directory that is.")
    return policy


def _policy_at(parent: Fd, name: str) -> KeyName | None:
    """The key of a directory, which is not open any more when this returns."""
    tree = directory.open_tree(parent, name)
    if tree is None:
        return None
    with tree:
        return fscrypt.get_policy(tree.fileno())


def _status(fd: Fd, policy: KeyName) -> KeyStatus:
    return fscrypt.key_status(fd.fileno(), policy)


def _take_key_away(parent: Fd, policy: KeyName) -> bool:
    """Remove a key, waiting a moment for files to be closed; False if some stay open."""
    for pause_s in (*_PAUSES_S, 0.0):
        if fscrypt.remove_key(parent.fileno(), policy):
            return True
        time.sleep(pause_s)
    return False
