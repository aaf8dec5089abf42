"""The home's own file about extensions: what the user deleted or replaced of their files.

`.homemgr/extensions.json`, version 1: for each merged directory the paths `deleted` and
`opaque` (the user's directory instead of the extension's). It is its owner's: read as
hostile, and nothing in it is believed that could lead out of the home.
"""

from __future__ import annotations

import errno
import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from homemgr.errors import HostileHome, InvalidArgs, from_os_error
from homemgr.extension import visit
from homemgr.extension.home_side import OURS, check_path, ensure_directory, open_directory
from homemgr.extension.stack import Owner
from homemgr.files import read_bounded, write_atomically
from homemgr.kernel.identity import filesystem_identity

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from homemgr.files import Fd

NAME = "extensions.json"

_VERSION = 1

#: Largest file, and most paths: ten thousand deleted files are somebody's mistake.
_LIMIT = 4 << 20
_MOST_PATHS = 10_000
_MOST_HIERARCHIES = 256


class Remembered(NamedTuple):
    """What is remembered of one merged directory; paths are relative to it."""

    deleted: frozenset[str] = frozenset()
    opaque: frozenset[str] = frozenset()

    @property
    def hidden(self) -> frozenset[str]:
        """Every path of which nothing of an extension is to be seen."""
        return self.deleted | self.opaque


NOTHING = Remembered()


def read(home: Fd) -> dict[str, Remembered]:
    """What is remembered, by merged directory; `HostileHome` if the file is not in order."""
    directory = open_directory(home, OURS)
    if directory is None:
        return {}
    with directory:
        try:
            raw = read_bounded(directory, NAME, _LIMIT)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise _damaged(os.strerror(error.errno or errno.EIO)) from error
    return parse(raw)


def parse(raw: bytes) -> dict[str, Remembered]:
    """The content of the file; `HostileHome` says what is wrong with it."""
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _damaged("not JSON") from error
    if not isinstance(content, dict) or content.get("version") != _VERSION:
        raise _damaged(f"expected an object of version {_VERSION}")
    hierarchies = content.get("hierarchies")
    if not isinstance(hierarchies, dict) or len(hierarchies) > _MOST_HIERARCHIES:
        raise _damaged("expected merged directories by path")
    return {_path(path): _remembered(entry) for path, entry in hierarchies.items()}


def _remembered(entry: object) -> Remembered:
    if not isinstance(entry, dict):
        raise _damaged("expected lists of paths")
    return Remembered(_paths(entry.get("deleted", [])), _paths(entry.get("opaque", [])))


def _paths(values: object) -> frozenset[str]:
    if not isinstance(values, list) or len(values) > _MOST_PATHS:
        raise _damaged(f"expected a list of at most {_MOST_PATHS} paths")
    return frozenset(_path(value) for value in values)


def _path(value: object) -> str:
    try:
        if isinstance(value, str):
            return check_path(value)
    except (InvalidArgs, UnicodeError) as error:
        raise _damaged("a path leads out of its directory") from error
    raise _damaged("a path is no text")


def _damaged(problem: str) -> HostileHome:
    return HostileHome(f"~/{OURS}/{NAME} is not in order: {problem}.")


def write(home: Fd, memory: Mapping[str, Remembered]) -> None:
    """Replace what is remembered, durably and as the owner; no file if it is nothing."""
    kept = [(path, entry) for path, entry in sorted(memory.items()) if entry.hidden]
    if not kept:
        _remove(home)
        return
    text = _text(dict(kept[:_MOST_HIERARCHIES]), _MOST_PATHS)
    try:
        with ensure_directory(home, OURS, 0o700) as directory, filesystem_identity(*Owner.of(home)):
            write_atomically(directory, NAME, text.encode("ascii"), 0o600)
    except OSError as error:
        raise from_os_error(error, f"Cannot write ~/{OURS}/{NAME}") from error


def _text(memory: Mapping[str, Remembered], most: int) -> str:
    content = {
        path: {"deleted": _bounded(entry.deleted, most), "opaque": _bounded(entry.opaque, most)}
        for path, entry in memory.items()
    }
    # Names need not be text: what is no UTF-8 is written as escapes and read back the same.
    text = json.dumps({"version": _VERSION, "hierarchies": content}, indent=1)
    return text if len(text) <= _LIMIT else _text(memory, most // 2)


def _bounded(paths: Iterable[str], most: int) -> list[str]:
    # The ones nearest to the top hide most.
    chosen = sorted(paths, key=lambda path: (path.count("/"), path))[:most]
    return sorted(chosen)


def _remove(home: Fd) -> None:
    with suppress(HostileHome):
        directory = open_directory(home, OURS)
        if directory is None:
            return
        with directory, suppress(FileNotFoundError, IsADirectoryError):
            os.unlink(NAME, dir_fd=directory.fileno())
        visit.remove_empty(home.fileno(), OURS)
