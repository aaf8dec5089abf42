"""An arriving home: where it lies, whether there is room for it, and how it becomes one."""

from __future__ import annotations

import errno
import logging
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple, cast

from homemgr import errors
from homemgr.errors import StreamError
from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.kernel.btrfs import is_subvolume
from homemgr.kernel.synchronization import syncfs
from homemgr.record.model import UserRecord
from homemgr.record.storages import is_tree
from homemgr.storage import directory, paths, public_blobs, rooms, staging
from homemgr.storage.embedded import read_blobs, read_identity
from homemgr.storage.idmapping import NOBODY
from homemgr.storage.kinds import STORAGES, storage_named
from homemgr.transfer.codec import MAX_SIZE
from homemgr.transfer.needs import lacking, needs_from_json
from homemgr.transfer.policy import Policy
from homemgr.work.allowance import Size

if TYPE_CHECKING:
    from homemgr.record.jsontext import JsonObject
    from homemgr.storage.kind import Area
    from homemgr.transfer.needs import Limits
    from homemgr.work.opening import Opening
    from homemgr.work.task import Task

log = logging.getLogger(__name__)

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
    #: How it is to lie there; empty if nobody asks for one kind of tree or the other.
    storage: str
    #: Where the home is that came from the same origin before; empty if none did.
    went_on: str = ""

    @classmethod
    def of(cls, answer: dict[str, object]) -> Place:
        """From the daemon's answer; what the sender may know of it is kept apart."""
        return cls(
            str(answer["phase"]),
            os.path.join(str(answer["base_directory"]), str(answer["file_name"])),
            str(answer["stage_name"]),
            str(answer["ledger"]),
            str(answer["tree"]),
            str(answer.get("storage") or ""),
            str(answer.get("went_on") or ""),
        )

    def open_parent(self) -> Fd:
        """The directory that holds homes, which only root can enter."""
        return paths.ensure_base(os.path.dirname(self.image_path))

    @property
    def user(self) -> str:
        """Whose home it is, with the realm if it has one."""
        return self.file_name.rpartition(".")[0]

    @property
    def is_tree(self) -> bool:
        """Whether what arrives lies there as it is; else it does in a room (`storage.rooms`)."""
        return is_tree(self.storage or None)

    @property
    def room(self) -> str:
        """The room in which it arrives."""
        return os.path.join(os.path.dirname(self.image_path), self.stage_name)

    @property
    def stage_path(self) -> str:
        """Where it lies until it is a home."""
        return self.room if self.is_tree else os.path.join(self.room, self.file_name)

    @property
    def is_there(self) -> bool:
        """Whether something has come already."""
        return os.path.lexists(self.stage_path)

    def commit(self) -> None:
        """Make what arrived, which is on disk completely, the home."""
        rooms.move(self.stage_path, self.image_path, self.tree)
        if not self.is_tree:
            rooms.leave(self.room)

    def withdraw(self) -> None:
        """Make the home something that arrived again."""
        rooms.move(self.image_path, self.stage_path, self.tree)

    def abandon(self) -> None:
        """Delete what arrived; what is gone is no error."""
        if self.is_tree:
            with self.open_parent() as parent:
                staging.abandon(parent, self.stage_name)
        else:
            rooms.clear(self.room, STORAGES.values())

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


def record_in(introduction: object) -> UserRecord:
    """The record in a sender's introduction, which the daemon has judged."""
    data = introduction.get("record") if isinstance(introduction, dict) else None
    if not isinstance(data, dict):
        raise StreamError("The sender introduced no user record.")
    return UserRecord(cast("JsonObject", data))


def rules_for(task: Task, introduction: object) -> Policy:
    """What may be stored in the home, as the record in its sender's introduction says."""
    policy = record_in(introduction).on(task.machine).idmap_policy
    return Policy(NOBODY, NOBODY, is_wide=policy != "strict")


def has_room_for_all(top: Fd, size: Size) -> bool:
    """Whether there is room even if nothing of it has arrived yet."""
    try:
        require_room(top, Size(0, 0), size)
    except errors.NoDiskSpace:
        return False
    return True


def require_room(top: Fd, there: Size, size: Size) -> None:
    """Raise NoDiskSpace before anything is sent, rather than in the middle of it.

    ``there`` is what has arrived already. Some room must stay for everybody else.
    """
    missing = max(0, size.files - there.files)
    needed = max(0, size.bytes - there.bytes) + missing * _ENTRY_BYTES + _SPARE_BYTES
    free = staging.free_bytes(top)
    if needed > free:
        raise errors.NoDiskSpace(
            f"The home area needs {needed} bytes, {free} are free where it would be stored:"
            f" {needed - free} are missing."
        )
    if few := lacking_entries(top, missing):
        wanted = missing + _SPARE_ENTRIES
        raise errors.NoDiskSpace(
            f"The home area needs {wanted} new files and directories, {wanted - few} can be"
            f" made where it would be stored: {few} are missing."
        )


def lacking_entries(top: Fd, files: int) -> int:
    """How many of ``files`` cannot be made there, if some more are left to everybody else."""
    entries = staging.free_entries(top)
    return 0 if entries is None else max(0, files + _SPARE_ENTRIES - entries)


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


def prepare(task: Task, area: Area, place: Place, content: Content) -> Place:
    """Complete the home with the record, signed here, and have all of it on disk for good."""
    stage = area.top.fd
    tree = id_of(place)
    about = {"identity": content.record, "digest": content.digest, "seal": content.seal}
    answer = task.channel.ask("prepare", {**about, "tree": tree})
    before = os.fstat(stage.fileno())
    identity = str(answer["identity"]).encode()
    area.write_record(identity)
    os.utime(stage.fileno(), ns=(before.st_atime_ns, before.st_mtime_ns))
    # Before the origin is told to let go: from then on there is no other copy.
    syncfs(stage.fileno())
    return place._replace(tree=tree)


def id_of(place: Place) -> str:
    """What tells that which arrives from all else that had or will have its place."""
    with paths.open_safe_parent(place.stage_path) as parent:
        return staging.tree_at(parent, os.path.basename(place.stage_path))


def become_home(task: Task, place: Place, opening: Opening) -> dict[str, object]:
    """Make the tree a home, which can be used from here on; gives its uid and the report."""
    # Judged, or made, before anything is renamed into it: only root may enter it.
    place.open_parent().close()
    if place.phase != "committed":
        place.commit()
    if place.is_tree:
        with directory.open_home(place.image_path) as top:
            storage = "subvolume" if is_subvolume(top.fd.fileno()) else "directory"
        binding: dict[str, object] = {}
    else:
        storage = place.storage
        binding = dict(storage_named(storage).binding(opening.image(place.image_path)))
    answer = task.channel.ask("commit", {"storage": storage, "binding": binding})
    try:
        _publish_blobs(opening.area(place, place.image_path), str(answer["blob_directory"]))
    except errors.BadPassword:
        # Killed and run again, nobody has said the word a second time.
        log.warning("Public files of %s are not shown here until `homemgr repair`.", place.user)
    return {"uid": answer["uid"], "report": answer["report"]}


def _publish_blobs(area: Area, blob_directory: str) -> None:
    """Show the public files that arrived inside the home, if they are those of its record."""
    root, user = os.path.split(blob_directory)
    with ExitStack() as closing:
        top = closing.enter_context(area).top
        embedded = UserRecord.parse(read_identity(top) or b"{}")
        manifest = embedded.data.get("blobManifest")
        if not isinstance(manifest, dict) or not manifest:
            return
        blobs = read_blobs(top, {name: str(digest) for name, digest in manifest.items()})
        for fd in blobs.values():
            closing.enter_context(fd)
        parent = closing.enter_context(Fd.open(root, DIRECTORY_FLAGS))
        public_blobs.publish(parent, user, {name: fd.fileno() for name, fd in blobs.items()})
