"""Verb classic-survey: what would become of a classic account, and whether it can; no change."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.files import DIRECTORY_FLAGS, Fd, read_limited
from homemgr.kernel.openat2 import RESOLVE_NO_SYMLINKS, openat2
from homemgr.kernel.statx import place
from homemgr.record import account_lines, classic
from homemgr.record.names import check_new_name, image_file_name
from homemgr.storage import paths
from homemgr.storage.blobs import BLOBS
from homemgr.storage.embedded import IDENTITY, IDENTITY_NEW
from homemgr.storage.guarded import open_guarded
from homemgr.storage.owner_ledger import Ledger
from homemgr.storage.owners import Owner
from homemgr.storage.staging import tree_id
from homemgr.storage.top import require_mapping
from homemgr.transfer.report import Note
from homemgr.work import account_files
from homemgr.work.telling import Telling

if TYPE_CHECKING:
    from homemgr.record.classic import Identity
    from homemgr.work.task import Task

from homemgr.storage import owner_survey
from homemgr.work.classic import require_no_process, require_unheld

_KEYS = ".ssh", "authorized_keys"
_KEYS_LIMIT = 64 << 10


def run(task: Task) -> dict[str, object]:
    """What would become of the account ``user``, and whether it can; changes nothing."""
    user = task.text("user")
    check_new_name(user)
    texts = account_files.read(task.text("account_directory"))
    who = classic.identify(texts, user)
    excerpt = account_lines.excerpt(texts, user, who.own_group)
    converted = classic.convert(who, excerpt, task.text("home_root"))
    record = converted.record
    telling = Telling(task.channel)
    telling.phase("looking")

    def progress(files: int, size: int) -> None:
        task.channel.require_wanted()
        telling.count(files, size)

    require_no_process(user, who.uid)
    with paths.open_safe_parent(who.home) as parent, _open_home(parent, who) as top:
        require_mapping(top)
        require_unheld(top)
        image = _image_path(parent, top, who)
        keys, notes = _ssh_keys(top, who.uid)
        ledger = Ledger(task.text("directory"), f"{user}.owners")
        reserved = frozenset(name.encode() for name in (IDENTITY, IDENTITY_NEW, BLOBS))
        found = owner_survey.survey(
            top, Owner(who.uid, who.gid), ledger, progress, reserved=reserved
        )
        tree = tree_id(top)
    for kind, detail in converted.notes:
        found.report.add(Note(kind, b"", detail))
    found.report.extend(notes)
    if keys:
        privileged = record["privileged"]
        assert isinstance(privileged, dict)
        record["privileged"] = {**privileged, "sshAuthorizedKeys": [*keys]}
    return {
        "record": record,
        "state": {
            "uid": who.uid,
            "gid": who.gid,
            "home": who.home,
            "image": image,
            "tree": tree,
            "own_group": who.own_group,
            "excerpt": excerpt.to_json(),
        },
        "answer": {
            "user": user,
            "uid": who.uid,
            "home": who.home,
            "imagePath": image,
            "memberOf": record.get("memberOf", []),
            "files": found.files,
            "bytes": found.bytes,
            "exceptions": found.exceptions,
            "report": found.report.to_json(),
        },
    }


def _open_home(parent: Fd, who: Identity) -> Fd:
    """The home directory, if it is a directory that can be renamed."""
    name = os.path.basename(who.home)
    try:
        found = os.stat(name, dir_fd=parent.fileno(), follow_symlinks=False)
    except FileNotFoundError as error:
        raise errors.FileNotFound(
            f"The home directory {who.home} of {who.name} does not exist; make it first"
            f" (mkhomedir_helper {who.name})."
        ) from error
    if stat.S_ISLNK(found.st_mode):
        raise errors.NotSupported(
            f"{who.home} is a symbolic link to {os.readlink(name, dir_fd=parent.fileno())}: say"
            f" where the home directory really is (usermod -d DIRECTORY {who.name}), then convert."
        )
    if not stat.S_ISDIR(found.st_mode):
        raise errors.NotSupported(f"{who.home} is no directory.")
    if place(parent.fileno(), name).is_mount_root:
        raise errors.NotSupported(
            f"{who.home} is a file system of its own, which cannot be renamed: move the files to"
            " a directory beside it first."
        )
    return openat2(parent.fileno(), name, DIRECTORY_FLAGS, RESOLVE_NO_SYMLINKS)


def _image_path(parent: Fd, top: Fd, who: Identity) -> str:
    """Where the home area is to lie: beside the home directory, so that a rename is enough."""
    directory = os.path.join(os.path.dirname(who.home), ".homemgr")
    image = os.path.join(directory, image_file_name(who.name, None))
    with suppress(FileNotFoundError):
        base = place(parent.fileno(), ".homemgr")
        if base.is_mount_root or base.device != place(top.fileno()).device:
            raise errors.NotSupported(
                f"{directory} is on another file system than {who.home}, so nothing can be"
                " renamed to it."
            )
        if os.path.lexists(image):
            raise errors.PathExists(f"{image} exists already; remove or rename it first.")
    return image


def _ssh_keys(top: Fd, uid: int) -> tuple[list[str], list[Note]]:
    """Keys that sshd accepts for the user: inside of an inactive home it would not find them."""
    directory, name = _KEYS
    path = f"{directory}/{name}".encode()
    try:
        with (
            openat2(top.fileno(), directory, DIRECTORY_FLAGS, RESOLVE_NO_SYMLINKS) as below,
            open_guarded(below, name, uid) as fd,
        ):
            if os.fstat(fd.fileno()).st_mode & 0o022:
                return [], [Note("ssh-keys-left-inside", path, "others may write it")]
            text = read_limited(fd.fileno(), _KEYS_LIMIT, name).decode("ascii")
    except (FileNotFoundError, NotADirectoryError):
        return [], []
    except (OSError, ValueError, errors.HostileHome):
        return [], [Note("ssh-keys-left-inside", path, "not a plain file of the user")]
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")], []
