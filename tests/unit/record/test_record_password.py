"""Credentials: order of tests, the true error, completeness, ageing."""

from __future__ import annotations

import pytest
from record_samples import MACHINE_ID

from homemgr.errors import (
    AccessDenied,
    BadPassword,
    BadPasswordAndNoToken,
    BadPin,
    BadRecoveryKey,
    HomeCantAuthenticate,
    HomeError,
)
from homemgr.record import password
from homemgr.record.effective import EffectiveRecord
from homemgr.record.jsontext import Json, JsonObject
from homemgr.record.machine import Machine
from homemgr.record.model import UserRecord
from homemgr.record.secret import Secret

KEY = "-".join(["cbdefghi", "jklnrtuv"] * 4)
TOKEN: Json = [{"uri": "pkcs11:", "data": "", "hashedPassword": "h:token"}]
FIDO: Json = [{"credential": "", "salt": "", "hashedPassword": "h:fido"}]
RECOVERY: Json = [{"type": "modhex64", "hashedPassword": f"h:{KEY}"}]


class Hasher:
    """A hash that can be read, and a note of every comparison made."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def __call__(self, plaintext: str, hashed: str) -> bool:
        self.asked.append((plaintext, hashed))
        return hashed == f"h:{plaintext}"


def effective(privileged: JsonObject, **members: Json) -> EffectiveRecord:
    record = UserRecord({"userName": "alice", "privileged": privileged, **members})
    return record.on(Machine(MACHINE_ID))


def test_a_token_unlocks_what_no_password_does_and_its_failure_is_the_answer() -> None:
    known = effective({"hashedPassword": ["h:one"], "pkcs11EncryptedKey": TOKEN})
    asked: list[EffectiveRecord] = []
    answer: HomeError | None = None

    def ask(record: EffectiveRecord) -> HomeError | None:
        asked.append(record)
        return answer

    password.check(known, Secret(["one"]), Hasher(), ask)
    assert asked == []
    password.check(known, Secret(["wrong"]), Hasher(), ask)
    assert asked == [known]
    for answer in (BadPin("Wrong."), BadPasswordAndNoToken("Gone.")):
        with pytest.raises(type(answer)):
            password.check(known, Secret(["wrong"]), Hasher(), ask)
    # Without entries nobody is asked.
    with pytest.raises(BadPassword):
        password.check(effective({"hashedPassword": ["h:one"]}), Secret(), Hasher(), ask)
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("privileged", "given"),
    [
        ({"hashedPassword": ["h:one"]}, ["one"]),
        ({"hashedPassword": "h:one"}, ["one"]),
        ({"hashedPassword": ["h:one", "h:two"]}, ["wrong", "two"]),
        ({"hashedPassword": ["h:one"], "recoveryKey": RECOVERY}, [KEY]),
        ({"recoveryKey": RECOVERY}, [KEY.upper()]),
        ({"recoveryKey": RECOVERY}, [KEY.replace("-", "")]),
        ({"hashedPassword": ["h:one"], "pkcs11EncryptedKey": TOKEN}, ["one"]),
    ],
)
def test_one_fitting_credential_is_enough(privileged: JsonObject, given: list[str]) -> None:
    password.check(effective(privileged), Secret(given), Hasher())


@pytest.mark.parametrize(
    ("privileged", "given", "failure"),
    [
        ({"hashedPassword": ["h:one"]}, ["wrong"], BadPassword),
        ({"hashedPassword": ["h:one"]}, [], BadPassword),
        ({"hashedPassword": ["h:one"], "recoveryKey": RECOVERY}, ["wrong"], BadPassword),
        ({"recoveryKey": RECOVERY}, ["wrong"], BadRecoveryKey),
        ({"recoveryKey": RECOVERY}, [], BadRecoveryKey),
        ({"hashedPassword": ["h:one"], "fido2HmacSalt": FIDO}, ["wrong"], BadPasswordAndNoToken),
        ({"pkcs11EncryptedKey": TOKEN}, [], BadPasswordAndNoToken),
        ({"pkcs11EncryptedKey": TOKEN, "recoveryKey": RECOVERY}, [], BadPasswordAndNoToken),
        ({}, ["one"], HomeCantAuthenticate),
        ({"hashedPassword": []}, ["one"], HomeCantAuthenticate),
        ({"passwordHint": "x"}, [], HomeCantAuthenticate),
    ],
)
def test_the_failure_that_decides_what_is_asked_next(
    privileged: JsonObject, given: list[str], failure: type[HomeError]
) -> None:
    with pytest.raises(failure, match="alice") as caught:
        password.check(effective(privileged), Secret(given), Hasher())
    assert "wrong" not in caught.value.message


def test_words_that_were_tried_in_vain_are_not_among_those_that_fit() -> None:
    known = effective({"hashedPassword": ["h:one", "h:two"], "recoveryKey": RECOVERY})
    given = Secret(["of another account", "two", KEY.upper(), "twO"])
    assert password.fitting(known, given, Hasher()) == ("two", KEY)
    assert password.fitting(known, Secret(["wrong"]), Hasher()) == ()


def test_what_is_no_recovery_key_costs_no_hash() -> None:
    hasher = Hasher()
    with pytest.raises(BadPassword):
        password.check(
            effective({"hashedPassword": ["h:a", "h:b"], "recoveryKey": RECOVERY}),
            Secret(["x", "y"]),
            hasher,
        )
    assert hasher.asked == [("x", "h:a"), ("x", "h:b"), ("y", "h:a"), ("y", "h:b")]


def test_an_empty_secret_costs_no_hash() -> None:
    hasher = Hasher()
    with pytest.raises(BadPassword):
        password.check(effective({"hashedPassword": ["h:a"]}), Secret(), hasher)
    assert hasher.asked == []


@pytest.mark.parametrize(
    ("privileged", "given", "failure"),
    [
        ({"hashedPassword": ["h:a"]}, ["a"], None),
        ({"hashedPassword": ["h:a", "h:b"]}, ["b", "a"], None),
        ({"hashedPassword": ["h:a"], "recoveryKey": RECOVERY}, ["a", KEY.upper()], None),
        ({"hashedPassword": ["h:a"], "fido2HmacSalt": FIDO}, ["a", "fido"], None),
        ({"hashedPassword": ["h:a", "h:b"]}, ["a"], BadPassword),
        ({"hashedPassword": ["h:a"]}, [], BadPassword),
        ({"hashedPassword": ["h:a"], "recoveryKey": RECOVERY}, ["a"], BadRecoveryKey),
        ({"hashedPassword": ["h:a"], "recoveryKey": RECOVERY}, [KEY], BadPassword),
        ({"hashedPassword": ["h:a"], "pkcs11EncryptedKey": TOKEN}, ["a"], BadPasswordAndNoToken),
        ({}, ["a"], HomeCantAuthenticate),
    ],
)
def test_every_hash_needs_its_plaintext(
    privileged: JsonObject, given: list[str], failure: type[HomeError] | None
) -> None:
    if failure is None:
        password.require_all(effective(privileged), Secret(given), Hasher())
    else:
        with pytest.raises(failure, match="alice"):
            password.require_all(effective(privileged), Secret(given), Hasher())


@pytest.mark.parametrize(
    ("before", "after", "given", "found"),
    [
        (["h:a"], ["h:b"], ["b", "a"], (("b",), ("a",))),
        (["h:a", "h:k"], ["h:b", "h:k"], ["b", "a"], (("b",), ("a",))),
        (["h:a", "h:k"], ["h:k"], ["k", "a"], ((), ("a",))),
        (["h:a"], ["h:a", "h:b"], ["b"], (("b",), ())),
        # A word of two hashes, one of which stays.
        (["h:a", "h:a "], ["h:b", "h:a "], ["b", "a"], (("b", "a"), ("a",))),
        (["h:a", "h:k"], ["h:b", "h:k"], ["b", "k"], None),
        (["h:a"], ["h:b"], ["a"], None),
        (["h:a"], ["h:a"], ["a"], None),
    ],
)
def test_key_slots_go_with_hashes_whose_words_are_there(
    before: list[Json], after: list[Json], given: list[str], found: object
) -> None:
    def verify(word: str, hashed: str) -> bool:
        return hashed.strip() == f"h:{word}"

    views = (
        effective({"hashedPassword": hashes, "recoveryKey": RECOVERY}) for hashes in (before, after)
    )
    assert password.exchange(*views, Secret(given), verify) == found


def test_a_recovery_key_loses_its_slot_however_it_is_spelled() -> None:
    before = effective({"hashedPassword": ["h:a"], "recoveryKey": RECOVERY})
    after = effective({"hashedPassword": ["h:a"]})
    given = Secret([KEY.upper().replace("-", "")])
    assert password.exchange(before, after, given, Hasher()) == ((), (KEY,))


# --- ageing -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "age", "allowed"),
    [
        ({}, 0, True),
        ({"passwordChangeMinUSec": 100}, 0, False),
        ({"passwordChangeMinUSec": 100}, 99, False),
        ({"passwordChangeMinUSec": 100}, 100, True),
        ({"passwordChangeMinUSec": 100, "passwordChangeNow": True}, 5, True),
        ({"passwordChangeMaxUSec": 100}, 10_000, True),
        ({"passwordChangeMaxUSec": 100, "passwordChangeInactiveUSec": 50}, 149, True),
        ({"passwordChangeMaxUSec": 100, "passwordChangeInactiveUSec": 50}, 150, False),
        ({"passwordChangeInactiveUSec": 50}, 10_000, True),
        ({"passwordChangeMinUSec": (1 << 64) - 1}, 10_000, False),
        ({"passwordChangeMinUSec": 100}, -5, True),
    ],
)
def test_ageing_decides_whether_a_change_is_possible(
    settings: JsonObject, age: int, allowed: bool
) -> None:
    view = effective({}, lastPasswordChangeUSec=1_000, **settings)
    if allowed:
        password.may_change(view, 1_000 + age)
    else:
        with pytest.raises(AccessDenied, match="alice"):
            password.may_change(view, 1_000 + age)


def test_without_a_stamp_there_is_nothing_to_count_from() -> None:
    password.may_change(effective({}, passwordChangeMinUSec=100), 5)


def test_the_refusal_says_how_long_to_wait() -> None:
    view = effective({}, lastPasswordChangeUSec=0, passwordChangeMinUSec=7_200_000_000)
    with pytest.raises(AccessDenied, match="in 2 hours"):
        password.may_change(view, 1)


@pytest.mark.parametrize(
    ("usec", "words"),
    [
        (0, "0 seconds"),
        (1, "1 second"),
        (1_000_000, "1 second"),
        (1_000_001, "2 seconds"),
        (119_000_000, "119 seconds"),
        (120_000_000, "2 minutes"),
        (121_000_000, "3 minutes"),
        (7_200_000_000, "2 hours"),
        (172_800_000_000, "2 days"),
    ],
)
def test_durations_in_words(usec: int, words: str) -> None:
    assert password.duration(usec) == words
