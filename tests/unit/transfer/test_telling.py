"""What a worker tells of how far it is, and hears meanwhile."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from homemgr import errors, job
from homemgr.work import telling
from homemgr.work.telling import Telling


@pytest.fixture
def ends() -> Iterator[tuple[Telling, socket.socket]]:
    """A worker that tells, and the daemon's end."""
    daemon, worker = socket.socketpair()
    with daemon, worker:
        channel = job.Channel(worker)
        yield Telling(channel, channel.require_wanted), daemon


def test_who_never_waits_hears_all_the_same_that_he_is_not_wanted(
    ends: tuple[Telling, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    told, daemon = ends
    told.phase("copying")
    daemon.sendall(job.pack({"cancel": True}))
    # Asked each time it would cost more than most files do.
    monkeypatch.setattr(telling, "_INTERVAL_S", 1000.0)
    told.count(1, 1)
    monkeypatch.setattr(telling, "_INTERVAL_S", 0.0)
    with pytest.raises(errors.Cancelled):
        told.count(2, 2)


def test_what_has_to_be_done_to_its_end_is_not_called_off() -> None:
    daemon, worker = socket.socketpair()
    with daemon, worker:
        daemon.sendall(job.pack({"cancel": True}))
        Telling(job.Channel(worker)).phase("changing owners")
        assert b"changing owners" in daemon.recv(1000)


def test_who_never_waits_hears_that_the_daemon_is_gone(
    ends: tuple[Telling, socket.socket],
) -> None:
    told, daemon = ends
    daemon.close()
    with pytest.raises(EOFError):
        told.phase("copying")
