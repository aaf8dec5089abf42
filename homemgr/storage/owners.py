"""Make every file of a classic home directory nobody's, where it lies, and give it back exactly.

After `owner_survey` has written a `Ledger` of what is not simply the user's own, `take` does what
stands there, and makes all else nobody's. `give_back` undoes it, also for files that came since.

What the user got by `take` and could have changed since stays his: nobody gets a set-id program
of root's back with a content of his own choice. A change shows in the time of the inode's last
change, which only who sets the clock can choose. The number of an inode says little: who can
remove a file can make another that gets it, and in each subvolume of btrfs they begin anew.

The tree lies where only root gets, and nobody has anything open in it. Both may be killed, and
called again.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final, NamedTuple

from homemgr.errors import HostileHome
from homemgr.files import Fd
from homemgr.kernel.openat2 import open_number, way_to_open
from homemgr.kernel.owner import change_owner
from homemgr.storage import reader
from homemgr.storage.guarded import RESOLVE_GUARDED
from homemgr.storage.idmapping import NOBODY
from homemgr.transfer import acl
from homemgr.transfer.report import Note, Report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from homemgr.storage.owner_ledger import Ledger, Odd, Xattrs
    from homemgr.storage.reader import Step

    #: Told how many entries and bytes were dealt with.
    Progress = Callable[[int, int], None]

#: The attributes that say who may do what. All others are content, or labels of this machine,
#: and stay as they are.
CAPABILITY: Final = b"security.capability"
_RIGHTS: Final = frozenset({acl.ACCESS, acl.DEFAULT, CAPABILITY})
SETID: Final = stat.S_ISUID | stat.S_ISGID

_LOOK = way_to_open(os.O_PATH | os.O_NOFOLLOW, RESOLVE_GUARDED)

#: A step of progress, in entries.
OFTEN: Final = 500

#: Only these have access control lists or capabilities.
_WITH_RIGHTS: Final = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFIFO)


class Owner(NamedTuple):
    """The ids that become nobody's."""

    uid: int
    gid: int


def take(top: Fd, owner: Owner, ledger: Ledger, progress: Progress) -> int:
    """Make everything nobody's, as the ledger says; gives how many entries there are.

    Raises HostileHome if the tree is not the one that was surveyed.
    """
    files = 0
    device = os.fstat(top.fileno()).st_dev
    with ledger.applying() as plan:
        expected = plan.next()
        for step in entries(top):
            files += 1
            if files % OFTEN == 0:
                progress(files, 0)
            if step.what == reader.ENTER and step.stat.st_dev != device:
                raise _changed(step.path)
            exception = None
            if expected is not None and expected.path == step.path:
                exception, expected = expected, plan.next()
            with _opened(step) as fd:
                if exception is None:
                    _take_plain(step, fd, owner)
                    continue
                is_it = exception.inode == step.stat.st_ino and _is_as_surveyed(exception, step)
                if not is_it:
                    raise _changed(step.path)
                _put(fd, step, Owner(NOBODY, NOBODY), exception.new_mode, exception.new_xattrs)
                plan.done(exception, os.fstat(fd.fileno()).st_ctime_ns)
        if expected is not None:
            raise _changed(expected.path)
    return files


def give_back(top: Fd, owner: Owner, ledger: Ledger, progress: Progress) -> Report:
    """Make everything the owner's again, and what was not his whose it was, if it is unchanged."""
    report = Report()
    device = os.fstat(top.fileno()).st_dev
    if not ledger.is_selected:
        _select(top, ledger)
    chosen = {}
    for one in ledger.exceptions():
        if one.inode:
            chosen[one.inode] = one
        elif (one.uid, one.gid, one.mode, one.xattrs) != (*owner, one.new_mode, one.new_xattrs):
            report.add(Note("owner-not-restored", one.path, f"{one.uid}:{one.gid}"))
    for files, step in enumerate(entries(top), 1):
        if files % OFTEN == 0:
            progress(files, 0)
        with _opened(step) as fd:
            exception = chosen.get(step.stat.st_ino)
            if exception is not None and _is_to_be_restored(exception, step, device):
                was = Owner(exception.uid, exception.gid)
                _put(fd, step, was, exception.mode, exception.xattrs)
            else:
                _give_plain(step, fd, owner)
    return report


def _select(top: Fd, ledger: Ledger) -> None:
    """Decide which exceptions are as `take` left them, before the first of them is touched."""
    unchanged: set[int] = set()
    device = os.fstat(top.fileno()).st_dev
    known = {one.inode: one for one in ledger.exceptions()}
    for step in entries(top) if known else ():
        one = known.get(step.stat.st_ino)
        if one is not None and _is_on(step, device) and _is_as_left(one, step):
            unchanged.add(one.inode)
    ledger.select(unchanged)


def _is_on(step: Step, device: int) -> bool:
    """Whether an entry is on ``device``: not in a subvolume, whose inodes have the same numbers."""
    # A file's own device is another one in overlays.
    found = step.stat if step.what == reader.ENTER else os.fstat(step.parent)
    return found.st_dev == device


def _is_as_surveyed(one: Odd, step: Step) -> bool:
    """Whether nobody but us has changed an entry since the survey."""
    found = step.stat
    # An attempt before this one has made it nobody's; the top was renamed, and is known by its id.
    is_ours = (found.st_uid, found.st_gid) == (NOBODY, NOBODY) or not step.path
    return is_ours or found.st_ctime_ns == one.surveyed_ns


def _is_as_left(one: Odd, step: Step) -> bool:
    """Whether nobody but us has changed an entry since `take`."""
    # Without a time `take` did not get to its end, so that nobody had the files after it.
    if one.changed_ns is None:
        return _is_as_surveyed(one, step)
    return one.changed_ns == step.stat.st_ctime_ns


def _is_to_be_restored(one: Odd, step: Step, device: int) -> bool:
    """Whether an entry is the very one that was selected, or was restored by an earlier attempt."""
    is_done = (step.stat.st_uid, step.stat.st_gid) == (one.uid, one.gid)
    return _is_on(step, device) and (is_done or _is_as_left(one, step))


# -- one entry --------------------------------------------------------------------------


def entries(top: Fd) -> Iterator[Step]:
    """Every name once."""
    for step in reader.walk(top):
        if step.what != reader.LEAVE:
            yield step


def _opened(step: Step) -> Fd:
    """The very inode of a step, not opened in earnest; `HostileHome` if it is another by now."""
    if step.what == reader.ENTER:
        return Fd(os.dup(step.fd))
    fd = Fd.opened(open_number(step.parent, step.name, _LOOK))
    if not os.path.samestat(os.fstat(fd.fileno()), step.stat):
        fd.close()
        raise _changed(step.path)
    return fd


def _changed(path: bytes) -> HostileHome:
    return HostileHome(f"{os.fsdecode(path)!r} was changed while the home area was being made.")


def rights_of(step: Step) -> Xattrs:
    """The attributes of an entry that say who may do what."""
    if stat.S_IFMT(step.stat.st_mode) not in _WITH_RIGHTS:
        return ()
    return tuple(pair for pair in reader.attributes(step) if pair[0] in _RIGHTS)


def _take_plain(step: Step, fd: Fd, owner: Owner) -> None:
    ids = (step.stat.st_uid, step.stat.st_gid)
    if ids == (owner.uid, owner.gid):
        _give(fd, step, Owner(NOBODY, NOBODY), stat.S_IMODE(step.stat.st_mode))
    elif ids != (NOBODY, NOBODY):
        raise _changed(step.path)


def _give_plain(step: Step, fd: Fd, owner: Owner) -> None:
    """From nobody to the owner, access control lists too; what is somebody else's stays so."""
    found = step.stat
    uid = owner.uid if found.st_uid == NOBODY else found.st_uid
    gid = owner.gid if found.st_gid == NOBODY else found.st_gid
    if (uid, gid) == (found.st_uid, found.st_gid):
        return
    # Before the owner, by whom a second attempt sees that it is done.
    for name, value in rights_of(step):
        if name != CAPABILITY:
            os.setxattr(_path_of(fd), name, _renamed(value, owner))
    _give(fd, step, Owner(uid, gid), stat.S_IMODE(found.st_mode))


def _renamed(value: bytes, owner: Owner) -> bytes:
    """An access control list that says the owner where it said nobody."""
    own = {acl.USER: owner.uid, acl.GROUP: owner.gid}
    return acl.build(
        sorted(
            line._replace(id=own.get(line.tag, NOBODY)) if line.id == NOBODY else line
            for line in acl.parse(value)
        )
    )


def _put(fd: Fd, step: Step, to: Owner, mode: int, xattrs: Xattrs) -> None:
    """Owner, mode and rights, whatever they are now."""
    if stat.S_ISLNK(step.stat.st_mode):
        change_owner(fd.fileno(), *to)
        return
    change_owner(fd.fileno(), *to)
    where = _path_of(fd)
    wanted = dict(xattrs)
    for name in _present(where) - wanted.keys():
        os.removexattr(where, name)
    for name, value in wanted.items():
        os.setxattr(where, name, value)
    # After the lists, whose mask is the group's part of the mode.
    os.chmod(where, mode)


def _present(where: str) -> set[bytes]:
    try:
        return {os.fsencode(name) for name in os.listxattr(where)} & _RIGHTS
    except OSError:
        return set()


def _give(fd: Fd, step: Step, to: Owner, mode: int) -> None:
    """Change the owner, and have the set-id bits back that this clears."""
    change_owner(fd.fileno(), *to)
    if mode & SETID and not stat.S_ISLNK(step.stat.st_mode):
        os.chmod(_path_of(fd), mode)


def _path_of(fd: Fd) -> str:
    """A path of the inode itself, for calls that take no O_PATH descriptor."""
    return f"/proc/self/fd/{fd.fileno()}"
