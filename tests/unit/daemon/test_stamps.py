"""Records as they were last: durable, and no obstacle if they cannot be read or written."""

from __future__ import annotations

from pathlib import Path

import pytest

from homemgr.daemon.stamps import Kept, Stamps
from homemgr.record.model import UserRecord


def alice(stamp: int) -> UserRecord:
    return UserRecord({"userName": "alice", "lastChangeUSec": stamp})


def found(stamps: Stamps) -> tuple[int, object]:
    """The time, and what is kept of the record."""
    stamp, record = stamps.read("alice")
    return stamp, record.data if record else None


def kept(stamp: int) -> tuple[int, object]:
    return stamp, alice(stamp).data


def test_what_is_of_this_machine_alone_is_not_kept(tmp_path: Path) -> None:
    here = alice(1).with_binding("0" * 32, {"uid": 60001})
    Stamps(str(tmp_path)).note("alice", here)
    assert found(Stamps(str(tmp_path))) == kept(1)


def test_a_time_without_a_record_is_known_and_completed(tmp_path: Path) -> None:
    (tmp_path / "alice").write_text("5\n")
    stamps = Stamps(str(tmp_path))
    assert stamps.read("alice") == Kept(5, None)
    stamps.note("alice", alice(5))
    assert found(stamps) == kept(5)


def test_what_was_noted_is_read_by_the_next(tmp_path: Path) -> None:
    directory = str(tmp_path / "stamps")
    stamps = Stamps(directory)
    assert stamps.read("alice") == Kept()
    stamps.forget("alice")
    stamps.prepare()
    stamps.note("alice", alice(2**63))
    assert found(Stamps(directory)) == kept(2**63)
    # As the host copy says, also if that was made an older one on purpose.
    stamps.note("alice", alice(7))
    assert found(Stamps(directory)) == kept(7)
    stamps.forget("alice")
    assert stamps.read("alice") == Kept()
    stamps.note("alice", alice(7))
    assert found(stamps) == kept(7)


def test_what_did_not_change_is_not_written_again(tmp_path: Path) -> None:
    Stamps(str(tmp_path)).note("alice", alice(1))
    written = (tmp_path / "alice").stat()
    stamps = Stamps(str(tmp_path))
    for _ in range(2):
        stamps.note("alice", alice(1))
        assert (tmp_path / "alice").stat() == written
    stamps.note("alice", alice(2))
    assert found(stamps) == kept(2)


@pytest.mark.parametrize("text", [b"", b"soon", b"1" * 100, b"\xff\n"])
def test_what_cannot_be_read_says_nothing(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "alice").write_bytes(text)
    assert Stamps(str(tmp_path)).read("alice") == Kept()


def test_what_cannot_be_written_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "stamps"
    blocked.write_text("a file in the place of the directory")
    stamps = Stamps(str(blocked))
    stamps.note("alice", alice(3))
    assert "stamps/alice" in caplog.text
    blocked.unlink()
    stamps.prepare()
    stamps.note("alice", alice(3))
    assert found(stamps) == kept(3)
