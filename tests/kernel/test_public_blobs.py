"""Public files of a user are replaced as a whole, wherever it is interrupted."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.storage import public_blobs
from tests.kernel.jobs import KilledError, Worker


def publish(root: Path, contents: dict[str, bytes]) -> None:
    with ExitStack() as stack:
        numbers = {}
        for name, content in contents.items():
            source = stack.enter_context(Fd(os.memfd_create(name)))
            os.write(source.fileno(), content)
            numbers[name] = source.fileno()
        public_blobs.publish(
            stack.enter_context(Fd.open(str(root), DIRECTORY_FLAGS)), "alice", numbers
        )


def shown(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / "alice").iterdir()}


def test_what_was_there_is_replaced(tmp_path: Path) -> None:
    for contents in ({"avatar": b"old", "back": b"x"}, {"avatar": b"new"}, {}):
        publish(tmp_path, contents)
        assert shown(tmp_path) == contents
        assert os.listdir(tmp_path) == ["alice"]
    publish(tmp_path, {"avatar": b"x"})
    assert (tmp_path / "alice").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "alice" / "avatar").stat().st_mode & 0o7777 == 0o644


def test_killed_at_any_step_it_shows_all_old_or_all_new_files(area: Path, tmp_path: Path) -> None:
    alice, root = Worker(area), area / "blobs"
    root.mkdir()
    arguments = {"user": "alice", "blob_root": str(root), "names": []}
    old = {"avatar": b"old", "back": b"older"}
    publish(root, old)
    steps = alice.steps(tmp_path / "trace", "publish", **arguments)
    assert "renameat2" in {step.name for step in steps}
    seen = []
    for step in steps:
        publish(root, old)
        with pytest.raises(KilledError):
            alice.run_killed(step, "publish", **arguments)
        seen.append(shown(root))
        alice.run("sweep", directories=[], blob_root=str(root))
        assert seen[-1] == shown(root)
        assert os.listdir(root) == ["alice"]
    assert all(one in ({}, old) for one in seen)
    assert {} in seen
    assert old in seen
