"""What clients may ask of a snapshot: JSON objects, checked member by member."""

from __future__ import annotations

import os
from typing import NamedTuple

from homemgr import errors
from homemgr.daemon.transfer_options import Given
from homemgr.record.snapshots import check_name, check_reason

#: Paths of one restore.
_MOST_PATHS = 1000
#: The last id is "no change", and nobody's owner is no backup tool.
_LARGEST_ID = 0xFFFFFFFE


class CreateOptions(NamedTuple):
    """Of CreateSnapshot."""

    #: Empty: made of the time.
    name: str
    reason: str
    #: Also where it shares nothing with the home.
    full_copy: bool


class RestoreOptions(NamedTuple):
    """Of RestoreSnapshot."""

    name: str
    #: Relative to the home; none: the home as a whole.
    paths: tuple[str, ...]
    #: Replace files that are there.
    force: bool


class MountOptions(NamedTuple):
    """Of MountSnapshot."""

    path: str
    uid: int
    gid: int


def to_create(text: str) -> CreateOptions:
    """Options of CreateSnapshot; raises InvalidArgs."""
    given = Given(text, "name", "reason", "full_copy")
    name = given.text("name")
    if name:
        check_name(name)
    return CreateOptions(name, check_reason(given.text("reason")), given.flag("full_copy"))


def to_restore(name: str, text: str) -> RestoreOptions:
    """Options of RestoreSnapshot; raises InvalidArgs."""
    given = Given(text, "paths", "force")
    paths = given.texts("paths", _MOST_PATHS)
    for path in paths:
        _check_path(path)
    return RestoreOptions(check_name(name), paths, given.flag("force"))


def to_mount(text: str) -> MountOptions:
    """Options of MountSnapshot; raises InvalidArgs."""
    given = Given(text, "path", "uid", "gid")
    uid = given.number("uid", _LARGEST_ID)
    if uid is None:
        raise errors.InvalidArgs("options: expected a uid that the files are to be seen under.")
    gid = given.number("gid", _LARGEST_ID)
    return MountOptions(given.text("path"), uid, uid if gid is None else gid)


def _check_path(path: str) -> None:
    try:
        names = os.fsencode(path).split(b"/")
    except UnicodeEncodeError as error:
        raise errors.InvalidArgs("options: a path is no file name.") from error
    if any(name in (b"", b".", b"..") or b"\0" in name for name in names):
        raise errors.InvalidArgs(
            f"options: {path!r} is no path below the home: expected names joined by /, without"
            " '.' and '..'."
        )
