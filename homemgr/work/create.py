"""Verb create: make the files of a new home area, all of them nobody's from the first byte."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.record import password
from homemgr.record.storages import abilities_of
from homemgr.storage import mountpoint, paths
from homemgr.storage.kind import Content
from homemgr.storage.kinds import storage_named

if TYPE_CHECKING:
    from homemgr.work.task import Task


def run(task: Task) -> dict[str, object]:
    """Build the home beside its final place and rename it there as the last step."""
    effective = task.effective
    if "" in task.secret.passwords:
        raise errors.InvalidArgs("secret: an empty password protects nothing.")
    words = _passwords(task)
    mountpoint.require_unused(effective.home_directory)
    image_path = task.image_path
    base_directory, file_name = os.path.split(image_path)
    if base_directory == task.text("base_directory"):
        paths.ensure_base(base_directory)
    with paths.open_safe_parent(image_path, for_new=True) as base:
        try:
            storage = storage_named(task.text("storage"))
            storage.create(task.image, base, file_name, _content(task), task.words(words))
        except FileExistsError as error:
            raise errors.PathExists(
                f"{image_path} exists already; nothing was changed. "
                "Remove it or choose another image path."
            ) from error
    return {
        "binding": {
            "imagePath": image_path,
            "storage": task.text("storage"),
            "homeDirectory": effective.home_directory,
            **storage.binding(task.image),
        }
    }


def _passwords(task: Task) -> tuple[str, ...]:
    """All that shall unlock the home; none if its hashes count as they are (``by_hash``)."""
    if task.argument("by_hash"):
        storage = task.text("storage")
        if abilities_of(storage).has_key:
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
