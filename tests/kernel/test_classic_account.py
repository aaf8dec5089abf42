"""The account files when a user cannot be taken out of all of them, or not be put back into all."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from homemgr import job
from homemgr.record import account_lines
from homemgr.work import account_files, classic_account
from homemgr.work.task import Task

if TYPE_CHECKING:
    from pathlib import Path

FILES = {
    "passwd": "root:x:0:0::/root:\nbob:x:61001:61001::/home/bob:\n",
    "shadow": "root:*:1::::::\nbob:$y$hash:19000::::::\n",
    "group": "bob:x:61001:\naudio:x:29:bob,alice\n",
}


def test_the_line_in_passwd_is_the_first_to_go_and_the_last_to_come_back(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    found = account_lines.excerpt(account_files.read(str(tmp_path)), "bob", "bob")
    arguments: dict[str, object] = {
        "excerpt": found.to_json(),
        "own_group": "bob",
        "account_directory": str(tmp_path),
        "only_if_gone": True,
    }
    ours, theirs = socket.socketpair()
    with ours, theirs:
        task = Task(job.Request("", arguments), [], job.Channel(theirs))
        with in_the_way(tmp_path / "shadow-"), ThreadPoolExecutor(1) as daemon:
            daemon.submit(allow, ours)
            classic_account.take_out(task)
        assert account_files.read(str(tmp_path)) == FILES | {"passwd": "root:x:0:0::/root:\n"}
        (tmp_path / "shadow-").rmdir()
        for name, text in account_lines.take_out(FILES, "bob", "bob").items():
            (tmp_path / name).write_text(text)
        (tmp_path / "passwd-").unlink()
        with in_the_way(tmp_path / "passwd-"):
            classic_account.put_back(task)
        assert account_files.read(str(tmp_path)) == FILES | {"passwd": "root:x:0:0::/root:\n"}
        (tmp_path / "passwd-").rmdir()
        classic_account.put_back(task)
        assert account_files.read(str(tmp_path)) == FILES
        # Who changes him from now on has not to fear that this is taken back.
        (tmp_path / "group").write_text("bob:x:61001:\naudio:x:29:alice\n")
        classic_account.put_back(task)
        assert "29:alice" in (tmp_path / "group").read_text()


def allow(sock: socket.socket) -> None:
    """Answer who asks whether to begin."""
    assert b'"begin"' in sock.recv(1000)
    job.Channel(sock).send({"answer": {}})


def in_the_way(path: Path) -> pytest.RaisesExc[OSError]:
    """Where a file is to be kept as it was, there is a directory: an attempt fails."""
    path.mkdir()
    return pytest.raises(IsADirectoryError)
