"""When records were changed last: durable, and no obstacle if it cannot be read or written."""

from __future__ import annotations

from pathlib import Path

import pytest

from homemgr.daemon.stamps import Stamps


def test_what_was_noted_is_read_by_the_next(tmp_path: Path) -> None:
    directory = str(tmp_path / "stamps")
    stamps = Stamps(directory)
    assert stamps.read("alice") == 0
    stamps.forget("alice")
    stamps.prepare()
    stamps.note("alice", 2**63)
    assert Stamps(directory).read("alice") == 2**63
    # As the host copy says, also if that was made an older one on purpose.
    stamps.note("alice", 7)
    assert Stamps(directory).read("alice") == 7
    stamps.forget("alice")
    assert stamps.read("alice") == 0
    stamps.note("alice", 7)
    assert stamps.read("alice") == 7


def test_what_did_not_change_is_not_written_again(tmp_path: Path) -> None:
    Stamps(str(tmp_path)).note("alice", 1)
    written = (tmp_path / "alice").stat()
    stamps = Stamps(str(tmp_path))
    for _ in range(2):
        stamps.note("alice", 1)
        assert (tmp_path / "alice").stat() == written
    stamps.note("alice", 2)
    assert stamps.read("alice") == 2


@pytest.mark.parametrize("text", [b"", b"soon", b"1" * 100, b"\xff\n"])
def test_what_cannot_be_read_says_nothing(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "alice").write_bytes(text)
    assert Stamps(str(tmp_path)).read("alice") == 0


def test_what_cannot_be_written_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "stamps"
    blocked.write_text("a file in the place of the directory")
    stamps = Stamps(str(blocked))
    stamps.note("alice", 3)
    assert "stamps/alice" in caplog.text
    blocked.unlink()
    stamps.prepare()
    stamps.note("alice", 3)
    assert stamps.read("alice") == 3
