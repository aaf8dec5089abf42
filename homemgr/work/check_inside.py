"""The home's own record, looked at: is it there, whole, signed, the user's, the newest?"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.record import signature
from homemgr.record.reconcile import Winner, reconcile
from homemgr.record.validate import parse_embedded
from homemgr.storage import embedded
from homemgr.storage.guarded import open_guarded
from homemgr.work.damage import Damage, Obstacle, counts_alone, replaced_by_host_copy
from homemgr.work.trouble import Trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from homemgr.storage.kind import Area
    from homemgr.storage.top import Top
    from homemgr.work.task import Task


def troubles(task: Task, area: Area) -> Iterator[Trouble]:
    """What is wrong with it."""
    top = area.top
    subject = os.path.join(task.image_path, embedded.IDENTITY)
    try:
        text = embedded.read_identity(top)
    except errors.HostileHome as error:
        yield Trouble(
            "inside-hostile", subject, error.message, _if_good(task, _renaming(task, area))
        )
        return
    if text is None:
        yield Trouble("inside-missing", subject, "", _if_good(task, lambda: _write(task, area)))
        return
    yield from _mode(top, subject)
    found = _judge(task, text)
    if found is not None:
        code, detail, is_replaceable = found
        mend = _replacing(task, area, text) if is_replaceable else None
        yield Trouble(code, subject, detail, mend)


def _judge(task: Task, text: bytes) -> tuple[str, str, bool] | None:
    """Code, detail and whether the host copy may replace it; None if all is well."""
    try:
        record = parse_embedded(text)
    except errors.HostileHome as error:
        return "inside-unreadable", error.message, replaced_by_host_copy(task, text)
    if not record.is_same_user(task.record):
        return "inside-other-user", f"It is that of {record.user_and_realm}.", False
    try:
        signature.require_accepted(record, task.keyring)
    except (errors.BadSignature, errors.InvalidRecord) as error:
        return "inside-signature", error.message, replaced_by_host_copy(task, text)
    if not task.is_fixated:
        return None
    winner = reconcile(task.record, record).winner
    if winner is Winner.HOST:
        return "inside-older", "", _is_good(task)
    return ("inside-newer", "", False) if winner is Winner.EMBEDDED else None


def _is_good(task: Task) -> bool:
    """Whether the host copy may be written into the home."""
    return counts_alone(task)


def _if_good(task: Task, mend: Callable[[], None]) -> Callable[[], None] | None:
    return mend if _is_good(task) else None


def _write(task: Task, area: Area) -> None:
    area.write_record(task.record.embedded().pretty())


def _replacing(task: Task, area: Area, text: bytes) -> Callable[[], None]:
    def mend() -> None:
        # First: what cannot be kept is not replaced.
        Damage(task.channel, text).keep()
        _write(task, area)

    return mend


def _renaming(task: Task, area: Area) -> Callable[[], None]:
    def mend() -> None:
        Obstacle(area.top).keep()
        _write(task, area)

    return mend


def _mode(top: Top, subject: str) -> Iterator[Trouble]:
    with open_guarded(top.fd, embedded.IDENTITY, top.disk_uid) as fd:
        mode = stat.S_IMODE(os.fstat(fd.fileno()).st_mode)
    if not mode & 0o077:
        return

    def mend() -> None:
        # Opened and judged anew: whoever owns the home may have put something else there since.
        with open_guarded(top.fd, embedded.IDENTITY, top.disk_uid) as fd:
            os.fchmod(fd.fileno(), 0o600)

    yield Trouble("inside-mode", subject, f"It has mode {mode:04o}.", mend)
