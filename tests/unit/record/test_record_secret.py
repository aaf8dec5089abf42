"""Secrets: lenient in, stars out, recovery keys in one spelling."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_samples import RECORD

from homemgr.errors import InvalidArgs
from homemgr.record.jsontext import Json, JsonObject
from homemgr.record.model import UserRecord
from homemgr.record.secret import (
    MAX_PASSWORDS,
    Secret,
    normalise_recovery_key,
)

PRESENCE = "fido2UserPresencePermitted"
RECOVERY_KEY = "-".join(["cbdefghi", "jklnrtuv"] * 4)


@pytest.mark.parametrize(
    ("text", "passwords", "pins"),
    [
        ("{}", (), ()),
        ('{"password":["one","two"]}', ("one", "two"), ()),
        ('{"password":"one"}', ("one",), ()),
        ('{"password":null}', (), ()),
        ('{"password":["one","two","one"]}', ("one", "two"), ()),
        ('{"tokenPin":"1","pkcs11Pin":["2","1"]}', (), ("1", "2")),
        ('{"password":[""]}', ("",), ()),
        ('{"password":["Zo\\u00eb \\"x\\""],"org.example":1}', ('Zoë "x"',), ()),
    ],
)
def test_secret_argument(text: str, passwords: tuple[str, ...], pins: tuple[str, ...]) -> None:
    secret = Secret.parse(text)
    assert (secret.passwords, secret.token_pins) == (passwords, pins)
    assert secret.is_empty == (not passwords and not pins)


@pytest.mark.parametrize(
    "text",
    ["", "[]", '"hunter2"', '{"password":["hunter2",5]}', '{"password":{"hunter2":1}}',
     '{"password":["hunter2"', '{"tokenPin":5}', f'{{"{PRESENCE}":"hunter2"}}',
     '{"password":"hunter2\\u0000"}', '{"password":"hunter2","password":"hunter2"}'],
)  # fmt: skip
def test_malformed_secrets_are_refused_without_repeating_them(text: str) -> None:
    with pytest.raises(InvalidArgs) as caught:
        Secret.parse(text)
    assert "hunter2" not in caught.value.message


def test_refusals_say_where_in_the_argument() -> None:
    with pytest.raises(InvalidArgs) as caught:
        Secret.parse('{"password":["a",5]}')
    assert caught.value.message == ".password[1]: expected a string, found a number."
    record = UserRecord({**RECORD, "secret": {"password": 5}})
    with pytest.raises(InvalidArgs) as caught:
        Secret.of_record(record)
    assert caught.value.message == ".secret.password: expected a string, found a number."


def test_guessing_past_the_rate_limit_in_one_call_is_refused() -> None:
    many = [f"guess{number}" for number in range(MAX_PASSWORDS + 1)]
    with pytest.raises(InvalidArgs, match="too many"):
        Secret.parse(json.dumps({"password": many}))
    with pytest.raises(InvalidArgs, match="too many"):
        Secret(token_pins=many)
    assert len(Secret(many[:-1]).passwords) == MAX_PASSWORDS


def test_permissions_are_kept_and_false_is_not_missing() -> None:
    secret = Secret.parse(f'{{"{PRESENCE}":false,"fido2UserVerificationPermitted":true}}')
    assert secret.flags == {PRESENCE: False, "fido2UserVerificationPermitted": True}
    assert Secret.parse(f'{{"{PRESENCE}":null}}').flags == {}


def test_secret_of_a_record() -> None:
    assert Secret.of_record(UserRecord(dict(RECORD))).is_empty
    record = UserRecord({**RECORD, "secret": {"password": "pw"}})
    assert Secret.of_record(record).passwords == ("pw",)


def test_merged_keeps_order_and_any_permission() -> None:
    first = Secret(["new", "both"], ["1"], {PRESENCE: True})
    second = Secret(["both", "old"], ["2"], {PRESENCE: False})
    merged = first.merged(second)
    assert merged.passwords == ("new", "both", "old")
    assert merged.token_pins == ("1", "2")
    assert merged.flags == {PRESENCE: True}
    assert second.merged(first).flags == {PRESENCE: True}


@given(
    st.lists(st.text(max_size=5), max_size=4),
    st.lists(st.text(max_size=5), max_size=4),
    st.dictionaries(st.just(PRESENCE), st.booleans()),
)
def test_json_form_reads_back(
    passwords: list[str], pins: list[str], flags: dict[str, bool]
) -> None:
    secret = Secret(passwords, pins, flags)
    again = Secret.from_json(secret.to_json())
    assert again.to_json() == secret.to_json()
    assert (again.passwords, again.token_pins) == (secret.passwords, secret.token_pins)


def test_an_empty_secret_is_an_empty_object() -> None:
    assert Secret().to_json() == {}


def test_it_shows_stars() -> None:
    secret = Secret(["hunter2"], ["1234"])
    for text in (repr(secret), str(secret), f"{secret}", f"{[secret]}"):
        assert "hunter2" not in text
        assert "1234" not in text
        assert "***" in text


def test_it_is_not_serialised_by_accident() -> None:
    secret = Secret(["hunter2"])
    for serialise in (json.dumps, pickle.dumps, copy.deepcopy, copy.copy, vars, dict):
        with pytest.raises(TypeError):
            serialise(secret)


# --- recovery keys, defect 6 of homed 262: only one spelling opened the slots --------


@pytest.mark.parametrize(
    "typed",
    [RECOVERY_KEY, RECOVERY_KEY.upper(), RECOVERY_KEY.replace("-", ""),
     RECOVERY_KEY.replace("-", "").upper(), RECOVERY_KEY.title()],
)  # fmt: skip
def test_every_spelling_of_a_recovery_key_is_the_one_that_is_hashed(typed: str) -> None:
    assert normalise_recovery_key(typed) == RECOVERY_KEY
    assert len(RECOVERY_KEY) == 71


@pytest.mark.parametrize(
    "typed",
    ["", "hunter2", RECOVERY_KEY[:-1], RECOVERY_KEY + "c", RECOVERY_KEY.replace("c", "a"),
     RECOVERY_KEY.replace("-", " "), RECOVERY_KEY.replace("-", "", 1), RECOVERY_KEY + "-",
     "-" + RECOVERY_KEY, "--------" * 8, "c" * 63 + "İ"],
)  # fmt: skip
def test_other_texts_are_no_recovery_keys(typed: str) -> None:
    assert normalise_recovery_key(typed) is None


@given(st.binary(min_size=32, max_size=32))
def test_any_key_survives_its_spellings(raw: bytes) -> None:
    letters = "".join("cbdefghijklnrtuv"[n] for b in raw for n in (b >> 4, b & 15))
    dashed = normalise_recovery_key(letters)
    assert dashed is not None
    assert dashed.replace("-", "") == letters
    assert normalise_recovery_key(dashed.upper()) == dashed


def test_members_of_another_type_never_reach_the_message(record: UserRecord) -> None:
    members: list[Json] = [{"hunter2": "hunter2"}, ["hunter2", ["hunter2"]], 5]
    for value in members:
        broken: JsonObject = {"password": value}
        with pytest.raises(InvalidArgs) as caught:
            Secret.of_record(record.replaced(secret=broken))
        assert "hunter2" not in caught.value.message
