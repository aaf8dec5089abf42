"""From what udev says of partitions to the homes that are offered."""

from __future__ import annotations

import logging

import pytest

from homemgr import errors
from homemgr.daemon.sticks import MOST, Sticks, image_of
from homemgr.storage.devices import told
from homemgr.volume.probe import USER_HOME

UUID = "0f3a3c0e-8f57-4b4f-9f0c-0d9f7c7d1a01"
OTHER = "0f3a3c0e-8f57-4b4f-9f0c-0d9f7c7d1a02"
BY_UUID = "/dev/disk/by-uuid/"


def properties(
    name: str = "anna", uuid: str = UUID, content: str = "crypto_LUKS"
) -> dict[str, str]:
    return {"ID_PART_ENTRY_NAME": name, "ID_FS_TYPE": content, "ID_FS_UUID": uuid}


@pytest.mark.parametrize(
    ("change", "is_ours"),
    [
        ({}, True),
        ({"ID_PART_ENTRY_TYPE": "933ac7e1-2eb4-4f13-b844-0e14e2aef915"}, False),
        ({"ID_PART_ENTRY_TYPE": USER_HOME.upper()}, False),
        ({"ID_PART_ENTRY_SCHEME": "dos"}, False),
        ({"ID_PART_ENTRY_SCHEME": None}, False),
    ],
)
def test_only_partitions_for_homes_count(change: dict[str, str | None], is_ours: bool) -> None:
    said = {"ID_PART_ENTRY_SCHEME": "gpt", "ID_PART_ENTRY_TYPE": USER_HOME, "DEVNAME": "/dev/sda1"}
    every = {**said, **properties(), **change}
    found = told({name: value for name, value in every.items() if value is not None})
    assert found == (properties() if is_ours else None)


def test_a_partition_offers_the_home_that_it_is_called_after() -> None:
    image = image_of(properties("anna@example.com"))
    assert image.path == f"/dev/disk/by-uuid/{UUID}"
    assert (image.user, image.realm, image.storage) == ("anna", "example.com", "luks")
    # A disk has no owner that a uid could be chosen by.
    assert image.owner is None


@pytest.mark.parametrize(
    "wrong",
    [
        properties(""),
        properties("root"),
        properties("1000"),
        properties("../etc"),
        properties("anna\\x20bert"),
        properties("anna bert"),
        properties("änne"),
        properties("systemd-home"),
        properties("a" * 32),
        properties("anna@"),
        properties("anna@-.-/"),
        properties(uuid=""),
        properties(uuid="../../sda1"),
        properties(uuid=UUID.upper()),
        properties(uuid="AB12-CD34"),
        properties(content=""),
        properties(content="vfat"),
        properties(content="ext4"),
        properties(content="iso9660"),
        {},
    ],
)
def test_what_offers_no_home(wrong: dict[str, str]) -> None:
    with pytest.raises(errors.HomeError):
        image_of(wrong)


def paths(sticks: Sticks) -> list[str]:
    return [image.path.rpartition("/")[2] for image in sticks]


def test_sticks_come_and_go() -> None:
    sticks = Sticks()
    assert sticks.note("/sys/a", properties())
    assert not sticks.note("/sys/a", properties())
    assert not sticks.note("/sys/b", None)
    assert sticks.note("/sys/b", properties("bert", OTHER))
    assert paths(sticks) == [UUID, OTHER]
    assert sticks.take_pulled() == set()
    assert sticks.note("/sys/a", None)
    assert paths(sticks) == [OTHER]
    assert sticks.is_away(f"/dev/disk/by-uuid/{UUID}")
    assert not sticks.is_away(f"/dev/disk/by-uuid/{OTHER}")
    assert sticks.take_pulled() == {f"/dev/disk/by-uuid/{UUID}"}
    assert sticks.take_pulled() == set()


def test_one_that_is_called_otherwise_by_now_is_another() -> None:
    sticks = Sticks()
    sticks.note("/sys/a", properties())
    assert sticks.note("/sys/a", properties("bert"))
    assert [image.user for image in sticks] == ["bert"]
    assert sticks.note("/sys/a", properties("root"))
    assert paths(sticks) == []


def test_pulled_and_back_between_two_looks_was_pulled() -> None:
    sticks = Sticks()
    sticks.note("/sys/a", properties())
    sticks.note("/sys/a", None)
    sticks.note("/sys/a", properties())
    assert paths(sticks) == [UUID]
    assert len(sticks.take_pulled()) == 1


def test_copies_of_a_stick_are_one_home() -> None:
    sticks = Sticks()
    sticks.note("/sys/a", properties())
    sticks.note("/sys/b", properties())
    assert paths(sticks) == [UUID]
    sticks.note("/sys/a", None)
    assert paths(sticks) == [UUID]
    assert not sticks.is_away(f"/dev/disk/by-uuid/{UUID}")


def test_after_lost_events_all_is_as_it_was_found() -> None:
    sticks = Sticks()
    sticks.note("/sys/a", properties())
    sticks.note("/sys/b", properties("root"))
    sticks.replace({"/sys/c": properties("bert", OTHER)})
    assert paths(sticks) == [OTHER]
    # What was known may have been away: who uses it is to look.
    assert len(sticks.take_pulled()) == 1


def test_one_disk_of_many_partitions_does_not_fill_everything() -> None:
    sticks = Sticks()
    for number in range(MOST + 10):
        uuid = f"0f3a3c0e-8f57-4b4f-9f0c-{number:012x}"
        sticks.note(f"/sys/{number}", properties(f"user{number}", uuid))
    assert len(paths(sticks)) == MOST


def test_a_disk_of_many_partitions_keeps_nobody_away_who_was_here_before() -> None:
    sticks = Sticks()
    sticks.note("/sys/a", properties())
    sticks.note("/sys/a", None)
    for number in range(MOST):
        uuid = f"0f3a3c0e-8f57-4b4f-9f0c-{number:012x}"
        sticks.note(f"/sys/{number}", properties(f"user{number}", uuid))
    assert sticks.is_away(BY_UUID + UUID)
    # There is no room for it, but it is there again.
    assert sticks.note("/sys/a", properties())
    assert not sticks.is_away(BY_UUID + UUID)
    assert UUID not in paths(sticks)
    sticks.note("/sys/0", None)
    assert len(paths(sticks)) == MOST
    assert UUID in paths(sticks)
    # One that goes before there is room does not come back.
    sticks.note("/sys/b", properties("bert", OTHER))
    sticks.note("/sys/b", None)
    sticks.note("/sys/c", properties("carl", OTHER))
    sticks.replace({"/sys/d": properties("dora")})
    assert [image.user for image in sticks] == ["dora"]


def test_paths_of_no_home_are_forgotten() -> None:
    sticks = Sticks()
    for place, uuid in (("/sys/a", UUID), ("/sys/b", OTHER)):
        sticks.note(place, properties(uuid=uuid))
        sticks.note(place, None)
    sticks.forget_but({BY_UUID + OTHER})
    assert not sticks.is_away(BY_UUID + UUID)
    assert sticks.is_away(BY_UUID + OTHER)


def test_what_is_ignored_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    sticks = Sticks()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            sticks.note("/sys/a", properties("root"))
    assert len(caplog.messages) == 1
    assert "/sys/a" in caplog.messages[0]
    sticks.note("/sys/a", None)
    with caplog.at_level(logging.WARNING):
        sticks.note("/sys/a", properties("root"))
    assert len(caplog.messages) == 2


def test_a_hostile_name_is_one_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Sticks().note("/sys/a", properties("anna\n<0>panic\x1b[2J"))
    assert "\n" not in caplog.text.rstrip("\n")
    assert "\x1b" not in caplog.text
