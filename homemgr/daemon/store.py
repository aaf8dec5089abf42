"""Host copies of user records and blob directories, as files.

One file ``USER.identity`` for each home, the format and place of systemd-homed,
so that either service can take over from the other. Writes are atomic and
synced; what cannot be read is kept and reported, never deleted.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from homemgr import errors, files
from homemgr.daemon import aside
from homemgr.daemon.stamps import Stamps
from homemgr.record import jsontext, names
from homemgr.record.model import UserRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

log = logging.getLogger(__name__)

SUFFIX = ".identity"
#: Of records whose home is being deleted.
REMOVED = SUFFIX + ".removed"

#: All blobs of one home together (systemd-homed's limit).
MAX_BLOB_BYTES = 64 << 20


class Store:
    """The record directory and the blob root of one daemon. All methods may block."""

    def __init__(self, record_directory: str, blob_root: str, stamp_directory: str) -> None:
        """Use these directories; they are made by ``prepare``."""
        self._records = record_directory
        self._blobs = blob_root
        self.stamps = Stamps(stamp_directory)

    def prepare(self) -> None:
        """Make the directories: only root may look at records, everybody at pictures."""
        os.makedirs(self._records, 0o700, exist_ok=True)
        os.makedirs(self._blobs, 0o755, exist_ok=True)
        self.stamps.prepare()

    def load(self) -> Iterator[UserRecord]:
        """Every readable record; one that is not is logged and left where it is."""
        for entry in sorted(os.listdir(self._records)):
            if not entry.endswith(SUFFIX) or entry.startswith("."):
                continue
            try:
                text = files.read_bounded(self._records, entry, jsontext.MAX_RECORD_BYTES)
                if text.strip() in (b"", b"{}"):
                    log.warning("User record %s/%s is empty, ignoring it.", self._records, entry)
                    continue
                record = UserRecord.parse(text)
            except (OSError, errors.HomeError) as error:
                log.error("Cannot read user record %s/%s: %s", self._records, entry, error)
                continue
            if record.name + SUFFIX != entry:
                log.error(
                    "User record %s/%s names user %s, ignoring it.",
                    self._records,
                    entry,
                    record.name,
                )
                continue
            yield record

    def save(self, user: str, record: UserRecord) -> None:
        """Replace the host copy of ``user``; raises NoDiskSpace and SystemFailure."""
        try:
            files.write_atomically(self._records, user + SUFFIX, record.pretty(), 0o600)
        except OSError as error:
            raise errors.from_os_error(error, f"Saving the user record of {user}") from error
        # After it: no record has to be newer than one that there was.
        self.stamps.note(user, record)

    def has_record(self, user: str) -> bool:
        """True if there is a file for ``user``, also one that ``load`` did not give."""
        return os.path.lexists(self.record_path(user))

    def names(self) -> list[str]:
        """All users of whom there is a file, whatever is in it."""
        found = sorted(os.listdir(self._records))
        return [n.removesuffix(SUFFIX) for n in found if n.endswith(SUFFIX) and n[0] != "."]

    def record_status(self, user: str) -> os.stat_result | None:
        """What lstat(2) says of the file of ``user``; None if there is none."""
        try:
            return os.lstat(self.record_path(user))
        except FileNotFoundError:
            return None

    def read(self, user: str) -> bytes:
        """What is in the file of ``user``; raises OSError."""
        return files.read_bounded(self._records, user + SUFFIX, jsontext.MAX_RECORD_BYTES)

    def protect(self, user: str) -> None:
        """Make the file of ``user`` root's alone; raises SystemFailure."""
        path = self.record_path(user)
        try:
            with files.Fd.open(path, os.O_RDONLY | files.GUARDED_FLAGS) as fd:
                os.fchown(fd.fileno(), 0, 0)
                os.fchmod(fd.fileno(), 0o600)
        except OSError as error:
            raise errors.from_os_error(error, f"Protecting {path}") from error

    def keep_aside(self, user: str) -> None:
        """Keep a file of ``user`` that was not accepted, where nothing reads or replaces it.

        Raises SystemFailure; then it is where it was.
        """
        try:
            path = aside.keep_file(self._records, user, user + SUFFIX)
        except OSError as error:
            doing = f"Keeping the record of {user} that was not accepted"
            raise errors.from_os_error(error, doing) from error
        if path is not None:
            log.warning("Kept the record of %s that was not accepted as %s.", user, path)

    def keep_inside_copy(self, user: str, text: bytes) -> str:
        """Keep ``text``, which was found in the home and does not count; gives its path.

        Raises NoDiskSpace and SystemFailure.
        """
        try:
            return aside.keep_text(self._records, user, aside.INSIDE, text)
        except OSError as error:
            raise errors.from_os_error(error, f"Keeping a damaged record of {user}") from error

    def delete(self, user: str) -> None:
        """Forget ``user``: record early, so that a kill in between leaves only pictures.

        Raises SystemFailure; then the record may still be there.
        """
        try:
            self.stamps.forget(user)
        except OSError as error:
            raise errors.from_os_error(error, f"Deleting the user record of {user}") from error
        self.delete_record(user)
        aside.forget(self._records, user)
        shutil.rmtree(self.blob_directory(user), ignore_errors=True)

    def delete_record(self, user: str) -> None:
        """Forget the record of ``user``, who still has pictures; raises SystemFailure."""
        try:
            with suppress(FileNotFoundError):
                os.unlink(self.record_path(user))
            with files.opened(self._records) as directory:
                os.fsync(directory)
        except OSError as error:
            raise errors.from_os_error(error, f"Deleting the user record of {user}") from error

    def set_aside(self, user: str) -> str | None:
        """Keep the record of ``user``, who is being removed, under a name that ``load`` skips.

        It tells where files are that still have to be deleted. Gives the new name, None
        if there was no record; raises SystemFailure.
        """
        name = f"{user}.{os.urandom(4).hex()}{REMOVED}"
        try:
            os.rename(self.record_path(user), os.path.join(self._records, name))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise errors.from_os_error(error, f"Deleting the user record of {user}") from error
        return name

    def removed(self) -> Iterator[tuple[str, UserRecord]]:
        """Records set aside of users whose removal was not finished, by file name."""
        for name in sorted(os.listdir(self._records)):
            if name.endswith(REMOVED):
                try:
                    text = files.read_bounded(self._records, name, jsontext.MAX_RECORD_BYTES)
                    yield name, UserRecord.parse(text)
                except (OSError, errors.HomeError) as error:
                    log.error("Cannot read %s/%s: %s", self._records, name, error)

    def finish_removal(self, name: str) -> None:
        """Drop a record that ``set_aside`` kept: nothing of the home is left."""
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(self._records, name))

    def blob_directory(self, user: str) -> str:
        """Where the public files of ``user`` are."""
        return os.path.join(self._blobs, user)

    def record_path(self, user: str) -> str:
        """Where the host copy of ``user`` is."""
        return os.path.join(self._records, user + SUFFIX)

    def make_blob_directory(self, user: str) -> None:
        """An empty directory for every known home: ``homectl update`` insists on one.

        Raises NoDiskSpace and SystemFailure.
        """
        try:
            os.makedirs(self.blob_directory(user), 0o755, exist_ok=True)
        except OSError as error:
            doing = f"Making the directory for public files of {user}"
            raise errors.from_os_error(error, doing) from error

    def has_blobs(self, user: str) -> bool:
        """Whether there are public files of ``user``."""
        try:
            return bool(os.listdir(self.blob_directory(user)))
        except FileNotFoundError:
            return False

    def forget_blobs_of_nobody(self) -> None:
        """Delete public files of users whose record was deleted, where a kill left them.

        What could be anything else is left where it is, and told of.
        """
        known = {name.partition(SUFFIX)[0] for name in os.listdir(self._records) if SUFFIX in name}
        for user in sorted(set(os.listdir(self._blobs)) - known):
            if user.startswith("."):
                continue
            path = self.blob_directory(user)
            if names.is_acceptable(user) and _is_ours(path):
                log.info("Deleting public files of %s, who has no record here.", user)
                shutil.rmtree(path, ignore_errors=True)
            else:
                log.warning("Leaving %s alone: not from us, and of no user known here.", path)


def _is_ours(path: str) -> bool:
    """Whether this is a directory as we make them, and nothing else in it."""
    if not _belongs_to_root(path, stat.S_ISDIR):
        return False
    return all(
        names.is_blob_name(entry) and _belongs_to_root(os.path.join(path, entry), stat.S_ISREG)
        for entry in os.listdir(path)
    )


def _belongs_to_root(path: str, is_kind: Callable[[int], bool]) -> bool:
    status = os.lstat(path)
    return status.st_uid == 0 and is_kind(status.st_mode)
