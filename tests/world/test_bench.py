"""The measurements work: with numbers so small that the figures prove nothing."""

from __future__ import annotations

import pytest

from tests.bench import extension, login, migrate, migrate_btrfs, storage, table
from tests.bench.goals import GOALS
from tests.bench.inside.plan import SMALL


@pytest.mark.usefixtures("machine")
def test_every_figure_is_measured_with_both_services() -> None:
    rows = table.rows(login.measure(SMALL))
    assert [row.goal for row in rows] == list(GOALS)
    assert [row.goal.key for row in rows if row.homed is None] == [
        goal.key for goal in GOALS if goal.key.endswith(" many")
    ]
    assert len(table.render(rows).splitlines()) == len(GOALS) + 1


@pytest.mark.usefixtures("machine")
def test_every_storage_is_measured_with_both_services() -> None:
    rows = table.rows(storage.measure(SMALL), storage.GOALS)
    assert [row.goal for row in rows] == list(storage.GOALS)
    assert [row.goal.key for row in rows if row.homed is None] == ["lock fscrypt", "unlock fscrypt"]


@pytest.mark.usefixtures("machine")
def test_extensions_are_measured_in_every_place() -> None:
    samples = extension.measure(SMALL)
    assert list(samples["activations"]) == [
        "without",
        "few",
        "many",
        "erofs",
        "squashfs",
        "composefs",
    ]
    assert {tuple(places) for places in samples["operations"].values()} == {
        ("plain", "idmapped", "overlay")
    }
    assert "extension of 100 files" in extension.render(samples, SMALL.files)


@pytest.mark.usefixtures("machine")
def test_migrations_are_measured_beside_what_people_use() -> None:
    samples = migrate.measure(migrate.SMALL_HOME)
    assert {what: set(by_who) for what, by_who in samples.runs.items()} == {
        "first copy": {"tar | zstd -1", "tar | zstd -1, sync", "rsync -z", "rsync", "homemgr"},
        "no change": {"rsync", "homemgr"},
        "1 % changed": {"rsync", "homemgr"},
    }
    assert samples.offline_s > 0
    assert samples.memory_bytes > 0
    assert "aim" in migrate.render(samples)


@pytest.mark.usefixtures("machine")
def test_migrations_between_two_btrfs_are_measured_beside_its_own_send() -> None:
    samples = migrate_btrfs.measure(migrate.SMALL_HOME)
    assert {what: set(by_who) for what, by_who in samples.runs.items()} == {
        "first copy": {"btrfs send", "homemgr"},
        "no change": {"btrfs send", "homemgr"},
        "1 % changed": {"btrfs send", "homemgr"},
    }
    assert samples.offline_s > 0
    assert "aim" in migrate_btrfs.render(samples)
