"""libcrypt as the judge: what it hashes it recognises, and odd input matches nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homemgr.crypt import PASSPHRASE_LIMIT, hash_password, verify

#: Cheap to compute, so that many passwords can be tried.
CHEAP = "$5$"

#: "password" hashed elsewhere (openssl passwd -6 -salt saltsalt).
FOREIGN = (
    "$6$saltsalt$qFmFH.bQmmtXzyBY0s9v7Oicd2z4XSIecDzlB5KiA2/jctKu9YterLp8wwnSq.qc."
    "eoxqOmSuNp2xS0ktL3nh/"
)


def test_default_method_is_the_machines_preferred_one() -> None:
    hashed = hash_password("correct horse")
    assert hashed.startswith("$")
    assert verify("correct horse", hashed)
    assert not verify("correct horsf", hashed)


def test_method_can_be_chosen() -> None:
    assert hash_password("x", "$6$").startswith("$6$")
    assert hash_password("x", "$y$").startswith("$y$")


def test_hash_made_elsewhere_is_recognised() -> None:
    assert verify("password", FOREIGN)


def test_two_hashes_of_one_password_differ() -> None:
    assert hash_password("x", CHEAP) != hash_password("x", CHEAP)


@settings(max_examples=20, deadline=None)
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60))
def test_every_password_verifies(password: str) -> None:
    assert verify(password, hash_password(password, CHEAP))


def test_nul_is_refused_rather_than_cut_off() -> None:
    hashed = hash_password("a", CHEAP)
    assert not verify("a\0b", hashed)
    with pytest.raises(ValueError, match="NUL"):
        hash_password("a\0b")
    assert not verify("a", hashed + "\0")


def test_too_long_is_refused_rather_than_cut_off() -> None:
    longest = "x" * (PASSPHRASE_LIMIT - 1)
    assert verify(longest, hash_password(longest, CHEAP))
    with pytest.raises(ValueError, match="shorter"):
        hash_password(longest + "x")


def test_bytes_that_are_no_utf8_can_be_a_password() -> None:
    typed = b"p\xe4ss".decode("utf-8", "surrogateescape")
    assert verify(typed, hash_password(typed, CHEAP))


@pytest.mark.parametrize("junk", ["", "*", "*0", "!", "!!", "x", "$y$", "$zz$salt$hash", "ä", "\0"])
def test_what_is_no_hash_matches_nothing(junk: str) -> None:
    assert not verify("", junk)
    assert not verify(junk, junk)


@pytest.mark.parametrize("method", ["$zz$", "*", "$y\0$"])
def test_unknown_method_is_refused(method: str) -> None:
    with pytest.raises(ValueError, match="method"):
        hash_password("x", method)


def test_threads_do_not_disturb_each_other() -> None:
    words = [f"word{n}" for n in range(40)]
    with ThreadPoolExecutor(8) as pool:
        hashes = list(pool.map(lambda word: hash_password(word, CHEAP), words))
        assert all(pool.map(verify, words, hashes))
        assert not any(pool.map(verify, words[1:], hashes))
