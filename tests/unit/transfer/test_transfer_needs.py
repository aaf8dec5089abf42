"""What a home needs and a file system can do: compared, told, and read from strangers."""

from __future__ import annotations

import json

import pytest

from homemgr.errors import StreamError
from homemgr.transfer import frames, needs
from homemgr.transfer.entry import MAX_PATH
from homemgr.transfer.needs import Ability, Need

EVERYTHING = {ability: Need(2, b"deep/\xff\n") for ability in Ability}


def test_what_is_not_limited_or_not_needed_lacks_nothing() -> None:
    assert needs.lacking(EVERYTHING, {}) == ""
    assert needs.lacking({}, dict.fromkeys(Ability, 0)) == ""
    assert needs.lacking(EVERYTHING, dict.fromkeys(Ability, 2)) == ""


@pytest.mark.parametrize("ability", Ability)
def test_each_ability_that_is_lacking_is_named_with_the_place_that_needs_it(
    ability: Ability,
) -> None:
    text = needs.lacking(EVERYTHING, {ability: 1})
    assert r"'deep/\udcff\n'" in text
    assert text.isprintable()
    assert text != needs.lacking({ability: Need(1, b"other")}, {ability: 0})


def test_a_refusal_says_how_much_is_needed_and_how_much_is_taken() -> None:
    needed = {Ability.FILE_SIZE: Need(5 << 30, b"film"), Ability.ACLS: Need(1, b"note")}
    assert needs.lacking(needed, {Ability.FILE_SIZE: (4 << 30) - 1, Ability.ACLS: 0}) == (
        "a file of 5368709120 bytes ('film'; at most 4294967295), access control lists ('note')"
    )


def test_both_survive_json() -> None:
    told = json.loads(json.dumps(needs.needs_to_json(EVERYTHING)))
    assert needs.needs_from_json(told) == EVERYTHING
    limits = {Ability.NAME_LENGTH: 143, Ability.FILE_SIZE: (1 << 63) - 1}
    assert needs.limits_from_json(json.loads(json.dumps(needs.limits_to_json(limits)))) == limits


def test_the_longest_paths_fit_in_a_frame() -> None:
    """Each byte of them may take six in JSON."""
    deep = dict.fromkeys(Ability, Need(1, b"\xff" * MAX_PATH))
    frames.pack(frames.Control({"needs": needs.needs_to_json(deep)}))


def test_words_of_a_later_version_are_left_out() -> None:
    assert needs.needs_from_json({"telepathy": {"most": 1, "path": ""}}) == {}
    assert needs.limits_from_json({"telepathy": 0}) == {}


@pytest.mark.parametrize(
    "told",
    [
        None,
        [],
        {"acls": 1},
        {"acls": {"most": True, "path": ""}},
        {"acls": {"most": -1, "path": ""}},
        {"acls": {"most": 1 << 63, "path": ""}},
        {"acls": {"most": 1}},
        {"acls": {"most": 1, "path": "\ud800"}},
    ],
)
def test_malformed_needs_are_refused(told: object) -> None:
    with pytest.raises(StreamError):
        needs.needs_from_json(told)


@pytest.mark.parametrize("told", [None, [], {"acls": -1}, {"acls": 0.5}, {"acls": True}])
def test_malformed_limits_are_refused(told: object) -> None:
    with pytest.raises(StreamError):
        needs.limits_from_json(told)
