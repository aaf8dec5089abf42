"""The floor under new passwords: each kind of weak one, with a reason that helps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homemgr.errors import LowPasswordQuality
from homemgr.record.password import check_quality
from homemgr.record.quality import _edits


@pytest.mark.parametrize(
    "password",
    ["correct horse", "Tr0ub4dor&3", "xK9#mQ2v", "alice in wonderland", "1234567890123456a",
     "Passwortgenerator", "größere Fische", "8314 2907 5561 0482"],
)  # fmt: skip
def test_acceptable_passwords(password: str) -> None:
    check_quality(password, (), "alice")


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
        ("old secret7", "too similar"),
        ("OLD SECRET", "too similar"),
        ("terces dlo", "too similar"),
        ("2old secret", "too similar"),
    ],
)
def test_weak_passwords_and_the_reason(password: str, reason: str) -> None:
    with pytest.raises(LowPasswordQuality) as caught:
        check_quality(password, ("old secret",), "alice")
    assert caught.value.message.startswith("The password is too weak: ")
    assert reason in caught.value.message
    # The message may use the word, but never repeats what was typed.
    assert password in ("", "password") or password not in caught.value.message


def test_an_old_password_is_not_a_new_one() -> None:
    # homed accepts what matches an old hash: it keeps one of several passwords.
    check_quality("x", ("x",), "alice")


def test_a_short_user_name_does_not_forbid_its_letters() -> None:
    check_quality("xK9#mQ2v", (), "x")


@given(st.text(max_size=300), st.lists(st.text(max_size=300), max_size=3))
def test_any_text_gives_an_answer(password: str, old: list[str]) -> None:
    try:
        check_quality(password, old, "alice")
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
