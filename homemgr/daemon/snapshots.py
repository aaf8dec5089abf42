"""Snapshots of homes: what clients ask for, and those that are taken before something risky.

A worker knows where they lie and how they are taken; here is decided beside what else it works.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import os
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.daemon.home import image_is_there
from homemgr.daemon.registration import OF_THE_IMAGE
from homemgr.daemon.states import Job, Operation
from homemgr.record import storages
from homemgr.record.secret import Secret

if TYPE_CHECKING:
    from homemgr.daemon.activity import Activity
    from homemgr.daemon.home import Home, Services
    from homemgr.daemon.manager import Manager
    from homemgr.daemon.snapshot_options import CreateOptions, MountOptions, RestoreOptions
    from homemgr.job import Message

log = logging.getLogger(__name__)

Answer = dict[str, object]

#: How often those are looked for whose time is over (s).
_PRUNED_EVERY_S = 86400.0


async def before(home: Home, doing: str) -> None:
    """Take a snapshot because ``doing`` ("repair") follows, where it costs nothing.

    For a caller that holds the home exclusively. Never fails: what is risky without one was so
    before there were any, and is what the caller was asked to do.
    """
    try:
        told = await _work(
            home,
            "snapshot",
            name="",
            prefix=f"before-{doing.replace(' ', '-')}-",
            reason=f"before {doing}",
            by_uid=0,
            automatic=True,
            full_copy=False,
        )
    except errors.HomeError as error:
        log.warning("There is no snapshot of home area %s before %s: %s", home.name, doing, error)
        return
    if "skipped" in told:
        log.info(
            "There is no snapshot of home area %s before %s: %s", home.name, doing, told["skipped"]
        )


async def create(home: Home, activity: Activity, options: CreateOptions, *, by_uid: int) -> Answer:
    """Take one; gives its note."""
    _require_known(home)
    # Of a home that is becoming another one it would lie in the place of the one or the other.
    home.check_lease(Operation.RESTORE)
    # An image is taken while nobody else has it.
    home.call_off()
    return await _work(
        home,
        "snapshot",
        activity,
        name=options.name,
        prefix="",
        reason=options.reason,
        by_uid=by_uid,
        automatic=False,
        full_copy=options.full_copy,
    )


async def listed(home: Home) -> object:
    """What is known about each, the oldest first, and where it is mounted."""
    async with home.questions.turn():
        return (await _work(home, "snapshot-list"))["snapshots"]


async def compare(home: Home, activity: Activity, name: str, other: str) -> Answer:
    """The names that changed from ``name`` to ``other``, or to the home if that is empty."""
    told = await _work(home, "snapshot-diff", activity, name=name, to=other)
    answer: Answer = json.loads(str(told["json"]))
    return answer


async def restore(home: Home, activity: Activity, name: str, *, by_uid: int) -> Answer:
    """Have the whole home as it was then; nobody uses it meanwhile."""

    async def answer(question: str, about: Message) -> Message:
        if question != "exchange":
            return await home.answer(question, about)
        await _let_image_differ(home)
        return {}

    async with home.exclusively(Operation.RESTORE):
        await home.services.writing(home.name)
        result = await home.work(
            Job.RESTORE,
            Secret(),
            on_progress=activity.note,
            on_question=answer,
            cancelled=activity.cancelled,
            name=name,
            by_uid=by_uid,
        )
        home.is_present = await asyncio.to_thread(image_is_there, home.image_path)
        home.services.changed(home)
    log.info("Home area %s is as in its snapshot %s.", home.name, name)
    return result


async def _let_image_differ(home: Home) -> None:
    """Have the binding name no image any more that the next one would have to be.

    That of a snapshot may be of before a conversion. The next login names what it finds. It comes
    right before the exchange: after a kill between the two nobody could log in otherwise, and what
    is refused before leaves the binding as it was.
    """
    if not storages.is_tree(home.effective.storage):
        binding = dict.fromkeys(OF_THE_IMAGE)
        await home.store_record(home.record.with_binding(home.services.machine.id, binding))


async def restore_files(home: Home, activity: Activity, options: RestoreOptions) -> Answer:
    """Bring single files back; tells what stays as it is.

    Beside whatever else happens to a home in use; of another one nothing else happens meanwhile.
    """
    _require_known(home)
    home.observe()
    if home.is_mounted:
        home.check_lease(Operation.RESTORE)
        told = await _restore_files(home, activity, options)
    else:
        async with home.exclusively(Operation.RESTORE):
            await home.services.writing(home.name)
            told = await _restore_files(home, activity, options)
    kept = told["kept"]
    assert isinstance(kept, list)
    rows = [{"kind": kind, "path": os.fsdecode(path.encode("latin-1"))} for kind, path in kept]
    return {**told, "kept": rows}


async def _restore_files(home: Home, activity: Activity, options: RestoreOptions) -> Answer:
    return await _work(
        home,
        "snapshot-files",
        activity,
        name=options.name,
        paths=[os.fsencode(path).decode("latin-1") for path in options.paths],
        force=options.force,
        is_mounted=home.is_mounted,
    )


async def remove(home: Home, name: str, *, only_by: int | None) -> None:
    """Delete one; with ``only_by`` only if that user took it himself."""
    async with home.questions.turn():
        await _work(home, "snapshot-remove", name=name, only_by=only_by)


async def mount(home: Home, name: str, options: MountOptions) -> None:
    """Show one at a directory, read-only, its files belonging to one uid."""
    path, uid, gid = options
    await _work(home, "snapshot-mount", name=name, path=path, uid=uid, gid=gid)


async def unmount(services: Services, path: str) -> None:
    """End what `mount` shows at ``path``."""
    await services.runner.run("snapshot-unmount", {"path": path})


async def forget(
    services: Services, user: str, image_path: str, *, before_usec: int, since_usec: int = 0
) -> None:
    """Delete snapshots of ``user`` that lie beside an image and were taken between two moments."""
    window: Answer = {"since_usec": since_usec, "before_usec": before_usec}
    await _forget(services, user, image_path, only_readable=False, **window)


async def forget_readable(services: Services, user: str, image_path: str) -> None:
    """Delete those that are not encrypted themselves, beside an image that is.

    Whenever they were taken: the clock may have been set since.
    """
    await _forget(services, user, image_path, only_readable=True, since_usec=0, before_usec=0)


async def _forget(services: Services, user: str, image_path: str, **which: object) -> None:
    told = {
        "directory": os.path.dirname(image_path),
        "user": user,
        "machine": dataclasses.asdict(services.machine),
    }
    await services.runner.run("snapshot-forget", {**told, **which}, about=user)


async def prune_daily(manager: Manager) -> None:
    """Once a day drop those that were kept long enough, until cancelled; a start does so too."""
    services = manager.services
    while True:
        await asyncio.sleep(_PRUNED_EVERY_S)
        directories = {os.path.dirname(home.image_path) for home in manager.registry}
        directories |= set(services.config.usual_directories)
        try:
            await services.runner.run("snapshot-prune", {"directories": sorted(directories - {""})})
        except errors.HomeError as error:
            log.warning("Old snapshots stay for now: %s", error)


def _require_known(home: Home) -> None:
    if not home.is_fixated:
        raise errors.HomeUnfixated(f"Home area {home.name} was found on disk but never used.")
    if not home.is_known:
        raise errors.NoSuchHome(f"Home area {home.name} has just been removed.")


async def _work(
    home: Home, verb: str, activity: Activity | None = None, **arguments: object
) -> Answer:
    """Have a worker do it beside whatever else happens to the home."""
    return await home.services.runner.run(
        verb,
        {**home.job_arguments(Secret()), **arguments},
        about=home.name,
        on_progress=activity.note if activity else None,
        cancelled=activity.cancelled if activity else None,
    )
