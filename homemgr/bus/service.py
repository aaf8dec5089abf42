"""The service's life: connect, load, serve, wait for the end, leave homes as they are.

Everything runs on one event loop that never waits for a disk, a hash or
another process; those are jobs and threads.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from homemgr import errors
from homemgr.bus import homemgr1, userdb
from homemgr.bus.autologin import AutoLogins
from homemgr.bus.faces import Faces
from homemgr.bus.jobs import Jobs
from homemgr.bus.listing import Listing
from homemgr.bus.objects import Announcer, Tree
from homemgr.daemon import keys, locking, plugging, snapshots
from homemgr.daemon.access import Authority
from homemgr.daemon.answers import Answers
from homemgr.daemon.blobs import Uploads
from homemgr.daemon.extensions import Choices
from homemgr.daemon.extensions import load as load_rules
from homemgr.daemon.figures import Figures
from homemgr.daemon.freezing import Freezer
from homemgr.daemon.home import Services
from homemgr.daemon.jobs import JobRunner
from homemgr.daemon.manager import Manager
from homemgr.daemon.merging import Extensions
from homemgr.daemon.sleeping import SleepGuard
from homemgr.daemon.store import Store
from homemgr.record.machine import Machine
from homemgr.wire import messages, notify
from homemgr.wire.connection import Connection
from homemgr.wire.dispatch import Dispatcher
from homemgr.wire.logind import Logind
from homemgr.wire.polkit import Polkit
from homemgr.wire.systemd import Systemd
from homemgr.wire.varlink import VarlinkServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from homemgr.daemon.config import Config
    from homemgr.daemon.figures import Measure

log = logging.getLogger(__name__)

BUS_NAME = "org.freedesktop.home1"

#: Images come in bursts (a copy, an unpacked archive): look once it is quiet.
_DISCOVERY_DELAY_S = 0.3
#: On SIGTERM, running jobs get this long; then the job server's children go on alone.
_STOP_TIMEOUT_S = 30.0


class Watch(Protocol):
    """Tells that directories changed; readable when there is something to read."""

    def fileno(self) -> int:
        """For the event loop."""

    def drain(self) -> bool:
        """Read what is there; True if a watched directory changed."""

    def close(self) -> None:
        """Stop watching."""


def this_machine(home_root: str) -> Machine:
    """What identifies this machine to user records (machine-id(5), hostname(5))."""
    machine_id = Path("/etc/machine-id").read_text(encoding="ascii").strip()
    return Machine(machine_id, socket.gethostname() or None, home_root)


async def serve(
    control: socket.socket,
    config: Config,
    is_mounted: Callable[[str], bool],
    watch: Callable[[list[str]], Watch],
    measure: Measure,
    listen: Callable[[], plugging.Devices | None],
) -> int:
    """Run the service until SIGTERM or the loss of the bus; gives the exit code."""
    stopping, hung_up = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, hung_up.set)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    runner = JobRunner(control)
    rules = await asyncio.to_thread(load_rules, os.environ)
    choices = Choices(config.choice_directory)
    extensions = Extensions(rules, choices, runner, config.runtime_directory)
    services = Services(
        config=config,
        store=Store(config.record_directory, config.blob_root, config.stamp_directory),
        runner=runner,
        keys=await asyncio.to_thread(keys.load, config.key_directories, config.record_directory),
        machine=this_machine(config.home_root),
        extensions=extensions,
        is_mounted=is_mounted,
    )
    manager = Manager(services)
    async with AsyncExitStack() as stack:
        stack.callback(runner.close)
        connection = await Connection.open()
        stack.push_async_callback(connection.close)
        await _require_no_other(connection)
        services.freezer = Freezer(Systemd(connection) if config.freezes_sessions else None)
        await manager.start()
        stack.push_async_callback(manager.stop)
        dispatcher, faces = open_faces(connection, manager, measure)
        stack.callback(faces.figures.close)
        await _open_database(manager, faces, stack)
        _discover_on_change(manager, watch, stack)
        # When all can be answered: clients wait for the names.
        await connection.request_name(homemgr1.NAME)
        await connection.request_name(BUS_NAME)
        guard = SleepGuard(Logind(connection), lambda: locking.lock_all(manager.registry))
        stack.push_async_callback(guard.stop)
        await guard.start()
        notify.notify(READY="1", STATUS=f"{len(manager.registry)} home areas known.")
        reloading = loop.create_task(_reload_on_hangup(extensions, hung_up))
        stack.callback(reloading.cancel)
        # Only now: nobody waits for it.
        plugged = loop.create_task(plugging.follow(manager, listen))
        stack.callback(plugged.cancel)
        pruning = loop.create_task(snapshots.prune_daily(manager))
        stack.callback(pruning.cancel)
        lost = await _until_the_end(connection, _end_of(control, stack), stopping)
        notify.notify(STOPPING="1")
        if not lost:
            await _finish(manager, dispatcher, runner)
        return 1 if lost else 0


async def _require_no_other(connection: Connection) -> None:
    """Raise HomeError if a service runs already: two would clean up after each other."""
    target = (messages.BUS_NAME, messages.BUS_PATH, messages.BUS_NAME)
    (is_owned,) = await connection.call(*target, "NameHasOwner", "s", (BUS_NAME,))
    if is_owned:
        raise errors.HomeError(
            f"The bus name {BUS_NAME} belongs to another process; stop that service first."
        )


def _end_of(control: socket.socket, stack: AsyncExitStack) -> asyncio.Event:
    """An event that is set when the job server is gone: it never says anything else."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def readable() -> None:
        loop.remove_reader(control)
        ended.set()

    loop.add_reader(control, readable)
    stack.callback(loop.remove_reader, control)
    return ended


def open_faces(
    connection: Connection, manager: Manager, measure: Measure
) -> tuple[Dispatcher, Faces]:
    """Answer what ``connection`` asks about the homes of ``manager`` from now on."""
    answers = Answers(manager.registry)
    listing = Listing(manager.registry)
    auto_logins = AutoLogins(manager.registry)
    jobs = Jobs(connection, manager.activities)
    uploads = Uploads(manager.services.runner)
    authority = Authority(Polkit(connection))
    figures = Figures(measure, answers.forget)
    faces = Faces(manager, authority, answers, listing, auto_logins, uploads, jobs, figures)
    extensions = manager.services.extensions
    dispatcher = Dispatcher(Tree(faces, homemgr1.ExtensionFace(faces, extensions)))
    homemgr1.announce(connection, extensions)
    connection.serve(dispatcher)
    Announcer(connection, faces)
    return dispatcher, faces


async def _open_database(manager: Manager, faces: Faces, stack: AsyncExitStack) -> None:
    database = userdb.UserDatabase(manager.registry, faces.answers)
    varlink = VarlinkServer({userdb.INTERFACE: userdb.DESCRIPTION}, database.handle)
    socket_path = Path(manager.services.config.userdb_socket)
    socket_path.parent.mkdir(0o755, parents=True, exist_ok=True)
    await varlink.listen(str(socket_path))
    stack.push_async_callback(varlink.close)
    warming = asyncio.create_task(_warm(faces.answers, faces.listing))
    stack.callback(warming.cancel)


async def _warm(answers: Answers, listing: Listing) -> None:
    """Encode what will be asked for, so that no first caller waits for thousands of homes."""
    await listing.warm()
    await answers.warm()


def _discover_on_change(
    manager: Manager, watch: Callable[[list[str]], Watch], stack: AsyncExitStack
) -> None:
    """Look for homes again whenever a directory changed that may hold them.

    Where the machine has no watch left nobody stays without home for that: only homes that are
    put there by hand are not found before the next start.
    """
    loop = asyncio.get_running_loop()
    config = manager.services.config
    try:
        changes = watch([config.home_root, config.base_directory])
    except OSError as error:
        log.warning(
            "Cannot watch for homes: %s. Those that are put in place by hand are found when the"
            " service is started again; fs.inotify.max_user_instances says how many watches"
            " root may have.",
            os.strerror(error.errno or 0),
        )
        return
    pending: set[asyncio.Task[None]] = set()

    async def discover() -> None:
        await asyncio.sleep(_DISCOVERY_DELAY_S)
        # Before the search: what changes while that runs asks for another one.
        pending.clear()
        await manager.discover()

    def changed() -> None:
        if changes.drain() and not pending:
            pending.add(loop.create_task(discover()))

    loop.add_reader(changes.fileno(), changed)
    stack.callback(changes.close)
    stack.callback(loop.remove_reader, changes.fileno())


async def _reload_on_hangup(extensions: Extensions, hung_up: asyncio.Event) -> None:
    """Read extensions.conf again after each SIGHUP, which `systemctl reload` sends."""
    while True:
        await hung_up.wait()
        hung_up.clear()
        notify.notify(RELOADING="1", MONOTONIC_USEC=str(time.monotonic_ns() // 1000))
        try:
            await extensions.reload(os.environ)
            log.info("The rules for extensions were read again.")
        except (errors.HomeError, OSError) as error:
            log.error("The rules for extensions stay as they were: %s", error)
        notify.notify(READY="1")


async def _until_the_end(
    connection: Connection, jobs_ended: asyncio.Event, stopping: asyncio.Event
) -> bool:
    """Wait; True if we lost what we cannot do without, False if we were asked to stop."""
    ends = {
        asyncio.create_task(connection.wait_closed()): "The connection to the bus is lost.",
        asyncio.create_task(jobs_ended.wait()): "The job server has died.",
        asyncio.create_task(stopping.wait()): "",
    }
    keep_alive = asyncio.create_task(_ping_watchdog())
    done, waiting = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for task in (*waiting, keep_alive):
        task.cancel()
    reason = next((ends[task] for task in done if ends[task]), "")
    if reason:
        log.error("%s", reason)
    return bool(reason)


async def _ping_watchdog() -> None:
    """Tell the service manager that this loop turns (sd_watchdog_enabled(3))."""
    interval = notify.watchdog_interval_s()
    while interval is not None:
        notify.notify(WATCHDOG="1")
        await asyncio.sleep(interval / 3)


async def _finish(manager: Manager, dispatcher: Dispatcher, runner: JobRunner) -> None:
    """Let what runs come to its end, so that every caller gets an answer."""
    try:
        async with asyncio.timeout(_STOP_TIMEOUT_S):
            await manager.balance.stop()
            await manager.activities.stop()
            await dispatcher.drain()
            await runner.wait_idle()
    except TimeoutError:
        log.warning("Stopping although operations are still running.")
