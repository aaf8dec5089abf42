"""The table itself: every row is sound, and agrees with the interface reference."""

from __future__ import annotations

import pytest

from homemgr.errors import InvalidRecord
from homemgr.record.fields import FIELDS, IDMAP_POLICY, SECTION_LETTERS, Field
from homemgr.record.jsontext import Json


@pytest.mark.parametrize("field", FIELDS.values(), ids=lambda field: field.name)
def test_row_is_sound(field: Field) -> None:
    assert field.sections
    assert set(field.sections) <= set(SECTION_LETTERS)
    assert field.doc.endswith(".")
    if field.default is not None:
        assert field.rule.read(field.default, f".{field.name}") == field.default


def test_names_are_unique() -> None:
    assert all(name == field.name for name, field in FIELDS.items())
    assert len(FIELDS) > 110


def test_secrets_stand_in_no_other_section() -> None:
    for field in FIELDS.values():
        if set(field.sections) & set("PX"):
            assert len(field.sections) == 1, field.name


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("shell", "/bin/bash"),
        ("skeletonDirectory", "/etc/skel"),
        ("accessMode", 0o700),
        ("autoLogin", False),
        ("enforcePasswordPolicy", True),
        ("rateLimitIntervalUSec", 60_000_000),
        ("rateLimitBurst", 30),
        ("mountNoSuid", True),
        ("mountNoDevices", True),
        ("mountNoExecute", False),
        ("uid", None),
        ("storage", None),
        ("imagePath", None),
        (IDMAP_POLICY, "homed"),
    ],
)
def test_defaults_are_those_of_homed(name: str, default: Json) -> None:
    assert FIELDS[name].default == default


@pytest.mark.parametrize(
    ("name", "sections"),
    [
        ("userName", "R"),
        ("aliases", "RS"),
        ("uid", "RMB"),
        ("homeDirectory", "RB"),
        ("storage", "RMB"),
        ("diskSize", "RMS"),
        ("accessMode", "RMS"),
        ("memberOf", "RM"),
        ("selfModifiableFields", "RM"),
        ("hashedPassword", "P"),
        ("password", "X"),
        (IDMAP_POLICY, "RB"),
    ],
)
def test_sections_are_those_of_homed(name: str, sections: str) -> None:
    assert FIELDS[name].sections == sections


def test_the_idmap_policy_is_one_of_two_words() -> None:
    rule = FIELDS[IDMAP_POLICY].rule
    assert [rule.read(word, "") for word in ("strict", "homed")] == ["strict", "homed"]
    with pytest.raises(InvalidRecord):
        rule.read("none", "")


def test_the_secret_names_of_self_service_exist() -> None:
    for which, length in (("selfModifiableFields", 18), ("selfModifiablePrivileged", 6)):
        default = FIELDS[which].default
        assert isinstance(default, list)
        assert len(default) == length
        assert all(name in FIELDS for name in default)
