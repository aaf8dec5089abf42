"""Verb convert: make of a home that nobody uses another one, of a storage or in a place of its own.

The content goes from the one to the other as it does between machines, with no stream between.
Then the new one is closed, opened again and read in full, and has to be the old one. It lies in
a room beside its place until the daemon has both change places; here nothing of the old changes.
"""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, NamedTuple

from homemgr import errors
from homemgr.kernel.synchronization import syncfs
from homemgr.record import names, password
from homemgr.record.model import UserRecord
from homemgr.record.storages import abilities_of
from homemgr.record.volume_settings import volume_settings
from homemgr.storage import luks_devices, paths, rooms, snapshot_moving, staging, staying
from homemgr.storage.abilities import storable_flags
from homemgr.storage.idmapping import NOBODY
from homemgr.storage.kind import Content, Image, Words
from homemgr.storage.kinds import STORAGES, storage_named
from homemgr.storage.ledger import Ledger
from homemgr.transfer.needs import Ability
from homemgr.transfer.policy import Policy
from homemgr.work import conversion_room
from homemgr.work.cleaning import clean_home
from homemgr.work.found import tell_record
from homemgr.work.handover import Handover
from homemgr.work.passes import Pass, now_ns
from homemgr.work.send import LEFT_OUT
from homemgr.work.survey import survey
from homemgr.work.telling import Telling

if TYPE_CHECKING:
    from homemgr.files import Fd
    from homemgr.record.jsontext import JsonObject
    from homemgr.storage.kind import Storage
    from homemgr.transfer.frames import Frame
    from homemgr.work.allowance import Size
    from homemgr.work.contents import Shared
    from homemgr.work.task import Task

log = logging.getLogger(__name__)

#: How large a ledger may be: in any case, for each name, and for digests of blocks of files as a
#: share of these; of holes no more than that of so many bytes.
_LEDGER_BYTES = 32 << 20
_LEDGER_NAME_BYTES = 1 << 10
_LEDGER_SHARE = 2048
_HOLES_BYTES = 128 << 30


def run(task: Task) -> dict[str, object]:
    """Make it; gives ``tree`` and ``was`` (what tells both from others) and the ``binding``.

    Where a rename is all there is to do nothing is made, and ``is_renamed`` says so.
    """
    target = Target.of(task)
    was = rooms.image_at(task.image_path)
    if not was:
        raise errors.HomeAbsent(f"There is no home area at {task.image_path}.")
    if not target.stays and _is_renamed(task, target):
        return {"tree": was, "was": was, "is_renamed": True, "binding": {}}
    _require_own_ids(task, target)
    try:
        made = _Conversion(task, target).run()
    except BaseException:
        try:
            target.clear()
        except (errors.HomeError, OSError) as error:
            # The daemon tries again; and it says less than what went wrong first.
            log.warning("%s stays for now: %s", target.room, error)
        raise
    return {**made, "was": was, "is_renamed": False}


class Target(NamedTuple):
    """What the new home is to be."""

    name: str
    image_path: str
    #: Empty if it stays where it is made.
    room: str
    disk_size: int | None
    #: Of the volume on a device.
    luks_uuid: str

    @classmethod
    def of(cls, task: Task) -> Target:
        """As the daemon has decided."""
        size = task.argument("disk_size")
        return cls(
            task.text("to_storage"),
            task.text("to_path"),
            task.text("room"),
            size if isinstance(size, int) else None,
            task.text("image"),
        )

    @property
    def stays(self) -> bool:
        """Whether it is made on a device, where nothing is renamed."""
        return names.stays(self.image_path)

    @property
    def storage(self) -> Storage:
        """How it lies on disk."""
        return storage_named(self.name)

    @property
    def place(self) -> str:
        """Where it is made."""
        if self.stays:
            return self.image_path
        return os.path.join(self.room, os.path.basename(self.image_path))

    def parent(self) -> Fd:
        """The directory in which it is made."""
        return paths.open_safe_parent(self.image_path) if self.stays else rooms.make(self.room)

    def clear(self) -> None:
        """Leave nothing of it."""
        if self.stays:
            staying.forget(self.image_path, self.luks_uuid)
        else:
            rooms.clear(self.room, STORAGES.values())


def _is_renamed(task: Task, target: Target) -> bool:
    """Whether it remains what it is, and only gets another path on the same file system."""
    with ExitStack() as opened:
        there = opened.enter_context(_new_parent(task, target))
        name = os.path.basename(target.image_path)
        if target.image_path != task.image_path and staging.is_there(there, name):
            raise errors.PathExists(f"{target.image_path} exists already; nothing was changed.")
        if names.stays(task.image_path):
            return False
        parent = opened.enter_context(paths.open_safe_parent(task.image_path))
        is_same = target.name == (task.effective.storage or "directory")
        is_renamed = is_same and _device(there) == _device(parent)
        has_moved = os.path.dirname(target.image_path) != os.path.dirname(task.image_path)
        if is_renamed and has_moved:
            snapshot_moving.require_possible(parent, there, task.record.name)
        return is_renamed


def _require_own_ids(task: Task, target: Target) -> None:
    """Raise NotSupported if parts of both images, open at once, would be one to the kernel."""
    if not (task.storage.image_is_file and target.storage.image_is_file):
        return
    settings = volume_settings(task.record.without("binding").on(task.machine))
    named = []
    has_own = target.stays or target.name != task.effective.storage
    if settings.luks_uuid and target.name == "luks" and not has_own:
        named.append("luksUuid")
    if settings.file_system_uuid:
        named.append("fileSystemUuid")
    if named:
        raise errors.NotSupported(
            f"The record of {task.record.name} has {' and '.join(named)}, and two images cannot"
            " have the same: take that out of it first."
        )


def _device(directory: Fd) -> int:
    return os.fstat(directory.fileno()).st_dev


def _new_parent(task: Task, target: Target) -> Fd:
    """The directory that is to hold the new home, which only root may enter."""
    directory = os.path.dirname(target.image_path)
    if directory == task.text("base_directory"):
        return paths.ensure_base(directory)
    return paths.open_safe_parent(target.image_path, for_new=True)


class _Conversion:
    """The making of one new home."""

    def __init__(self, task: Task, target: Target) -> None:
        self._task = task
        self._target = target
        self._telling = Telling(task.channel)
        #: Bytes of contents in this pass.
        self._copied = 0
        #: What is noted of the home lies in memory, twice, and a name repeats its directory's path.
        self._ledger_bytes = 0

    def run(self) -> dict[str, object]:
        target, task = self._target, self._task
        with ExitStack() as closing:
            source = closing.enter_context(task.open_checked()).top
            clean_home(task, source.fd)
            tell_record(task, source)
            told = task.channel.ask("record", {})["record"]
            assert isinstance(told, dict)
            record = UserRecord(told)
            words = self._words(record)
            image = self._image(record)
            # Of all that a file system may lack: what it does is found out once there is one.
            size, needs = survey(source.fd, LEFT_OUT, tuple(Ability))
            room = closing.enter_context(target.parent())
            conversion_room.require_outside(target, room, size)
            name = os.path.basename(target.image_path)
            content = Content(0o700, None, record.embedded().pretty(), {}, size.files)
            self._ledger_bytes = _ledger_bytes(size)
            ledger = self._ledger(closing, "here")
            rules = Policy(source.disk_uid, source.disk_gid, self._is_wide(record), frozenset())
            with conversion_room.told_if_full(target, room, size, lambda: self._copied):
                target.storage.create(image, room, name, content, words)
                with target.storage.open(image, words, is_active=False) as area:
                    rules = rules._replace(flags=storable_flags(area.top.fd))
                    conversion_room.require_fit(target, source.fd, area.top.fd, size, needs)
                    self._telling.expect(size.files, size.content)
                    report = self._copy(source.fd, area.top.fd, ledger, rules)
                    syncfs(area.top.fd.fileno())
            if not task.storage.image_is_file:
                self._require_still(source.fd, ledger, rules)
            with target.storage.open(image, words, is_active=False) as area:
                self._compare(area.top.fd, ledger, rules)
            return {
                "tree": rooms.image_at(target.place),
                "binding": target.storage.binding(image),
                "files": size.files,
                "bytes": size.content,
                "report": report,
            }

    def _words(self, record: UserRecord) -> Words:
        """What shall unlock the new home, if anything does: each of its words gets a slot."""
        if not abilities_of(self._target.name).has_key:
            return Words()
        task = self._task
        secret = task.complete(task.secret, record)
        return task.words(password.require_all(record.on(task.machine), secret, task.verify))

    def _image(self, record: UserRecord) -> Image:
        """The new home as its storage has to know it: nothing of the old one's image."""
        plain, here = record.without("binding"), self._chosen()
        if here:
            # The last one counts: a size that was chosen on this machine is in such an entry too.
            entry: JsonObject = {"matchMachineId": [self._task.machine.id], **here}
            plain = plain.replaced(perMachine=[*plain.per_machine, entry])
        # The old one is open too, under its name.
        device = f"{luks_devices.NEW_PREFIX}{record.name}"
        return Image(self._target.place, plain.on(self._task.machine), device=device)

    def _chosen(self) -> JsonObject:
        """What is said of the new home alone."""
        target = self._target
        chosen: JsonObject = {}
        if target.disk_size is not None:
            chosen["diskSize"] = target.disk_size
        if target.stays:
            chosen |= {"imagePath": target.image_path, "luksUuid": target.luks_uuid}
        return chosen

    def _is_wide(self, record: UserRecord) -> bool:
        return record.on(self._task.machine).idmap_policy != "strict"

    def _ledger(self, closing: ExitStack, name: str) -> Ledger:
        """One that is kept in memory, as it names the files of a home that may be encrypted."""
        path = self._scratch(name)
        closing.callback(_forget, path)
        _forget(path)
        ledger = closing.enter_context(Ledger(path))
        ledger.hold(self._ledger_bytes)
        return ledger

    def _scratch(self, name: str) -> str:
        return f"{self._task.text('scratch')}.{name}"

    def _copy(self, source: Fd, top: Fd, ledger: Ledger, rules: Policy) -> dict[str, object]:
        """Have all of it there; gives what could not be kept as it was."""
        self._telling.phase("copying")
        there = self._scratch("there")
        _forget(there)
        try:
            # What arrives was made nobody's already.
            arriving = rules._replace(disk_uid=NOBODY, disk_gid=NOBODY)
            with Handover(top, there, arriving, self._ledger_bytes) as handover:
                one = Pass(
                    source,
                    ledger,
                    rules,
                    handover.send,
                    now_ns(),
                    self._count,
                    # Files that share their blocks with the old ones take no room of their own.
                    share=handover.send if conversion_room.can_share(source, top) else None,
                )
                one.run(LEFT_OUT)
                if handover.finish() != ledger.digest().hex():
                    raise _different(self._target)
        finally:
            _forget(there)
        return one.report.to_json()

    def _require_still(self, source: Fd, ledger: Ledger, rules: Policy) -> None:
        """Raise HomeBusy if the old home is not what was copied any more.

        Nobody is logged in, but a mount namespace that a program has for itself may still show
        the home, and root can write anywhere. An image is nobody else's meanwhile.
        """

        def changed(_: Frame | Shared) -> None:
            raise errors.HomeBusy(
                f"Files of home area {self._task.record.name} were changed while it was copied,"
                " and it stays as it was: end what writes there, then run the same command again."
            )

        Pass(source, ledger, rules, changed, 0, self._count).run(LEFT_OUT)

    def _compare(self, top: Fd, ledger: Ledger, rules: Policy) -> None:
        """Raise HomeError unless what is on disk is what was read from the old home."""
        self._telling.phase("comparing")

        def differ(_: Frame) -> None:
            raise _different(self._target)

        rules = rules._replace(disk_uid=NOBODY, disk_gid=NOBODY)
        Pass(top, ledger, rules, differ, 0, self._count).run(LEFT_OUT)

    def _count(self, files: int, size: int) -> None:
        self._copied = size
        self._task.channel.require_wanted()
        self._telling.count(files, size)


def _ledger_bytes(size: Size) -> int:
    """What a ledger needs for an ordinary home, and plenty besides."""
    content = min(size.content, size.bytes + _HOLES_BYTES)
    return _LEDGER_BYTES + size.files * _LEDGER_NAME_BYTES + content // _LEDGER_SHARE


def _different(target: Target) -> errors.HomeError:
    return errors.HomeError(
        f"What was written for {target.image_path} is not what the home area holds; the home area"
        " stays as it was."
    )


def _forget(path: str) -> None:
    for name in (path, f"{path}-journal"):
        with suppress(FileNotFoundError):
            os.unlink(name)
