"""An arriving home: where it lies, whether there is room for it, and how it becomes one."""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple, cast

from homemgr import errors
from homemgr.errors import StreamError
from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.kernel.btrfs import is_subvolume
from homemgr.kernel.synchronization import syncfs
from homemgr.record.model import UserRecord
from homemgr.storage import directory, paths, public_blobs, staging
from homemgr.storage.embedded import read_blobs, read_identity, write_identity
from homemgr.storage.idmapping import NOBODY
from homemgr.storage.top import Top
from homemgr.transfer.codec import MAX_SIZE
from homemgr.transfer.needs import lacking, needs_from_json
from homemgr.transfer.policy import Policy
from homemgr.work.allowance import Size

if TYPE_CHECKING:
    from homemgr.record.jsontext import JsonObject
    from homemgr.transfer.needs import Limits
    from homemgr.work.task import Task

#: Room that must stay free on the file system (bytes and entries), and what each entry takes
#: besides its data (bytes).
_SPARE_BYTES = 16 << 20
_SPARE_ENTRIES = 256
#: And while it arrives: part of the above is held for the ledger then.
_LAST_BYTES = 4 << 20
_ENTRY_BYTES = 512


class Content(NamedTuple):
    """What arrived, for the daemon's judgement: the seal is the origin's, the digest (hex) ours."""

    record: object
    digest: str
    seal: object


class Place(NamedTuple):
    """Where the home arrives, as the daemon decided."""

    phase: str
    image_path: str
    stage_name: str
    ledger: str
    #: Which tree it is, once it was prepared.
    tree: str

    @classmethod
    def of(cls, answer: dict[str, object]) -> Place:
        """From the daemon's answer; what the sender may know of it is kept apart."""
        return cls(
            str(answer["phase"]),
            os.path.join(str(answer["base_directory"]), str(answer["file_name"])),
            str(answer["stage_name"]),
            str(answer["ledger"]),
            str(answer["tree"]),
        )

    def open_parent(self) -> Fd:
        """The directory that holds homes, which only root can enter."""
        return paths.ensure_base(os.path.dirname(self.image_path))

    @property
    def user(self) -> str:
        """Whose home it is, with the realm if it has one."""
        return self.file_name.removesuffix(".homedir")

    @property
    def file_name(self) -> str:
        """What the home will be called in it."""
        return os.path.basename(self.image_path)


def size_of(told: object) -> Size:
    """What the sender said, if it makes sense."""
    numbers = [told.get(name) for name in Size._fields] if isinstance(told, dict) else []
    known = [number for number in numbers if type(number) is int and 0 <= number <= MAX_SIZE]
    if len(known) != len(Size._fields):
        raise StreamError("The sender did not say how large the home area is.")
    return Size(*known)


def rules_for(task: Task, introduction: object) -> Policy:
    """What may be stored in the home, as the record in its sender's introduction says."""
    data = introduction.get("record") if isinstance(introduction, dict) else None
    if not isinstance(data, dict):
        raise StreamError("The sender introduced no user record.")
    policy = UserRecord(cast("JsonObject", data)).on(task.machine).idmap_policy
    return Policy(NOBODY, NOBODY, is_wide=policy != "strict")


def require_room(top: Fd, there: Size, size: Size) -> None:
    """Raise NoDiskSpace before anything is sent, rather than in the middle of it.

    ``there`` is what has arrived already. Some room must stay for everybody else.
    """
    missing = max(0, size.files - there.files)
    needed = max(0, size.bytes - there.bytes) + missing * _ENTRY_BYTES + _SPARE_BYTES
    free = staging.free_bytes(top)
    if needed > free:
        raise errors.NoDiskSpace(
            f"The home area needs {needed} bytes, {free} are free where it would be stored."
        )
    entries = staging.free_entries(top)
    if entries is not None and missing + _SPARE_ENTRIES > entries:
        raise errors.NoDiskSpace(
            f"The home area needs {missing + _SPARE_ENTRIES} new files and directories, {entries}"
            " can be made where it would be stored."
        )


def require_spare(top: Fd, place: Place) -> None:
    """Raise NoDiskSpace while the last of the room is still there for everybody else."""
    if staging.free_bytes(top) < _LAST_BYTES:
        raise _no_space(place)


def require_able(limits: Limits, needs: object) -> None:
    """Raise NotSupported if the file system cannot hold what the sender says the home needs."""
    missing = lacking(needs_from_json(needs), limits)
    if missing:
        raise errors.NotSupported(
            "The file system where the home area would be stored cannot hold it: it lacks"
            f" {missing}."
        )


def cut_short(error: OSError, place: Place) -> errors.HomeError:
    """What to say when a system call failed while the tree arrived."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _no_space(place)
    return errors.from_os_error(error, f"Receiving home area {place.user}")


def _no_space(place: Place) -> errors.NoDiskSpace:
    return errors.NoDiskSpace(
        f"No space is left in {os.path.dirname(place.image_path)}, where the home area"
        " arrives. What has come is kept: make room, and run the same command again."
    )


def prepare(task: Task, stage: Fd, place: Place, content: Content) -> Place:
    """Complete the tree with the record, signed here, and have all of it on disk for good."""
    tree = staging.tree_id(stage)
    about = {"identity": content.record, "digest": content.digest, "seal": content.seal}
    answer = task.channel.ask("prepare", {**about, "tree": tree})
    before = os.fstat(stage.fileno())
    with Top(stage.duplicate(), place.stage_name) as top:
        write_identity(top, str(answer["identity"]).encode())
    os.utime(stage.fileno(), ns=(before.st_atime_ns, before.st_mtime_ns))
    syncfs(stage.fileno())
    return place._replace(tree=tree)


def become_home(task: Task, place: Place) -> dict[str, object]:
    """Make the tree a home, which can be used from here on; gives its uid and the report."""
    with place.open_parent() as parent:
        if place.phase != "committed":
            staging.commit(parent, place.stage_name, place.file_name, place.tree)
    with directory.open_home(place.image_path) as top:
        storage = "subvolume" if is_subvolume(top.fd.fileno()) else "directory"
    answer = task.channel.ask("commit", {"storage": storage})
    _publish_blobs(place.image_path, str(answer["blob_directory"]))
    return {"uid": answer["uid"], "report": answer["report"]}


def _publish_blobs(image_path: str, blob_directory: str) -> None:
    """Show the public files that arrived inside the home, if they are those of its record."""
    root, user = os.path.split(blob_directory)
    with ExitStack() as closing:
        top = closing.enter_context(directory.open_home(image_path))
        embedded = UserRecord.parse(read_identity(top) or b"{}")
        manifest = embedded.data.get("blobManifest")
        if not isinstance(manifest, dict) or not manifest:
            return
        blobs = read_blobs(top, {name: str(digest) for name, digest in manifest.items()})
        for fd in blobs.values():
            closing.enter_context(fd)
        parent = closing.enter_context(Fd.open(root, DIRECTORY_FLAGS))
        public_blobs.publish(parent, user, {name: fd.fileno() for name, fd in blobs.items()})
