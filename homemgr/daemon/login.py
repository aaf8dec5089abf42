"""Operations that begin and end the use of a home area: authenticate, activate, acquire, release.

Decides what happens in which state and which failures count; the work itself
is a job. Semantics of org.freedesktop.home1(5), with the exceptions named
where they are made.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from contextlib import ExitStack
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.daemon import closing
from homemgr.daemon.attempts import attempt, looking
from homemgr.daemon.home import now_usec
from homemgr.daemon.reader import put_off, stop_reading
from homemgr.daemon.states import Job, Operation, Way
from homemgr.daemon.unwaited import until_told
from homemgr.record import unasked
from homemgr.record.model import UserRecord
from homemgr.record.secret import Secret
from homemgr.record.sizing import sizing_of

if TYPE_CHECKING:
    from homemgr.daemon.home import Home
    from homemgr.daemon.unwaited import Told
    from homemgr.files import Fd

log = logging.getLogger(__name__)

#: Waiting times between attempts to deactivate a home that was held; the last one repeats.
LINGER_DELAYS_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)


async def activate(
    home: Home, secret: Secret, home_mode: str = "", *, by_root: bool = False
) -> None:
    """Mount the home area; it stays until it is deactivated or released.

    With a ``home_mode`` in that, unless its record says another; AccessDenied then.
    Root (``by_root``) needs no secret where the record says so.
    """
    async with home.exclusively(Operation.ACTIVATE) as way:
        if way is Way.KEEP and home_mode:
            raise errors.HomeAlreadyActive(
                f"Home area {home.name} is still active, and stays as it is until deactivated."
            )
        if way is Way.KEEP:
            # systemd-homed 262 never answers here (and aborts at the next call).
            home.keep()
            return
        is_unasked = by_root and secret.is_empty and needs_no_secret(home)
        await mount(home, None if is_unasked else secret, home_mode=home_mode)


def needs_no_secret(home: Home) -> bool:
    """Whether the record, as far as it is known, lets root have the home without one."""
    return home.is_fixated and unasked.is_allowed(home.effective, now_usec())


async def activate_if_referenced(home: Home, secret: Secret) -> None:
    """Activate for a session that already holds a reference (the fallback shell)."""
    if not home.references.held:
        raise errors.HomeNotReferenced(
            f"Home area {home.name} is not activated: no session holds a reference to it."
        )
    await activate(home, secret)


async def authenticate(home: Home, secret: Secret) -> None:
    """Check the credentials and change nothing; an unfixated home stays unfixated."""
    async with home.exclusively(Operation.AUTHENTICATE):
        await _authenticate(home, secret)


async def fixate(home: Home, secret: Secret) -> None:
    """Make a home found on disk known to this machine: its own record becomes the host copy."""
    async with home.exclusively(Operation.FIXATE):
        async with attempt(home, secret):
            result = await home.work(Job.FIXATE, secret)
        await _make_room_for_blobs(home)
        await home.store_record(_record_after(home, result))
        home.is_fixated = True
        home.services.changed(home)


async def deactivate(home: Home) -> None:
    """Unmount the home area, whether or not references exist (as systemd-homed does)."""

    async def work(told: Told) -> None:
        async with home.exclusively(Operation.DEACTIVATE):
            await _deactivate(home, told)

    await until_told(work)


async def acquire(home: Home, secret: Secret, *, please_suspend: bool) -> Fd:
    """Authenticate, activate if needed, and return a reference that keeps the home active.

    Waits for whatever runs on the home, a deactivation included. The reference is
    made once it is earned: one that existed before, as systemd-homed has it, would
    let everybody who asks with a wrong password keep the home from being deactivated.
    """
    async with home.exclusively(Operation.ACQUIRE, queued=True) as way:
        is_mounted = await _prove(home, secret, way)
        with ExitStack() as on_failure:
            if is_mounted:
                home.keep()
            else:
                # Not active, or unmounted behind our back since we looked.
                home.observe()
                await mount(home, secret, for_acquire=True)
                on_failure.callback(abandoned, home)
            reference = home.references.add(please_suspend=please_suspend)
            on_failure.pop_all()
    return reference


async def _prove(home: Home, secret: Secret, way: Way) -> bool:
    """Authenticate for somebody who comes to a home in use; False if it is not in use."""
    if way is Way.UNLOCK:
        await _unlock(home, secret, for_acquire=True)
        return True
    return way is Way.AUTHENTICATE and await _authenticate(home, secret, for_acquire=True)


async def unlock(home: Home, secret: Secret) -> None:
    """Put the key of a locked home back into memory."""
    async with home.exclusively(Operation.UNLOCK):
        await _unlock(home, secret)


async def _unlock(home: Home, secret: Secret, *, for_acquire: bool = False) -> None:
    async with attempt(home, secret):
        result = await home.work(Job.UNLOCK, secret, for_acquire=for_acquire)
    home.note_locked(is_locked=False)
    await home.services.freezer.let_go(home.uid)
    await adopt_result(home, result)
    log.info("Home area %s is unlocked.", home.name)


async def release(home: Home) -> None:
    """Deactivate now if no reference is left; raises HomeBusy if one is."""

    async def work(told: Told) -> None:
        async with home.exclusively(Operation.RELEASE, queued=True) as way:
            if home.references.held:
                raise errors.HomeBusy(f"Home area {home.name} is still in use by other sessions.")
            if way is Way.RUN and put_off(home):
                raise errors.HomeBusy(f"Home area {home.name} is being copied; it ends after that.")
            if way is Way.RUN:
                await _deactivate(home, told)

    await until_told(work)


async def release_by_force(home: Home) -> None:
    """Deactivate whatever references exist, after what runs on the home has ended.

    Nothing of it goes on after this: what lies below the home may be unmounted.
    """
    async with home.exclusively(Operation.RELEASE, queued=True) as way:
        if way is Way.RUN:
            await _deactivate(home)


def abandoned(home: Home) -> None:
    """The last reference disappeared: deactivate after a grace, unless somebody comes back.

    sshd authenticates by keyboard-interactive in a process that ends, with its
    reference, before the session asks for one; the grace bridges that.
    """
    if not home.is_mounted:
        home.references.forget()
    elif home.ending is None:
        home.ending = asyncio.create_task(_end(home, home.services.config.grace_s))


async def _end(home: Home, delay_s: float) -> None:
    """Deactivate ``home``, again and again until it works or somebody uses it."""
    for number in itertools.count():
        await asyncio.sleep(delay_s)
        try:
            has_ended = await _try_to_end(home)
        except Exception as error:  # noqa: BLE001 -- a bug: without us the home stays for ever
            log.error("Bug in the end of %s: %s", home.name, type(error).__name__)
            has_ended = False
        if has_ended:
            home.ending = None
            home.keep()
            return
        delay_s = LINGER_DELAYS_S[min(number, len(LINGER_DELAYS_S) - 1)]


async def _try_to_end(home: Home) -> bool:
    """One attempt to deactivate; True when there is nothing more to do."""

    async def work(told: Told) -> None:
        async with home.exclusively(Operation.RELEASE, queued=True, background=True) as way:
            if way is Way.RUN and not home.references.held and not put_off(home):
                await _run_deactivation(home, told)

    try:
        await until_told(work)
    except errors.NoSuchHome:
        return True
    except errors.HomeLocked:
        # It stays until somebody has unlocked it.
        return False
    except errors.HomeError as error:
        log.warning("Home area %s stays active for now: %s", home.name, error)
        home.is_lingering = True
        home.services.changed(home)
        return False
    return True


async def _deactivate(home: Home, told: Told | None = None) -> None:
    """Deactivate now; if that fails, keep trying in the background and say why it failed."""
    await stop_reading(home)
    try:
        await _run_deactivation(home, told)
    except errors.HomeError:
        home.is_lingering = True
        if home.ending is None:
            home.ending = asyncio.create_task(_end(home, LINGER_DELAYS_S[0]))
        raise
    home.keep()


async def lose(home: Home) -> None:
    """Take a home away whose disk is gone, whoever uses it; nothing if the disk still answers."""
    # Who is held still could not be ended.
    await home.services.freezer.let_go(home.uid)
    if home.reader is not None:
        # Read without its disk the home would look as if files were missing.
        home.reader.end_soon()
    await _run_deactivation(home, is_lost=True)


async def _run_deactivation(home: Home, told: Told | None = None, *, is_lost: bool = False) -> None:
    """Deactivate; ``told`` is called when the user's part is over, if more is done after that."""
    merged = home.services.extensions.merged(home)
    has_time = told is not None and not home.services.runner.is_busy
    shrinks = has_time and sizing_of(home.effective).shrinks
    called_off = asyncio.Event()

    def user_is_out(_progress: object) -> None:
        home.step_back(called_off)
        assert told is not None
        told()
        home.keep()

    try:
        result = await home.work(
            Job.DEACTIVATE,
            Secret(),
            merged=merged,
            is_lost=is_lost,
            shrinks=shrinks,
            on_progress=user_is_out if shrinks else None,
            cancelled=called_off if shrinks else None,
        )
        if result.get("is_healthy"):
            return
        if not result.get("is_closed"):
            closing.still_open(home)
    except errors.HomeError:
        # A worker that died may have got that far; then only its key may have to go yet.
        if home.is_mounted:
            raise
        closing.see_to(home)
    home.is_mounted = False
    await home.services.extensions.note(home, None)
    if not home.references.held:
        home.references.forget()
    home.services.changed(home)
    log.info("Home area %s is deactivated.", home.name)


async def mount(
    home: Home, secret: Secret | None, *, for_acquire: bool = False, home_mode: str = ""
) -> None:
    """Activate with ``secret``, or without any if that is None, a home that is held for that."""
    extensions = home.services.extensions
    try:
        async with looking(home) if secret is None else attempt(home, secret):
            result = await home.work(
                Job.ACTIVATE,
                secret or Secret(),
                for_acquire=for_acquire,
                without_secret=secret is None,
                extensions=extensions.order(home),
                merged=extensions.merged(home),
                home_mode=home_mode,
            )
        home.is_mounted = True
        await extensions.note(home, result.get("extensions"))
        await adopt_result(home, result)
        home.keep()
        home.services.activated(home)
    except errors.HomeAlreadyActive:
        raise
    except errors.HomeError:
        # Mounted by a worker that died of it: nobody was given this home.
        abandoned(home)
        extensions.settle()
        raise
    log.info("Home area %s is active.", home.name)


async def _authenticate(home: Home, secret: Secret, *, for_acquire: bool = False) -> bool:
    """Check credentials; True if the home turned out to be mounted."""
    async with attempt(home, secret):
        result = await home.work(Job.AUTHENTICATE, secret, for_acquire=for_acquire)
    if home.is_fixated:
        await adopt_result(home, result)
    return bool(result.get("is_mounted"))


async def adopt_result(home: Home, result: dict[str, object]) -> None:
    """Keep what a job found out: a newer record from inside the home, binding members.

    The home is in use already, and a full disk must not keep anybody out of it:
    what cannot be stored now is kept in memory and tried again with the counters.
    """
    record = _record_after(home, result)
    if home.is_fixated and record.data == home.record.data:
        return
    if not home.is_fixated:
        await _make_room_for_blobs(home)
    try:
        await home.store_record(record)
    except errors.HomeError as error:
        log.warning("%s", error)
        home.replace_record(record)
    home.is_fixated = True
    home.services.changed(home)


async def _make_room_for_blobs(home: Home) -> None:
    """The directory of public files, which homectl reads before every update."""
    try:
        await asyncio.to_thread(home.services.store.make_blob_directory, home.name)
    except errors.HomeError as error:
        # A full disk keeps nobody out; `homemgr repair` makes it later.
        log.warning("%s", error)


def _record_after(home: Home, result: dict[str, object]) -> UserRecord:
    """The host copy with what a job found out; counters stay."""
    machine_id = home.services.machine.id
    found, binding = result.get("record"), result.get("binding")
    record = UserRecord(found) if isinstance(found, dict) else home.record
    if isinstance(binding, dict):
        record = record.with_binding(machine_id, binding)
    if not home.is_fixated:
        blob_directory = home.services.store.blob_directory(home.name)
        record = record.with_binding(machine_id, {"blobDirectory": blob_directory})
    return record.with_status(machine_id, home.record.status(machine_id))
