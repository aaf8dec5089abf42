"""Verb create: make the files of a new home area, all of them nobody's from the first byte."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.record import password, storages
from homemgr.storage import mountpoint, paths, snapshot_shelf, staging
from homemgr.storage.kind import Content
from homemgr.storage.kinds import storage_named
from homemgr.storage.top import require_mapping

if TYPE_CHECKING:
    from homemgr.files import Fd
    from homemgr.storage.kind import Storage, Words
    from homemgr.work.task import Task


def run(task: Task) -> dict[str, object]:
    """Build the home beside its final place and rename it there as the last step."""
    effective = task.effective
    if "" in task.secret.passwords:
        raise errors.InvalidArgs("secret: an empty password protects nothing.")
    words = _passwords(task)
    mountpoint.require_unused(effective.home_directory)
    storage = storage_named(task.text("storage"))
    is_remote = storages.abilities_of(task.text("storage")).is_remote
    if is_remote:
        with paths.open_safe_parent(effective.home_directory) as parent:
            storage.create(task.image, parent, "", _content(task), task.words(words))
    else:
        _create_here(task, storage, task.words(words))
    return {
        "binding": {
            "imagePath": None if is_remote else task.image_path,
            **storages.members(task.text("storage")),
            "homeDirectory": effective.home_directory,
            **storage.binding(task.image),
        }
    }


def _create_here(task: Task, storage: Storage, words: Words) -> None:
    image_path = task.image_path
    storages.check_path(task.text("storage"), image_path)
    base_directory, file_name = os.path.split(image_path)
    if base_directory == task.text("base_directory"):
        paths.ensure_base(base_directory)
    # A file lets nobody in, wherever it lies; a tree has to be out of reach.
    with paths.open_safe_parent(image_path, for_new=not storage.image_is_file) as base:
        if not storage.image_is_file and not task.argument("is_elsewhere"):
            # Nobody could ever log in.
            require_mapping(base)
        try:
            with ExitStack() as on_failure:
                if not staging.is_there(base, file_name):
                    _set_snapshots_aside(base, task.record.name, on_failure)
                storage.create(task.image, base, file_name, _content(task), words)
                on_failure.pop_all()
        except FileExistsError as error:
            raise errors.PathExists(
                f"{image_path} exists already; nothing was changed. "
                "Remove it or choose another image path."
            ) from error


def _set_snapshots_aside(base: Fd, user: str, on_failure: ExitStack) -> None:
    """What is left of somebody who had the name before, if his home was deleted by hand."""
    aside = snapshot_shelf.set_aside(base, user)
    if aside:
        on_failure.callback(snapshot_shelf.take_back, base, user, aside)


def _passwords(task: Task) -> tuple[str, ...]:
    """All that shall unlock the home; none if its hashes count as they are (``by_hash``)."""
    if task.argument("by_hash"):
        storage = task.text("storage")
        if storages.abilities_of(storage).has_key:
            raise errors.NotSupported(
                f"A home with storage {storage} has a key that only the password itself can lock:"
                " a hash of it is not enough to create one."
            )
        return ()
    # Each hash gets its plaintext checked: a typo at creation would lock the user out.
    secret = task.complete(task.secret, task.record)
    return password.require_all(task.effective, secret, task.verify)


def _content(task: Task) -> Content:
    effective = task.effective
    return Content(
        effective.access_mode,
        effective.skeleton_directory,
        task.record.embedded().pretty(),
        dict(zip(task.texts("blobs"), (fd.fileno() for fd in task.fds), strict=True)),
    )
