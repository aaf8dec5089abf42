"""The blobs in a home and the public ones follow the record that counts, whatever is killed."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import pytest

from homemgr.record import signature
from homemgr.record.model import UserRecord
from tests.kernel.jobs import KilledError, Worker

if TYPE_CHECKING:
    from pathlib import Path

NOBODY = 65534
BESIDE = ".identity-blob.homemgr-new"
OLD, NEW = {"avatar": b"old face", "login-background": b"forest"}, {"avatar": b"new face"}


def digests(files: dict[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def put(directory: Path, files: dict[str, bytes], owner: int) -> None:
    directory.mkdir(exist_ok=True)
    for path in directory.iterdir():
        path.unlink()
    for name, content in files.items():
        (directory / name).write_bytes(content)
    for path in (directory, *directory.iterdir()):
        os.chown(path, owner, owner)


def files_in(directory: Path) -> dict[str, bytes]:
    if not directory.exists():
        return {}
    return {path.name: path.read_bytes() for path in directory.iterdir()}


class Alice(Worker):
    """With pictures."""

    @property
    def home(self) -> Path:
        """Her home on disk."""
        return self.area / ".homemgr/alice.homedir"

    @property
    def inside(self) -> Path:
        """Where the home has them."""
        return self.home / ".identity-blob"

    @property
    def public(self) -> Path:
        """Where the machine has them."""
        return self.blobs / "alice"

    def naming(self, files: dict[str, bytes], stamp: int) -> UserRecord:
        """A record of that time, with these files."""
        assert self.keyring.signer is not None
        record = self.signed(self.password, stamp).without("signature")
        manifest = {"blobManifest": dict(digests(files))} if files else {}
        return signature.sign(record.replaced(**manifest), self.keyring.signer)  # type: ignore[arg-type]

    def have(self, inside: dict[str, bytes], stamp: int, public: dict[str, bytes]) -> None:
        """Put files in both places, and a record of that time into the home."""
        put(self.inside, inside, NOBODY)
        if not inside:
            self.inside.rmdir()
        put(self.public, public, 0)
        (self.home / ".identity").write_bytes(self.naming(inside, stamp).embedded().pretty())


@pytest.fixture
def alice(area: Path) -> Alice:
    worker = Alice(area)
    worker.run("create")
    return worker


@pytest.mark.parametrize("public", [{}, OLD, {**OLD, "extra": b"x"}])
@pytest.mark.parametrize("newer", [NEW, {}])
def test_pictures_of_a_newer_record_in_the_home_are_shown(
    alice: Alice, newer: dict[str, bytes], public: dict[str, bytes]
) -> None:
    alice.record = alice.naming(OLD, 2_000_000)
    alice.have(newer, 3_000_000, public)
    alice.run("authenticate")
    assert files_in(alice.public) == newer == files_in(alice.inside)
    assert os.listdir(alice.blobs) == ["alice"]


def test_pictures_of_a_home_that_is_new_here_are_shown(alice: Alice) -> None:
    alice.have(NEW, 3_000_000, {})
    alice.public.rmdir()
    found = UserRecord({"userName": "alice"})
    alice.record = found.with_binding("0" * 31 + "1", {"uid": alice.uid, "gid": alice.uid})
    alice.run("authenticate", is_fixated=False)
    assert files_in(alice.public) == NEW
    assert alice.public.stat().st_mode & 0o7777 == 0o755


def test_pictures_of_a_newer_record_of_the_machine_go_into_the_home(alice: Alice) -> None:
    alice.have(OLD, 2_000_000, {**NEW, "extra": b"x"})
    alice.record = alice.naming(NEW, 3_000_000)
    alice.run("authenticate")
    assert files_in(alice.inside) == NEW
    assert {path.lstat().st_uid for path in (alice.inside, *alice.inside.iterdir())} == {NOBODY}
    # What an administrator puts there is his.
    assert files_in(alice.public) == {**NEW, "extra": b"x"}


def test_what_one_place_has_lost_is_had_from_the_other(alice: Alice) -> None:
    alice.have(OLD, 3_000_000, {"avatar": OLD["avatar"]})
    (alice.inside / "avatar").write_bytes(b"damaged")
    alice.record = alice.naming(NEW, 2_000_000)
    alice.run("authenticate")
    assert files_in(alice.public) == files_in(alice.inside) == OLD


def test_nothing_changes_where_both_have_the_same_record(alice: Alice) -> None:
    alice.have(OLD, 3_000_000, NEW)
    alice.record = alice.naming(OLD, 3_000_000)
    alice.run("authenticate")
    assert (files_in(alice.inside), files_in(alice.public)) == (OLD, NEW)


def test_pictures_keep_nobody_out(alice: Alice) -> None:
    alice.have(NEW, 3_000_000, {})
    alice.public.rmdir()
    alice.blobs.rmdir()
    (alice.blobs).symlink_to("nowhere")
    result = alice.run("authenticate")
    assert isinstance(result["record"], dict)


@pytest.mark.parametrize(("before", "later"), [(OLD, {}), (OLD, NEW), ({}, NEW)])
def test_killed_at_any_step_of_an_update_the_home_has_what_its_record_names(
    alice: Alice, tmp_path: Path, before: dict[str, bytes], later: dict[str, bytes]
) -> None:
    sources = [os.memfd_create(name) for name in sorted(later)]
    for fd, name in zip(sources, sorted(later), strict=True):
        os.write(fd, later[name])
    host, new = alice.naming(before, 2_000_000), alice.naming(later, 3_000_000)
    told = {"new_record": new.data, "blobs": sorted(later)}
    alice.record = host
    alice.have(before, 2_000_000, {})
    alice.fds = sources
    steps = alice.steps(tmp_path / "trace", "update", **told)
    assert files_in(alice.inside) == later
    assert alice.inside.exists() is bool(later)
    assert not (alice.home / BESIDE).exists()
    seen = set()
    for step in steps:
        alice.have(before, 2_000_000, {})
        alice.fds = sources
        with pytest.raises(KilledError):
            alice.run_killed(step, "update", **told)
        alice.fds = ()
        alice.run("authenticate")
        found = UserRecord.parse((alice.home / ".identity").read_bytes())
        manifest = found.data.get("blobManifest") or {}
        there = files_in(alice.inside)
        assert digests(there) == manifest, step
        assert not (alice.home / BESIDE).exists()
        seen.add(len(there))
    assert seen == {len(before), len(later)}
    for fd in sources:
        os.close(fd)
