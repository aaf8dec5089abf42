"""The two copies of a record's blobs, in the home and public: they follow the record that counts.

As with systemd-homed, the copy of the record that wins brings its blobs along. What it names is
taken from either place, so that what one of them has lost is had again from the other.
"""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.record.reconcile import Winner
from homemgr.storage import blobs, public_blobs
from homemgr.storage.guarded import open_guarded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from homemgr.record.reconcile import Reconciled
    from homemgr.storage.top import Top
    from homemgr.work.task import Task

log = logging.getLogger(__name__)


def settle(task: Task, top: Top, settled: Reconciled) -> None:
    """Have each place that may lack some hold what the record that counts names.

    Public files are replaced as a whole if the home's record wins: homectl hands over all of them
    with an update, and what is not among them is gone. Never fails: a picture keeps nobody out.
    """
    try:
        is_half_done = blobs.is_half_done(top)
        if settled.winner is not Winner.IDENTICAL or is_half_done:
            _settle(task, top, settled, is_half_done=is_half_done)
    except (errors.HomeError, OSError) as error:
        log.warning("Blobs of home area %s stay as they are: %s", task.record.name, error)


def _settle(task: Task, top: Top, settled: Reconciled, *, is_half_done: bool) -> None:
    manifest = settled.record.on(task.machine).blob_manifest or {}
    path = os.path.join(task.text("blob_root"), task.record.name)
    with ExitStack() as closing:
        inside = in_home(top, manifest, closing)
        public = of_machine(path, manifest, closing) or {}
        every = {name: fd.fileno() for name, fd in {**public, **inside}.items()}
        is_whole = blobs.finish(top, manifest) if is_half_done else every.keys() == inside.keys()
        if not is_whole:
            blobs.write_blobs(top, every)
        if settled.winner is Winner.EMBEDDED and not _holds(path, public, every):
            with Fd.open(task.text("blob_root"), DIRECTORY_FLAGS) as root:
                public_blobs.publish(root, task.record.name, every)


def _holds(path: str, matching: Mapping[str, Fd], every: Mapping[str, int]) -> bool:
    """Whether all that is public are the files in ``every``, of which some were found there."""
    there = set(os.listdir(path)) if os.path.isdir(path) else set()
    return there == matching.keys() == every.keys()


def in_home(top: Top, manifest: Mapping[str, str], closing: ExitStack) -> dict[str, Fd]:
    """Those inside the home that are what the manifest says."""
    if not manifest:
        return {}
    try:
        found = blobs.read_blobs(top, manifest)
    except errors.HostileHome:
        return {}
    for fd in found.values():
        closing.enter_context(fd)
    return found


def of_machine(path: str, manifest: Mapping[str, str], closing: ExitStack) -> dict[str, Fd] | None:
    """The public files that are what the manifest says; None if there is no directory."""
    try:
        directory = closing.enter_context(Fd.open(path, DIRECTORY_FLAGS))
    except OSError:
        return None
    found = {}
    for name, digest in manifest.items():
        with suppress(OSError, errors.HostileHome):
            fd = closing.enter_context(open_guarded(directory, name, 0))
            if (
                os.fstat(fd.fileno()).st_size <= blobs.BLOBS_LIMIT
                and blobs.digest_of(fd.fileno()) == digest
            ):
                found[name] = fd
    return found
