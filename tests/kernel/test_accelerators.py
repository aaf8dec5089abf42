"""Accelerators beside key slots: whatever they say, the slots have the last word."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path

import pytest

from homemgr.errors import BadPassword
from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.kernel import fscrypt
from homemgr.storage import accelerators, embedded, key_slots, rekeying, sealing
from homemgr.storage.accelerators import Making
from homemgr.storage.idmapping import NOBODY
from homemgr.storage.key_slots import Slot
from homemgr.storage.kind import Words
from homemgr.storage.sealing import Sealed
from homemgr.storage.top import Top

WORD, NEW, WRONG = "correct horse battery", "another horse battery", "wrong"
ROUNDS = 20


class Home:
    """A directory with slots; nothing in it has to be encrypted for them."""

    def __init__(self, top: Top) -> None:
        self.top = top
        self.key = bytearray(os.urandom(64))
        self.policy = fscrypt.key_name(self.key, 2)
        #: Whether the record is known, and which words are in it.
        self.record: set[str] | None = {WORD, NEW}
        #: Which words slots were asked with, by the numbers of the slots.
        self.asked: list[tuple[int, str]] = []

    @property
    def fd(self) -> int:
        return self.top.fd.fileno()

    def words(self, *words: str) -> Words:
        record = self.record
        if record is None:
            return Words(words, self._working)
        return Words(words, self._working, frozenset(), record.__contains__)

    def _working(
        self, seconds: float = 0, memory: int = 0, *, beside: bool = False
    ) -> AbstractContextManager[Callable[[str], bool]]:
        record = self.record
        return nullcontext(lambda word: record is None or word in record)

    def seal(self, *words: str, is_old: bool = False) -> list[Sealed]:
        return sealing.sealed_for(self.key, self.words(*words), is_old=is_old)

    def put(self, number: int, sealed: Sealed) -> None:
        """A slot, and its accelerator, in the place of those that are there."""
        os.setxattr(self.fd, key_slots.attribute(number), sealed.slot)
        accelerators.forget(self.fd, number)
        accelerators.write(self.fd, number, sealed.accelerator)

    def slot(self, number: int = 0) -> Slot:
        return next(slot for slot in key_slots.read(self.fd) if slot.number == number)

    def accelerators(self) -> dict[int, bytes]:
        """Those on disk, whatever they are."""
        names = (name for name in os.listxattr(self.fd) if name.startswith(accelerators.PREFIX))
        return {
            int(name.removeprefix(accelerators.PREFIX)): os.getxattr(self.fd, name)
            for name in names
        }

    def is_accelerated(self, number: int = 0) -> bool:
        """Whether a slot has one that belongs to it."""
        return accelerators.read(self.fd, self.slot(number)) is not None

    def opens(self, *words: str) -> bool:
        self.asked.clear()
        try:
            assert sealing.unsealed(self.top, self.policy, self.words(*words)) == self.key
        except BadPassword:
            return False
        return True


@contextmanager
def home_at(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """With a slot for WORD and its accelerator."""
    monkeypatch.setattr(key_slots, "ITERATIONS", ROUNDS)
    # As on most machines, whatever this one has.
    monkeypatch.setattr(accelerators, "is_useful", lambda: True)
    path.mkdir()
    os.chown(path, NOBODY, NOBODY)
    with Top(Fd.open(str(path), DIRECTORY_FLAGS), str(path)) as top:
        found = Home(top)
        found.put(0, *found.seal(WORD))
        unseal = Slot.unseal

        def noted(slot: Slot, word: str) -> bytearray | None:
            found.asked.append((slot.number, word))
            return unseal(slot, word)

        monkeypatch.setattr(Slot, "unseal", noted)
        yield found


@pytest.fixture
def home(ground: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """Where there is room for many attributes."""
    with home_at(ground / "home", monkeypatch) as found:
        yield found
    shutil.rmtree(ground / "home")


def test_a_word_costs_an_accelerator_or_a_slot_right_or_wrong(home: Home) -> None:
    assert home.opens(WORD)
    assert not home.opens(WRONG)
    assert home.asked == []
    # Both right in the record, of which each has a slot.
    home.put(1, *home.seal(NEW))
    assert home.opens(WORD)
    assert home.opens(NEW)
    assert home.asked == []


def damaged(text: bytes) -> Iterator[bytes]:
    """Changed in each part, too short and too long."""
    for at in (0, 1, 32, 33, 48, 49, len(text) - 1):
        yield text[:at] + bytes([text[at] ^ 0x80]) + text[at + 1 :]
    yield from (b"", text[:1], text[:49], text[:-1], text + b"\0", b"\x02" + text[1:])


def test_a_damaged_one_neither_keeps_anybody_out_nor_stays(home: Home) -> None:
    (good,) = home.accelerators().values()
    for text in damaged(good):
        accelerators.write(home.fd, 0, text)
        assert not home.opens(WRONG)
        # Which is not said by what is damaged.
        assert home.asked == [(0, WRONG)]
        assert home.accelerators() == {0: text}
        assert home.opens(WORD)
        assert home.asked == [(0, WORD)]
        assert home.opens(WORD)
        assert home.asked == []


def made_up(home: Home, word: str, key: bytes | bytearray) -> bytes | None:
    """One that somebody makes who can write attributes: all in it is as it has to be."""
    slot = home.slot()
    with Making(word, slot.salt, slot.iterations) as making:
        pass
    return making.sealed(key, slot)


def test_one_that_is_made_up_keeps_nobody_out_and_lets_nobody_in(home: Home) -> None:
    for word, key in ((WRONG, bytes(64)), (WORD, bytes(64)), (WORD, b"short"), (WRONG, b"")):
        accelerators.write(home.fd, 0, made_up(home, word, key))
        assert not home.opens(WRONG)
        # The record says so as well: a wrong word costs no more than it did.
        assert home.asked == []
        assert home.opens(WRONG, WORD)
        assert home.asked == [(0, WORD)]
        assert home.opens(WORD)
        assert home.asked == []


def test_nothing_is_believed_where_no_record_is_known(home: Home) -> None:
    home.record = None
    accelerators.write(home.fd, 0, made_up(home, WRONG, bytes(64)))
    assert not home.opens(WRONG)
    assert home.opens(WORD)
    assert home.asked == [(0, WORD)]
    assert not home.opens(NEW)


def test_it_dies_with_its_slot(home: Home) -> None:
    (old,) = home.accelerators().values()
    slot = home.slot()
    # As systemd-homed changes a password: in the same place, and in another one.
    (new,) = home.seal(NEW)
    os.setxattr(home.fd, key_slots.attribute(0), new.slot)
    assert home.accelerators() == {0: old}
    assert not home.opens(WORD)
    assert home.asked == [(0, WORD)]
    assert home.opens(NEW)
    # The first login with the new one has replaced it.
    assert home.is_accelerated()
    assert home.accelerators() != {0: old}
    for number in (0, 1, 2):
        accelerators.write(home.fd, number, old)
        assert not home.opens(WORD)
    # The slot alone made it good.
    os.setxattr(home.fd, key_slots.attribute(1), slot.text)
    assert home.opens(WORD)


def test_one_is_made_by_the_first_login_with_a_right_word(home: Home) -> None:
    accelerators.forget_all(home.fd)
    home.record = {WORD}
    assert not home.opens(WRONG)
    assert home.accelerators() == {}
    assert home.opens(WORD)
    assert home.asked == [(0, WORD)]
    assert home.is_accelerated()
    assert home.opens(WORD)
    assert home.asked == []


def test_where_there_is_no_room_there_is_none(area: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with home_at(area / "home", monkeypatch) as home:
        accelerators.forget_all(home.fd)
        for size in (512, 256, 128, 64, 32, 1):
            with suppress(OSError):
                os.setxattr(home.fd, f"trusted.filler{size}", bytes(size))
        assert home.opens(WORD)
        assert home.accelerators() == {}
        # Where there is some for one, a new slot has it.
        for name in os.listxattr(home.fd):
            if "filler" in name:
                os.removexattr(home.fd, name)
        assert home.opens(WORD)
        assert home.is_accelerated()
        os.setxattr(home.fd, "trusted.filler", bytes(300))
        with rekeying.replacing(home.top, home.seal(NEW), None):
            assert key_slots.numbers(home.fd) == [0, 1]
        assert home.opens(NEW)


def test_with_one_processor_none_is_made_or_used(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accelerators, "is_useful", lambda: False)
    assert home.opens(WORD)
    assert home.asked == [(0, WORD)]
    assert [sealed.accelerator for sealed in home.seal(WORD, NEW)] == [None, None]


def test_slots_of_other_kinds_have_none(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    (old,) = home.seal(WORD, is_old=True)
    home.put(0, old)
    assert old.accelerator is None
    assert home.opens(WORD)
    # A slot that takes longer than usual leaves no time for it.
    home.put(0, Sealed(home.seal(NEW)[0].slot, None))
    monkeypatch.setattr(key_slots, "ITERATIONS", ROUNDS - 1)
    assert home.opens(NEW)
    assert home.accelerators() == {}


def test_while_slots_are_replaced_there_is_none(home: Home) -> None:
    home.put(1, *home.seal("stays"))
    accelerators.write(home.fd, 7, b"left of something")
    embedded.write_identity(home.top, b"old record")
    with rekeying.replacing(home.top, home.seal(NEW), b"new record", [0]):
        assert home.accelerators() == {}
        embedded.write_identity(home.top, b"new record")
    assert key_slots.numbers(home.fd) == [1, 2]
    assert list(home.accelerators()) == [2]
    assert home.is_accelerated(2)
    # A record that was not written: the new slot is gone again, and what belongs to it.
    with rekeying.replacing(home.top, home.seal(WORD), b"newest record", [2]):
        assert key_slots.numbers(home.fd) == [0, 1, 2]
    assert key_slots.numbers(home.fd) == [1, 2]
    assert home.accelerators() == {}


def test_one_made_after_a_kill_goes_with_a_slot_that_has_to_go(home: Home) -> None:
    embedded.write_identity(home.top, b"old record")
    (new,) = home.seal(NEW)
    with suppress(InterruptedError), rekeying.replacing(home.top, [new], b"new record"):
        note = os.getxattr(home.fd, "trusted.homemgr.rekeying")
        raise InterruptedError
    # Killed in there, after the record was written; then somebody opens it with the old word.
    embedded.write_identity(home.top, b"new record")
    os.setxattr(home.fd, "trusted.homemgr.rekeying", note)
    home.put(1, Sealed(new.slot, None))
    assert home.opens(WORD)
    assert list(home.accelerators()) == [0]
    rekeying.settle(home.top)
    assert key_slots.numbers(home.fd) == [1]
    assert home.accelerators() == {}
    assert home.opens(NEW)
