"""Places where no home may be stored or shown: refused with the reason, and left as they are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from homemgr.wire.messages import BusError
from tests.service import people
from tests.service.site import Service, short


@pytest.fixture(autouse=True)
def nothing_changes(service: Service) -> Iterator[None]:
    """Whatever was refused, disk and list of homes are as before."""
    service.site.base.mkdir(0o700, exist_ok=True)
    before, homes = service.site.digest(), service.states()
    yield
    assert service.site.digest() == before
    assert service.states() == homes


@pytest.fixture(scope="module")
def anna(service: Service) -> Service:
    """The service with one good home."""
    service.create("anna")
    return service


def refused_path(service: Service, **fields: str) -> BusError:
    return service.failure("CreateHome", "s", people.text(people.record("kim", **fields)))


@pytest.fixture
def place(service: Service) -> Iterator[Path]:
    """A directory on the same disk that only root may enter."""
    path = service.site.home_root.parent / "place"
    path.mkdir(0o700)
    yield path
    for entry in path.iterdir():
        entry.rmdir() if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    path.rmdir()


def test_image_path_of_ones_own_choice_is_used(anna: Service, place: Path) -> None:
    anna.create("kim", imagePath=str(place / "kim.homedir"))
    assert (place / "kim.homedir" / ".identity").exists()
    anna.activate("kim")
    anna.deactivate("kim")
    anna.call("RemoveHome", "s", "kim")
    assert list(place.iterdir()) == []


def test_image_path_in_a_world_searchable_directory_is_refused(anna: Service, place: Path) -> None:
    place.chmod(0o755)
    failure = refused_path(anna, imagePath=str(place / "kim.homedir"))
    assert short(failure.name) == "System.Error.EPERM"
    assert f"{place} belongs to 0:0 with mode 0755" in failure.message
    assert list(place.iterdir()) == []


def test_parent_that_a_user_can_write_is_refused(anna: Service, place: Path) -> None:
    (place / "theirs").mkdir()
    for owner, mode in ((60111, 0o700), (0, 0o777), (0, 0o1777)):
        os.chown(place / "theirs", owner, owner)
        (place / "theirs").chmod(mode)
        for field in ("imagePath", "homeDirectory"):
            failure = refused_path(anna, **{field: str(place / "theirs" / "kim")})
            assert short(failure.name) == "System.Error.EPERM"
            assert str(place / "theirs") in failure.message
            assert str(owner) in failure.message
    assert list((place / "theirs").iterdir()) == []


def test_link_of_a_user_on_the_way_is_refused(anna: Service, place: Path) -> None:
    (place / "real").mkdir(0o700)
    (place / "link").symlink_to("real")
    os.chown(place / "link", 60111, 60111, follow_symlinks=False)
    failure = refused_path(anna, imagePath=str(place / "link" / "kim.homedir"))
    assert short(failure.name) == "System.Error.EPERM"
    assert "60111" in failure.message
    assert list((place / "real").iterdir()) == []


def test_directory_that_does_not_exist_is_named(anna: Service, place: Path) -> None:
    failure = refused_path(anna, imagePath=str(place / "none" / "kim.homedir"))
    assert short(failure.name) == "FileNotFound"
    assert str(place / "none") in failure.message


def test_existing_target_is_kept(anna: Service, place: Path) -> None:
    target = place / "kim.homedir"
    target.mkdir()
    assert short(refused_path(anna, imagePath=str(target)).name) == "System.Error.EEXIST"
    target.rmdir()
    target.symlink_to("/nowhere")
    assert short(refused_path(anna, imagePath=str(target)).name) == "System.Error.EEXIST"
    target.unlink()
    target.write_text("mine")
    assert short(refused_path(anna, imagePath=str(target)).name) == "System.Error.EEXIST"
    assert target.read_text() == "mine"


def test_existing_home_directory_is_kept(anna: Service, place: Path) -> None:
    target = place / "kim"
    target.write_text("mine")
    failure = refused_path(anna, homeDirectory=str(target))
    assert short(failure.name) == "System.Error.EEXIST"
    assert str(target) in failure.message


def test_image_of_another_home_is_not_taken(anna: Service) -> None:
    image = anna.site.base / "anna.homedir"
    assert short(refused_path(anna, imagePath=str(image)).name) == "System.Error.EEXIST"
