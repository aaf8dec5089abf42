"""Accelerators as they lie on disk: what is made opens, and nothing else does."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from homemgr.storage import accelerators, key_slots
from homemgr.storage.accelerators import Accelerator, Making
from homemgr.storage.key_slots import Slot

KEY = bytes(range(64))
WORD = "correct horse battery"
#: Made once, for the slot below.
VECTOR = (
    "01000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1fdbf56428014a69"
    "361977d92ee22416147209175b8d81a9aad6b00b488537b50f04bd3758e85713f8cffe3eea7c4407"
    "5c4c898c5d6a0f89ee6b2e35babc1f1d159a0726e7e18bb27cc70ed68f5a43297c82b1b8cccefb99"
    "56c04cd7d6caa971ac"
)
#: Words as they are typed: also what is no UTF-8, which is there as surrogates.
words = st.text(max_size=40) | st.binary(max_size=40).map(
    lambda raw: raw.decode("utf-8", "surrogateescape")
)


@pytest.fixture(autouse=True)
def two_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """As most machines have, whatever this one has."""
    monkeypatch.setattr(accelerators, "is_useful", lambda: True)


def slot(rounds: int = 5, salt: bytes = b"s" * 64, tag: bytes = bytes(16)) -> Slot:
    """A slot that takes few rounds; what it seals does not matter here."""
    parts = (base64.b64encode(part) for part in (salt, bytes(12), bytes(64), tag))
    return key_slots.parse(0, b"$v2:%d:%b" % (rounds, b":".join(parts)))


#: Each differs in one part.
OTHERS = (slot(6), slot(salt=b"t" * 64), slot(tag=b"t" * 16))


def made(of: Slot, word: str = WORD, key: bytes = KEY) -> bytes:
    with Making(word, of.salt, of.iterations) as making:
        pass
    text = making.sealed(key, of)
    assert text is not None
    return text


@given(words, words, st.binary(min_size=1, max_size=80), st.integers(1, 9), st.binary(min_size=1))
def test_what_is_made_with_a_word_opens_with_that_alone(
    word: str, other: str, key: bytes, rounds: int, salt: bytes
) -> None:
    place = slot(rounds, salt)
    accelerator = accelerators.parse(made(place, word, key), place)
    assert accelerator.unseal(word) == key
    # To HMAC, zeros at the end are none: so it is with slots.
    if other.rstrip("\0") != word.rstrip("\0"):
        assert accelerator.unseal(other) is None


def as_described(text: bytes, place: Slot, word: str) -> bytes:
    """The key, by the description of the format and with none of the code that it is of."""
    version, salt, check, sealed = text[:1], text[1:33], text[33:49], text[49:]
    assert version == b"\x01"

    def of_slot(purpose: bytes) -> bytes:
        return hashlib.sha512(b"homemgr accelerator 1 " + purpose + place.text).digest()

    expected = hmac.digest(of_slot(b"check:"), version + salt + sealed, "sha512")
    assert check == expected[:16]
    chains = b"".join(
        hashlib.pbkdf2_hmac(
            "sha512",
            word.encode(),
            b"homemgr accelerator 1 chain %d:" % number + salt + place.salt,
            -(-place.iterations // 2),
        )
        for number in (1, 2)
    )
    extracted = hmac.digest(of_slot(b"key:"), chains, "sha512")
    expanded = hmac.digest(extracted, b"homemgr accelerator 1 key:\x01", "sha512")
    return AESGCM(expanded[:32]).decrypt(expanded[32:44], sealed, version + salt)


@pytest.mark.parametrize("rounds", [1, 2, 7])
def test_the_format_is_the_one_that_is_described(rounds: int) -> None:
    place = slot(rounds)
    assert as_described(made(place), place, WORD) == KEY


def test_those_on_disks_go_on_to_open() -> None:
    text = bytes.fromhex(VECTOR)
    assert accelerators.parse(text, slot()).unseal(WORD) == KEY


def test_no_two_are_alike() -> None:
    assert len({made(slot())[33:] for _ in range(3)}) == 3


def test_whatever_is_changed_in_one_it_is_none_any_more() -> None:
    text, place = made(slot()), slot()
    for at in range(len(text)):
        damaged = text[:at] + bytes([text[at] ^ 1]) + text[at + 1 :]
        with pytest.raises(ValueError, match=r"version|damaged"):
            accelerators.parse(damaged, place)
    for other in (b"", text[:1], text[:-1], text + b"\0", text[:33]):
        with pytest.raises(ValueError, match=r"version|damaged"):
            accelerators.parse(other, place)


@given(st.binary(max_size=200))
def test_what_is_none_is_told_and_nothing_worse(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"version|damaged"):
        accelerators.parse(text, slot())


@pytest.mark.parametrize("other", OTHERS)
def test_one_of_another_slot_is_none_and_does_not_open(other: Slot) -> None:
    text = made(slot())
    with pytest.raises(ValueError, match="another slot"):
        accelerators.parse(text, other)
    # As somebody would try who knows the word, and does not care what belongs together.
    assert Accelerator(other, text[1:33], text[49:]).unseal(WORD) is None


def test_with_one_processor_or_a_word_that_is_wrong_none_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = slot()
    with Making(WORD, place.salt, place.iterations, lambda: False) as making:
        pass
    assert making.sealed(KEY, place) is None
    monkeypatch.setattr(accelerators, "is_useful", lambda: False)
    with Making(WORD, place.salt, place.iterations) as making:
        pass
    assert making.sealed(KEY, place) is None


def test_where_no_thread_can_be_had_it_opens_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator = accelerators.parse(made(slot()), slot())

    def refuse(_thread: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(accelerators.threading.Thread, "start", refuse)
    assert accelerator.unseal(WORD) == KEY
    with Making(WORD, b"salt", 5) as making:
        pass
    assert making.sealed(KEY, slot()) is None


@pytest.mark.parametrize("rounds", [1, 2, 599_999, 600_000, 2**31 - 1])
def test_both_chains_together_have_no_fewer_rounds_than_the_slot(
    monkeypatch: pytest.MonkeyPatch, rounds: int
) -> None:
    done: list[tuple[bytes, int]] = []

    def count(_word: str, salt: bytes, count: int) -> bytes:
        done.append((salt, count))
        return salt

    monkeypatch.setattr(accelerators, "stretched", count)
    place = slot(rounds)
    accelerator = accelerators.parse(made(place), place)
    making = sorted(done)
    done.clear()
    assert accelerator.unseal(WORD) == KEY
    assert sorted(done) == making
    (first, some), (second, more) = making
    assert first != second
    assert rounds <= some + more <= rounds + 1
