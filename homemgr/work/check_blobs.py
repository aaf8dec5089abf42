"""The files that go with a record, looked at: are they what its manifest says, in both places?"""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.storage import blobs, public_blobs
from homemgr.storage.guarded import open_guarded
from homemgr.work import blob_copies
from homemgr.work.trouble import Trouble

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from homemgr.storage.top import Top
    from homemgr.work.task import Task


def troubles(task: Task, top: Top) -> Iterator[Trouble]:
    """What is wrong with them; of a home that is not known here nothing can be told."""
    if not task.is_fixated:
        return
    manifest = task.effective.blob_manifest or {}
    subject = os.path.join(task.text("blob_root"), task.record.name)
    with ExitStack() as closing:
        public = blob_copies.of_machine(subject, manifest, closing)
        if public is None:
            yield Trouble("blobs-missing", subject, "", lambda: os.makedirs(subject, 0o755))
            public = {}
        inside = blob_copies.in_home(top, manifest, closing)
        yield from _compare(task, top, subject, manifest, public, inside)


def _compare(
    task: Task,
    top: Top,
    subject: str,
    manifest: Mapping[str, str],
    public: Mapping[str, Fd],
    inside: Mapping[str, Fd],
) -> Iterator[Trouble]:
    lacking = sorted(manifest.keys() - public.keys())
    if lacking:
        has_all = manifest.keys() <= inside.keys()
        mend = (lambda: _publish(task, subject, inside)) if has_all else None
        yield Trouble("blobs-public", subject, f"{', '.join(lacking)}.", mend)
    lacking = sorted(manifest.keys() - inside.keys())
    if lacking:
        # What lies there could be lost if only some of them are wrong.
        may_write = manifest.keys() <= public.keys() and not _has_any(top)
        numbers = {name: fd.fileno() for name, fd in public.items()}
        write = (lambda: blobs.write_blobs(top, numbers)) if may_write else None
        where = os.path.join(task.image_path, blobs.BLOBS)
        yield Trouble("blobs-inside", where, f"{', '.join(lacking)}.", write)


def _has_any(top: Top) -> bool:
    try:
        os.stat(blobs.BLOBS, dir_fd=top.fd.fileno(), follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _publish(task: Task, subject: str, inside: Mapping[str, Fd]) -> None:
    """Publish what the home has, beside what else there is: a picture set later, perhaps."""
    with ExitStack() as closing:
        numbers = {}
        with Fd.open(subject, DIRECTORY_FLAGS) as directory:
            for name in os.listdir(directory.fileno()):
                with suppress(errors.HostileHome):
                    fd = closing.enter_context(open_guarded(directory, name, 0))
                    numbers[name] = fd.fileno()
        numbers |= {name: fd.fileno() for name, fd in inside.items()}
        with Fd.open(task.text("blob_root"), DIRECTORY_FLAGS) as root:
            public_blobs.publish(root, task.record.name, numbers)
