"""Notes of snapshots: whatever is stored is read again, whatever else is refused."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homemgr.errors import InvalidArgs, InvalidRecord
from homemgr.record import snapshots
from homemgr.record.jsontext import pretty
from homemgr.record.model import UserRecord
from homemgr.record.snapshots import HOWS, KEPT, KEPT_S, Note

RECORD = UserRecord({"userName": "alice", "privileged": {"hashedPassword": ["$6$x"]}})
NAMES = st.from_regex(re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}"), fullmatch=True)
TEXTS = st.text(st.characters(exclude_categories=("C", "Z")), max_size=255)
NUMBERS = st.integers(0, (1 << 53) - 1)
NOTES = st.builds(
    Note, NAMES, NUMBERS, NUMBERS, TEXTS, st.booleans(), st.sampled_from(HOWS), st.just(RECORD)
)
DAY_USEC = 86_400_000_000


@given(NOTES)
def test_what_is_stored_is_read_again(note: Note) -> None:
    found = snapshots.parse(pretty(note.to_json()).encode())
    assert found._replace(record=RECORD) == note
    assert found.record.data == note.record.data
    assert "hashedPassword" not in json.dumps(note.shown())


@given(NOTES, st.data())
def test_no_other_note_is_taken(note: Note, data: st.DataObject) -> None:
    stored = note.to_json()
    member = data.draw(st.sampled_from(sorted(stored)))
    odd = data.draw(st.sampled_from([None, -1, 1.5, True, "", "..", "a/b", "x\n", [], {}]))
    stored[member] = odd  # type: ignore[assignment]
    try:
        found = snapshots.parse(json.dumps(stored).encode())
    except InvalidRecord:
        return
    # What is taken nevertheless is what it says.
    assert {**found.to_json(), "record": stored["record"]} == stored


@given(st.binary(max_size=200))
def test_garbage_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidRecord):
        snapshots.parse(text)


@given(st.lists(NOTES, max_size=20, unique_by=lambda note: note.name), NUMBERS)
def test_only_those_nobody_asked_for_go_and_the_oldest_first(
    notes: list[Note], now_usec: int
) -> None:
    gone = set(snapshots.surplus(notes, now_usec))
    automatic = [note for note in notes if note.is_automatic]
    assert gone <= {note.name for note in automatic}
    kept = [note for note in automatic if note.name not in gone]
    assert len(kept) <= KEPT
    assert all(now_usec - note.taken_usec <= KEPT_S * 1_000_000 for note in kept)
    for note in automatic:
        if note.name in gone and now_usec - note.taken_usec <= KEPT_S * 1_000_000:
            assert len(kept) == KEPT
            assert all(other.taken_usec >= note.taken_usec for other in kept)


@given(NUMBERS.filter(lambda n: n < 200_000 * DAY_USEC), st.integers(0, 5))
def test_made_names_are_names_and_new(taken_usec: int, others: int) -> None:
    taken: list[str] = []
    for _ in range(others + 1):
        taken.append(snapshots.check_name(snapshots.name_for(taken_usec, taken, "before-x-")))
    assert len(set(taken)) == len(taken)


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "a\n", "-x", "ä", "a" * 101])
def test_what_could_lead_elsewhere_is_no_name(name: str) -> None:
    with pytest.raises(InvalidArgs):
        snapshots.check_name(name)
