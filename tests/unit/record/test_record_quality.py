"""The floor under new passwords: each kind of weak one, with a reason that helps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homemgr.errors import LowPasswordQuality
from homemgr.record.machine import Machine
from homemgr.record.model import UserRecord
from homemgr.record.quality import MIN_EDITS, _edits, check_quality

ALICE = UserRecord(
    {
        "userName": "alice",
        "realName": "Alice Ångström-Kim Li",
        "privileged": {"passwordHint": "Not: correct bicycle, but the other one"},
    }
).on(Machine("0" * 32))


@pytest.mark.parametrize(
    "password",
    ["correct horse", "Tr0ub4dor&3", "xK9#mQ2v", "alice in wonderland", "1234567890123456a",
     "Passwortgenerator", "größere Fische", "8314 2907 5561 0482"],
)  # fmt: skip
def test_acceptable_passwords(password: str) -> None:
    check_quality(password, (), ALICE)


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("", "has 0 characters"),
        ("short1!", "has 7 characters, at least 8"),
        ("aaaaaaaa", "repeats itself"),
        ("abababab", "repeats itself"),
        ("AaAaBbBb", "repeats itself"),
        ("abcdefghij", "neighbouring"),
        ("87654321", "neighbouring"),
        ("qwertyuiop", "neighbouring"),
        ("lkjhgfdsa", "neighbouring"),
        ("password", "most common"),
        ("Password1!", "most common"),
        ("P@ssw0rd", "most common"),
        ("12password", "most common"),
        ("iloveyou22", "most common"),
        ("83142907", "digits and punctuation only"),
        ("alice123", "user name"),
        ("ecila2024", "user name"),
        ("xAliceyy", "user name"),
        ("Ångström-Kim77", "real name"),
        ("mik-mörtsgnå", "real name"),
        ("alice ångström-kim li", "real name"),
        ("Correct Bicycle", "hint"),
        ("old secret7", "too similar"),
        ("OLD SECRET", "too similar"),
        ("terces dlo", "too similar"),
        ("2old secret", "too similar"),
    ],
)
def test_weak_passwords_and_the_reason(password: str, reason: str) -> None:
    with pytest.raises(LowPasswordQuality) as caught:
        check_quality(password, ("old secret",), ALICE)
    assert caught.value.message.startswith("The password is too weak: ")
    assert reason in caught.value.message
    # The message may use the word, but never repeats what was typed.
    assert password in ("", "password") or password not in caught.value.message


def test_a_short_name_does_not_forbid_its_letters() -> None:
    short = UserRecord({"userName": "x", "realName": "X K"}).on(Machine("0" * 32))
    check_quality("xK9#mQ2v", (), short)


@given(st.text(max_size=300), st.lists(st.text(max_size=300), max_size=3))
def test_any_text_gives_an_answer(password: str, old: list[str]) -> None:
    try:
        check_quality(password, old, ALICE)
    except LowPasswordQuality as error:
        answer = error.message
    else:
        answer = ""
    assert not answer or answer.endswith(".")


@pytest.mark.parametrize(
    ("a", "b", "edits"), [("", "", 0), ("abc", "abc", 0), ("abc", "abd", 1), ("abc", "bcd", 2)]
)
def test_edits_between_texts(a: str, b: str, edits: int) -> None:
    assert _edits(a, b) == _edits(b, a) == edits


def distance(a: str, b: str) -> int:
    """Levenshtein the plain way, to compare with."""
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (letter != other))
    return row[-1]


@given(st.text("ab", max_size=9), st.text("ab", max_size=9))
def test_the_band_finds_every_small_distance(a: str, b: str) -> None:
    assert _edits(a, b) == min(distance(a, b), MIN_EDITS)


def test_comparing_with_many_long_passwords_is_quick() -> None:
    # What one caller may send: the service must not stand still for it. Counted, not timed:
    # three letters to each side of the diagonal, not the square.
    class Counted(str):
        looked_at = 0

        def __getitem__(self, index: object) -> str:
            Counted.looked_at += 1
            return super().__getitem__(index)

    assert _edits("a" * 128, Counted("b" * 128)) == MIN_EDITS
    assert Counted.looked_at <= 128 * (2 * MIN_EDITS + 1)
