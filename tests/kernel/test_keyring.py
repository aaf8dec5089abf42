"""Keys that the kernel keeps for a session: found by its processes, read by nobody."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from homemgr.files import Fd
from homemgr.kernel import device_mapper, keyring
from homemgr.storage import luks_devices

if TYPE_CHECKING:
    from homemgr.volume.luks import Volume

RING, NAME = "homemgr:test", f"homemgr-test:{os.getpid()}"


def holds_in_child(check: Callable[[], bool]) -> bool:
    """Whether it is so in a process that is forked now."""
    child = os.fork()
    if not child:
        status = 1
        try:
            status = not check()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def kept() -> list[str]:
    """The kinds of keys of our name that there are."""
    lines = Path("/proc/keys").read_text(encoding="ascii", errors="replace").splitlines()
    return [line.split()[7] for line in lines if f" {NAME}: " in line]


def is_kept(*kinds: str) -> bool:
    """Whether that is all in the end: the kernel clears away in its own time what is dropped."""
    deadline = time.monotonic() + 5
    while kept() != [*kinds] and time.monotonic() < deadline:
        time.sleep(0.01)
    return kept() == [*kinds]


def drop_and_see() -> bool:
    keyring.drop(RING)
    return is_kept() and not keyring.has(RING)


def share_a_session() -> bool:
    keyring.begin()
    assert not keyring.has(RING)
    for _ in range(2):
        keyring.keep(RING, NAME, bytearray(b"k" * 32))
    # As a worker finds what another one kept, and takes it away.
    assert holds_in_child(lambda: keyring.has(RING) and is_kept("logon"))
    assert holds_in_child(drop_and_see)
    assert not keyring.has(RING)
    keyring.drop(RING)
    keyring.keep(RING, NAME, bytearray(b"k" * 32))
    return holds_in_child(in_another_session)


def in_another_session() -> bool:
    keyring.begin()
    return not keyring.has(RING)


def test_a_key_is_there_for_the_processes_of_a_session_alone() -> None:
    assert holds_in_child(share_a_session)
    assert not keyring.has(RING)


class Library:
    """Makes no device; leaves the key of one where libcryptsetup does."""

    def activate(self, _name: str, key: bytearray, *, discards: bool) -> None:
        keyring._add("logon", NAME, key, keyring._THREAD)
        assert is_kept("logon")
        assert discards

    def deactivate(self, _name: str, *, once_unused: bool) -> None:
        assert once_unused


def test_the_key_of_a_device_does_not_stay_with_who_made_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nothing(*_: object) -> Fd:
        return Fd.open("/dev/null", os.O_RDWR)

    monkeypatch.setattr(luks_devices, "control", nothing)
    monkeypatch.setattr(luks_devices, "open_device", nothing)
    monkeypatch.setattr(device_mapper, "alone", nothing)

    def is_gone() -> bool:
        key = bytearray(b"k" * 32)
        library = cast("Volume", Library())
        luks_devices.activate(library, "home-test", key, discards=True).close()
        return is_kept()

    assert holds_in_child(is_gone)
