"""Key slots are tried one by one, each with time and memory of its own."""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from homemgr import job
from homemgr.errors import BadPassword, NotSupported
from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.kernel import address_space
from homemgr.record.jsontext import Json, JsonObject
from homemgr.record.machine import Machine
from homemgr.record.model import UserRecord
from homemgr.record.volume_settings import volume_settings
from homemgr.storage import luks_slots, luks_volume
from homemgr.storage.idmapping import NOBODY
from homemgr.storage.kind import Image, Words
from homemgr.storage.top import Top
from homemgr.volume.luks import LEAST, Layout, Pbkdf, Volume
from homemgr.work.task import Task

KEY = os.urandom(32)
MIB = 1 << 20
MACHINE = Machine("a" * 32, None, "/home")
#: Four passes over 64 MiB with two threads: a fraction of a second.
ARGON = Pbkdf("argon2id", "sha512", 0, 64 << 10, 2, iterations=4)


def image(**fields: Json) -> Image:
    """A home whose record has these fields."""
    return Image("/home/anna.home", UserRecord({"userName": "anna", **fields}).on(MACHINE))


IMAGE = image()


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Volume]:
    """A volume without a slot."""
    path = tmp_path / "volume"
    with path.open("wb") as file:
        file.truncate(17 << 20)
    layout = Layout(str(uuid.uuid4()), "anna", "", "aes", "xts-plain64", 512)
    with Volume.format_device(str(path), bytearray(KEY), layout) as made:
        yield made


def add(volume: Volume, word: str, pbkdf: Pbkdf = LEAST) -> int:
    volume.stretch(pbkdf)
    return volume.add_slot(bytearray(KEY), word)


class Clock:
    """Notes what each piece of work may take."""

    def __init__(self) -> None:
        self.found: list[tuple[float, int]] = []

    def __call__(
        self, seconds: float = 0, memory: int = 0, *, beside: bool = False
    ) -> AbstractContextManager[None]:
        self.found.append((seconds, memory))
        return nullcontext()


def test_a_late_slot_has_as_much_time_as_the_first(volume: Volume) -> None:
    slots = [add(volume, f"word {number}") for number in range(9)]
    late, clock = add(volume, "late", ARGON), Clock()
    words = Words(("late",), clock)
    assert luks_volume.unlock(volume, words, IMAGE) == KEY
    assert clock.found == [(10, 0)] * 9 + [(20, 64 * MIB)]
    assert luks_volume.opened_by(volume, Words(("late", "word 3", "none")), IMAGE) == [
        late,
        slots[3],
    ]
    with pytest.raises(BadPassword):
        luks_volume.unlock(volume, Words(("none",)), IMAGE)


def test_a_slot_that_is_too_large_for_the_machine_is_left_out(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = add(volume, "large", ARGON)
    monkeypatch.setattr(address_space, "most_at_once", lambda: 63 * MIB)
    with pytest.raises(NotSupported, match="more than 63 MiB"):
        luks_volume.unlock(volume, Words(("large",)), IMAGE)
    # What is added has to be opened here.
    settings = volume_settings(IMAGE.effective)
    luks_volume.add_slots(volume, bytearray(KEY), Words(("fits",)), settings)
    added = next(slot for slot in volume.slots() if slot != large)
    assert volume.cost(added).memory <= 63 * MIB
    assert luks_volume.unlock(volume, Words(("fits",)), IMAGE) == KEY
    with pytest.raises(BadPassword):
        luks_volume.unlock(volume, Words(("large",)), IMAGE)


def test_to_add_a_slot_there_is_time_to_measure(volume: Volume) -> None:
    clock = Clock()
    slow: JsonObject = {"luksPbkdfTimeCostUSec": 20_000_000, "luksPbkdfParallelThreads": 9}
    for fields in ({}, slow):
        home = image(luksPbkdfType="pbkdf2", luksPbkdfForceIterations=1000, **fields)
        settings = volume_settings(home.effective)
        luks_volume.add_slots(volume, bytearray(KEY), Words(("word",), clock), settings)
        luks_volume.unlock(volume, Words(("word",), clock), home)
    assert [seconds for seconds, _ in clock.found] == [30, 10, 20 + 20 * 20 * 4, 60]


@pytest.mark.parametrize("identity", [None, b"{}"])
def test_a_record_that_cannot_be_read_costs_nobody_his_slot(
    volume: Volume, tmp_path: Path, identity: bytes | None
) -> None:
    slots = [add(volume, word) for word in ("first", "recovery")]
    home = tmp_path / "home"
    # Its owner can put anything there, also while his password is being changed.
    (home / ".identity").mkdir(parents=True)
    os.chown(home, NOBODY, NOBODY)

    def fail() -> None:
        add(volume, "new")
        raise OSError(errno.ENOSPC, "full")

    with (
        Top(Fd.open(str(home), DIRECTORY_FLAGS), str(home)) as top,
        pytest.raises(OSError, match="full"),
        luks_slots.replacing(volume, top, fail, identity),
    ):
        pass
    assert set(slots) <= set(volume.slots())
    assert volume.tokens() == {}


def test_a_worker_has_that_time_and_memory_while_it_works() -> None:
    ours, theirs = socket.socketpair()
    before = resource.getrlimit(resource.RLIMIT_AS)
    with ours, theirs:
        words = Task(job.Request("passwd", {}), [], job.Channel(theirs)).words(["word"])
        address_space.limit(4096 * MIB)
        ours.sendall(job.pack({"granted": "processor"}))
        try:
            with words.working(77, 300 * MIB):
                left, _ = signal.getitimer(signal.ITIMER_PROF)
                assert 70 < left < 78
                assert resource.getrlimit(resource.RLIMIT_AS)[0] == 4396 * MIB
            assert signal.getitimer(signal.ITIMER_PROF) == (0, 0)
            assert resource.getrlimit(resource.RLIMIT_AS) == (4096 * MIB, before[1])
            with address_space.raised():
                assert resource.getrlimit(resource.RLIMIT_AS) == (before[1], before[1])
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)
