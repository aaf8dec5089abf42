"""Flags of chattr travel with their files, but for those that would be in the way."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from homemgr.files import Fd
from homemgr.kernel.file_flags import get_flags, set_flags
from homemgr.storage import staging
from homemgr.storage.abilities import storable_flags
from homemgr.transfer import flags

from .. import homes
from . import test_transfer
from .test_passes import Journey, assert_same
from .test_preflight import mounted
from .test_transfer import Pair, export, import_
from .travels import opened

pair = test_transfer.pair

IMMUTABLE = flags.LEFT_BEHIND[b"immutable"]
APPEND = flags.LEFT_BEHIND[b"append"]

#: What each of them has is stored at least; ext4 takes more than it minds.
STORED = {b"nodump", b"noatime", b"sync"}


@contextmanager
def reading(path: Path) -> Iterator[int]:
    with Fd.open(str(path), os.O_RDONLY) as file:
        yield file.fileno()


def have(path: Path, *words: bytes) -> None:
    """Give a file just these flags, of those that are carried."""
    with reading(path) as fd:
        wanted = sum(flags.CARRIED[word] for word in words)
        set_flags(fd, get_flags(fd) & ~flags.ALL_BITS | wanted)


def found(path: Path) -> set[bytes]:
    with reading(path) as fd:
        bits = get_flags(fd)
    return {word for word, bit in flags.CARRIED.items() if bits & bit}


@contextmanager
def marked(path: Path, bit: int) -> Iterator[None]:
    with reading(path) as fd:
        set_flags(fd, get_flags(fd) | bit)
        try:
            yield
        finally:
            set_flags(fd, get_flags(fd) & ~bit)


@pytest.fixture
def journey(every_area: Path) -> Journey:
    return Journey(every_area)


@pytest.fixture
def storable(every_area: Path) -> frozenset[bytes]:
    with opened(every_area) as base, staging.open_stage(base, "stage") as stage:
        words = storable_flags(stage)
        assert os.listdir(stage.fileno()) == []
    return words


def assert_same_flags(journey: Journey) -> None:
    assert_same(journey)
    for path in [journey.here, *journey.here.rglob("*")]:
        there = journey.there / path.relative_to(journey.here)
        assert found(there) == found(path), path


def test_every_flag_that_can_be_stored_travels(
    journey: Journey, storable: frozenset[bytes]
) -> None:
    assert storable >= STORED
    for word in storable:
        name = journey.here / word.decode()
        name.mkdir()
        (name / "inherits").write_text("and passes nothing on")
        have(name, word)
        (name / "made-in-it").mkdir()
        (name / "made-in-it/small").write_text("small")
        (name / "made-in-it/large").write_bytes(b"x" * 300_000)
        (name / "plain").write_bytes(b"y" * 300_000)
        have(name / "plain")
        have(name / "made-in-it")
    homes.give_away(journey.here)
    journey.go()
    assert_same_flags(journey)
    assert any(found(path) for path in journey.there.rglob("small"))
    # What is new in a directory that has them by now has none that it should not have.
    for word in storable:
        name = journey.here / word.decode()
        (name / "later").write_text("later")
        (name / "later-folder").mkdir()
        for path in (name / "later", name / "later-folder"):
            have(path)
    homes.give_away(journey.here)
    journey.go()
    assert_same_flags(journey)


def test_flags_that_are_given_and_taken_later_follow(
    journey: Journey, storable: frozenset[bytes]
) -> None:
    (journey.here / "folder").mkdir()
    (journey.here / "file").write_bytes(b"z" * 3_000_000)
    homes.give_away(journey.here)
    journey.go()
    both = (journey.here / "folder", journey.here / "file")
    for words in ([b"nodump"], [b"noatime", b"sync"], []):
        for path in both:
            have(path, *words)
        # The content is not sent again for it.
        assert len(b"".join(map(repr_bytes, journey.go()))) < 5000
        assert_same_flags(journey)
        assert found(journey.there / "file") == set(words)
    assert storable


def repr_bytes(frame: object) -> bytes:
    return repr(frame).encode()


@pytest.mark.parametrize(("bit", "word"), [(IMMUTABLE, "immutable"), (APPEND, "append")])
def test_what_cannot_be_deleted_becomes_deletable_and_is_reported(
    journey: Journey, bit: int, word: str
) -> None:
    (journey.here / "folder").mkdir()
    (journey.here / "folder/note").write_text("note")
    homes.give_away(journey.here)
    with marked(journey.here / "folder/note", bit), marked(journey.here / "folder", bit):
        journey.go()
        notes = [(n.kind, n.path, n.detail) for n in journey.report.notes]
        assert notes == [
            ("flag-dropped", b"folder", word),
            ("flag-dropped", b"folder/note", word),
        ]
        assert_same(journey)
        for path in (journey.there / "folder", journey.there / "folder/note"):
            with reading(path) as fd:
                assert not get_flags(fd) & bit
    (journey.there / "folder/note").unlink()


def test_what_the_other_file_system_does_not_store_is_reported(pair: Pair) -> None:
    have(pair.here / "file", b"nodump", b"sync")
    with mounted(pair.there.parent):
        result = pair.go(keep=True)
        stage = pair.there.parent / ".#homemgr-in-alice.0123abcd"
        assert found(stage / "file") == {b"nodump"}
        # Known without being tried again.
        pair.target.phase = "receiving"
        assert pair.go(keep=True)["report"] == {"counts": {}, "notes": []}
    assert result["report"] == {
        "counts": {"flag-dropped": 1},
        "notes": [{"kind": "flag-dropped", "path": "file", "detail": "sync"}],
    }


def test_flags_survive_an_export(pair: Pair, tmp_path: Path) -> None:
    (pair.here / "folder").mkdir()
    (pair.here / "folder/note").write_text("note")
    have(pair.here / "folder", b"dirsync")
    have(pair.here / "folder/note", b"noatime")
    homes.give_away(pair.here)
    export(pair, tmp_path / "alice.tar")
    assert b"SCHILY.fflags=dirsync\n" in (tmp_path / "alice.tar").read_bytes()
    import_(pair, tmp_path / "alice.tar")
    assert found(pair.there / "folder") == {b"dirsync"}
    assert found(pair.there / "folder/note") == {b"noatime"}
    assert found(pair.there / "file") == set()
