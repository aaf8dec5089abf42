"""Descriptors have one owner; files are written whole and read with a limit."""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import stat
from typing import TYPE_CHECKING

import pytest

from homemgr.files import (
    DIRECTORY_FLAGS,
    Fd,
    forget_unfinished,
    read_bounded,
    write_atomically,
)

if TYPE_CHECKING:
    from pathlib import Path


def pipe_end() -> Fd:
    read_end, write_end = os.pipe()
    os.close(write_end)
    return Fd(read_end)


def is_closed(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError as error:
        return error.errno == errno.EBADF
    return False


def test_fd_closes_at_the_end_of_its_block() -> None:
    with pipe_end() as fd:
        number = fd.fileno()
        assert not is_closed(number)
    assert is_closed(number)
    assert not fd.is_open


def test_closing_twice_does_not_close_a_stranger() -> None:
    fd = pipe_end()
    number = fd.fileno()
    fd.close()
    with pipe_end() as stranger:
        assert stranger.fileno() == number
        fd.close()
        assert not is_closed(number)


def test_take_moves_the_duty_to_close() -> None:
    with pipe_end() as fd:
        number = fd.take()
    assert not is_closed(number)
    os.close(number)
    with pytest.raises(ValueError, match="handed on"):
        fd.fileno()


def test_fd_is_close_on_exec_even_if_it_was_not() -> None:
    read_end, write_end = os.pipe()
    os.close(write_end)
    fcntl.fcntl(read_end, fcntl.F_SETFD, 0)
    with Fd(read_end) as fd:
        assert fcntl.fcntl(fd.fileno(), fcntl.F_GETFD) & fcntl.FD_CLOEXEC


def test_duplicate_lives_on_its_own() -> None:
    with pipe_end() as fd, fd.duplicate() as other:
        fd.close()
        assert not is_closed(other.fileno())


def test_bad_number_is_refused_without_an_owner() -> None:
    with pytest.raises(OSError, match="Bad file"):
        Fd(12345)
    gc.collect()


def test_forgotten_fd_is_closed_with_a_warning() -> None:
    fd = pipe_end()
    number = fd.fileno()
    with pytest.warns(ResourceWarning, match="never closed"):
        del fd
    assert is_closed(number)


def test_write_gives_content_and_mode_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_atomically(str(tmp_path), "key", b"value", 0o644)
    finally:
        os.umask(before)
    assert (tmp_path / "key").read_bytes() == b"value"
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o644


def test_write_replaces_a_link_instead_of_following_it(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"untouched")
    (tmp_path / "key").symlink_to("victim")
    with Fd(os.open(tmp_path, DIRECTORY_FLAGS)) as directory:
        write_atomically(directory, "key", b"new", 0o600)
    assert (tmp_path / "victim").read_bytes() == b"untouched"
    assert not (tmp_path / "key").is_symlink()
    assert (tmp_path / "key").read_bytes() == b"new"


def test_failed_write_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "key").mkdir()
    with pytest.raises(IsADirectoryError):
        write_atomically(str(tmp_path), "key", b"new", 0o600)
    assert os.listdir(tmp_path) == ["key"]


def test_write_does_not_enter_a_linked_directory(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(NotADirectoryError):
        write_atomically(str(tmp_path / "link"), "key", b"", 0o600)


def test_read_takes_exactly_the_limit_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    assert read_bounded(str(tmp_path), "file", 100_000) == b"x" * 100_000
    with pytest.raises(OSError, match="larger than") as caught:
        read_bounded(str(tmp_path), "file", 99_999)
    assert caught.value.errno == errno.EFBIG


def test_read_refuses_what_is_not_a_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "dir").mkdir()
    (tmp_path / "link").symlink_to("dir")
    for name, number in (("fifo", errno.EBADF), ("dir", errno.EBADF), ("link", errno.ELOOP)):
        with pytest.raises(OSError) as caught:
            read_bounded(str(tmp_path), name, 10)
        assert caught.value.errno == number


def test_what_a_power_cut_left_unfinished_is_deleted_and_nothing_else(tmp_path: Path) -> None:
    digits = "0123456789abcdef"
    others = {"record", ".#record", f"record{digits}", f".#{digits}", f".#record{digits[:-1]}g"}
    for name in (*others, f".#record{digits}"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / f".#directory{digits}").mkdir()
    forget_unfinished(str(tmp_path), "other")
    assert len(os.listdir(tmp_path)) == len(others) + 2
    forget_unfinished(str(tmp_path), "other", "record")
    assert set(os.listdir(tmp_path)) == {*others, f".#directory{digits}"}
    (tmp_path / f".#other{digits}").write_bytes(b"x")
    forget_unfinished(str(tmp_path))
    assert set(os.listdir(tmp_path)) == {*others, f".#directory{digits}"}
    forget_unfinished(str(tmp_path / "none"))
