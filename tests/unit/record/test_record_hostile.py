"""Whatever a record holds: it is refused with an answer, or readable through and through."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st
from record_samples import MACHINE_ID, OTHER_ID, texts, values

from homemgr.errors import HomeError, HostileHome, InvalidArgs, UIDNotAllowed
from homemgr.record import changes, ratelimit, selfservice, slots, status
from homemgr.record.fields import FIELDS, MATCH_MEMBERS, UNITED, Field
from homemgr.record.machine import Machine
from homemgr.record.model import UserRecord
from homemgr.record.reconcile import reconcile
from homemgr.record.signature import LOCAL_PRIVATE, Keyring, PrivateKey, Verdict, sign, verdict
from homemgr.record.validate import Purpose, validate

if TYPE_CHECKING:
    from collections.abc import Callable

    from homemgr.record.effective import EffectiveRecord
    from homemgr.record.jsontext import Json, JsonObject

HERE = Machine(MACHINE_ID, "laptop")
KEY = PrivateKey.generate()
RING = Keyring({}, {LOCAL_PRIVATE: KEY})

# Values that are nearly right: the interesting branches are behind the first type test.
nearly = st.one_of(
    values,
    st.sampled_from([0, 1, -1, 60001, 65535, 1 << 63, "7", "0700", "/", "/home/a", "a", "luks"]),
    st.sampled_from([True, False, None, [], {}, ["a"], ["/x", 1], "regular", "strict"]),
)
known_members = st.dictionaries(st.sampled_from(sorted(FIELDS)), nearly, max_size=6)
matches = st.dictionaries(
    st.sampled_from(MATCH_MEMBERS),
    st.one_of(nearly, st.just(MACHINE_ID), st.just([OTHER_ID]), st.just("laptop")),
    max_size=2,
)
entries = st.builds(lambda a, b: {**a, **b}, known_members, matches)
local_sections = st.dictionaries(st.sampled_from([MACHINE_ID, OTHER_ID]), known_members)


@st.composite
def hostile(draw: st.DrawFn) -> JsonObject:
    """A record of well shaped sections with any content at all."""
    made: JsonObject = {**draw(known_members), **draw(st.dictionaries(texts, values, max_size=2))}
    made["userName"] = draw(st.one_of(st.just("alice"), texts))
    made.pop("realm", None)
    for name, section in (
        ("privileged", known_members),
        ("secret", known_members),
        ("binding", local_sections),
        ("status", local_sections),
        ("perMachine", st.lists(entries, max_size=3)),
        ("signature", st.lists(known_members, max_size=2)),
    ):
        if draw(st.booleans()):
            made[name] = draw(section)
    return made


def outcome(call: Callable[[], object], *failures: type[HomeError]) -> object:
    """What the call gives, or the failure it answers with; any other failure is a bug."""
    try:
        return call()
    except failures as error:
        return error


def loaded(data: JsonObject) -> UserRecord | None:
    """The record as it comes off the wire, or None if it is refused."""
    result = outcome(lambda: UserRecord.parse(json.dumps(data)), InvalidArgs)
    assert isinstance(result, UserRecord) or str(result).startswith(".")
    return result if isinstance(result, UserRecord) else None


def read_all(view: EffectiveRecord) -> None:
    """Read every typed property; none may fail, whatever the record holds."""
    for name in dir(type(view)):
        if isinstance(getattr(type(view), name), property):
            getattr(view, name)
    for name in FIELDS:
        view.get(name)


@settings(max_examples=100)
@given(hostile())
def test_a_record_is_refused_or_readable(data: JsonObject) -> None:
    record = loaded(data)
    if record is None:
        return
    read_all(record.on(HERE))
    assert UserRecord.parse(record.pretty()).compact() == record.compact()
    assert list(status.memberships(record, HERE))[-1] == (record.name, record.name)
    status.group_record(record, HERE)
    status.synthesize(record.on(HERE), state="active", is_active=True, fallback_shell="/x")


@settings(max_examples=100)
@given(hostile(), st.sampled_from(Purpose))
def test_validation_answers_with_the_failures_it_names(data: JsonObject, purpose: Purpose) -> None:
    record = loaded(data)
    if record is None:
        return
    result = outcome(
        lambda: validate(record, purpose, HERE), InvalidArgs, HostileHome, UIDNotAllowed
    )
    assert isinstance(result, UserRecord) or str(result).endswith(".")


@given(hostile(), hostile())
def test_rules_over_two_records_answer_as_well(first: JsonObject, second: JsonObject) -> None:
    host, other = loaded(first), loaded(second)
    if host is None or other is None:
        return
    assert isinstance(selfservice.may_update(host, other, HERE), bool)
    outcome(lambda: changes.check_update(host, other), HomeError)
    assert outcome(lambda: reconcile(host, other), HomeError)


@given(hostile())
def test_signing_works_on_anything_readable(data: JsonObject) -> None:
    record = loaded(data)
    if record is not None:
        assert verdict(record, RING) in (Verdict.UNSIGNED, Verdict.UNKNOWN)
        assert verdict(sign(record, KEY).embedded(), RING) is Verdict.EXCLUSIVE


@given(hostile(), st.integers(1, 1 << 62))
def test_counting_and_password_change_answer(data: JsonObject, now_usec: int) -> None:
    record = loaded(data)
    if record is None:
        return
    assert outcome(lambda: ratelimit.count(record.on(HERE), now_usec), HomeError)
    assert outcome(lambda: changes.with_new_password(record, ["h"], now_usec), HomeError)
    for slot in slots.listed(record):
        assert slots.find(record, slot.name) == slot
        left = outcome(partial(slots.without_slot, record, slot), HomeError)
        if isinstance(left, UserRecord):
            assert (slot.kind, slot.hashed) not in {(s.kind, s.hashed) for s in slots.listed(left)}


# --- merging, compared with a plain fold ------------------------------------------------


def readable(field: Field, value: Json) -> tuple[bool, Json]:
    """Whether a value counts at all, and as what."""
    if value is None:
        return True, None
    try:
        return True, field.rule.read(value, "")
    except InvalidArgs:
        return False, None


@given(hostile())
def test_effective_values_are_the_last_ones_in_order(data: JsonObject) -> None:
    record = loaded(data)
    if record is None:
        return
    sections: list[tuple[str, JsonObject]] = [("R", dict(record.data))]
    sections += [("P", dict(record.section("privileged")))]
    sections += [("M", entry) for entry in record.per_machine if HERE.matches(entry)]
    sections += [("B", dict(record.binding(MACHINE_ID))), ("S", dict(record.status(MACHINE_ID)))]
    for name, field in FIELDS.items():
        if name in UNITED or field.sections == "X":
            continue
        expected: Json = None
        for letter, members in sections:
            if letter in field.sections and name in members:
                counts, value = readable(field, members[name])
                expected = value if counts else expected
        if expected is None:
            expected = field.default
        assert record.on(HERE).get(name) == expected
