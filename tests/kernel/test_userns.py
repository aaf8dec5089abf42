"""User namespaces as descriptors, and file system identities: both leave no trace."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from homemgr.kernel import process
from homemgr.kernel.identity import current_identity, filesystem_identity
from homemgr.kernel.userns import create_userns

if TYPE_CHECKING:
    from pathlib import Path

MAP = "65534 60001 1\n"


def effective_capabilities() -> str:
    with open("/proc/thread-self/status", encoding="ascii") as file:
        return next(line for line in file if line.startswith("CapEff:"))


def test_namespace_is_one_of_its_own() -> None:
    with create_userns(MAP, MAP) as one, create_userns(MAP, MAP) as two:
        links = {os.readlink(f"/proc/self/fd/{fd.fileno()}") for fd in (one, two)}
    assert len(links) == 2
    assert all(link.startswith("user:[") for link in links)
    assert os.readlink("/proc/self/ns/user") not in links


def test_bad_map_is_an_error_and_leaves_no_child() -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        create_userns("0 0 1\n0 0 1\n", MAP)


def test_child_is_nobodys_business() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGCHLD, lambda number, _frame: heard.append(number))
    try:
        create_userns(MAP, MAP).close()
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert heard == []


def test_namespaces_from_many_threads_while_identities_change() -> None:
    """The dumpable flag is shared by all threads; both sides need it or clear it."""

    def both(_number: int) -> None:
        create_userns(MAP, MAP).close()
        with filesystem_identity(65534, 65534):
            create_userns(MAP, MAP).close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(both, range(100)))


def test_dumpable_flag_is_put_back() -> None:
    for wanted in (False, True):
        process.set_dumpable(dumpable=wanted)
        create_userns(MAP, MAP).close()
        assert process.is_dumpable() is wanted


def test_files_belong_to_the_identity_from_the_first_byte(base_path: Path) -> None:
    with filesystem_identity(65534, 65533):
        (base_path / "file").touch()
        (base_path / "directory").mkdir()
        os.symlink("file", base_path / "link")
    for name in ("file", "directory", "link"):
        found = (base_path / name).lstat()
        assert (found.st_uid, found.st_gid) == (65534, 65533)


@pytest.fixture
def base_path(area: Path) -> Path:
    """Closed to everybody, so that the identity needs the capabilities it keeps."""
    area.chmod(0o700)
    return area


def test_identity_and_capabilities_are_those_of_before() -> None:
    capabilities = effective_capabilities()
    bits = process.prctl(process.PR_GET_SECUREBITS)
    with filesystem_identity(65534, 65534):
        assert effective_capabilities() == capabilities
        assert current_identity() == (65534, 65534)
    with pytest.raises(FileNotFoundError), filesystem_identity(65534, 65534):
        os.stat("/missing")
    assert current_identity() == (0, 0)
    assert effective_capabilities() == capabilities
    assert process.prctl(process.PR_GET_SECUREBITS) == bits


def test_identity_is_the_threads_own() -> None:
    seen: list[tuple[int, int]] = []
    with filesystem_identity(65534, 65534):
        other = threading.Thread(target=lambda: seen.append(current_identity()))
        # A thread inherits from its maker, so make it do its own change and see ours unharmed.
        other.start()
        other.join()
        with filesystem_identity(1000, 1000):
            assert current_identity() == (1000, 1000)
        assert current_identity() == (65534, 65534)
    assert seen == [(65534, 65534)]
