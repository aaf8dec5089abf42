"""Projects of homes whose users have chosen some of their own, as Linux lets them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.kernel import quota
from homemgr.kernel.project import Project, get_project, set_project
from homemgr.storage import projects

#: The range that the product chooses from.
FIRST, END = 1 << 30, 1 << 31
TAKEN = quota.Usage(1 << 20, 1 << 10, 3)


@pytest.fixture(scope="module", autouse=True)
def disk(file_system: Callable[..., Path]) -> Path:
    """A file system with projects, mounted before anybody counts mounts."""
    return file_system("xfs", "xfs")


@pytest.fixture
def parent(disk: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place of homes; of those that are made no number is in use."""
    place = disk / "projects"
    place.mkdir()
    monkeypatch.setattr(quota, "usage", lambda _fd, _number: quota.Usage(0, 0, 0))
    yield place
    for name in ("anna.homedir", "bert.homedir"):
        (place / name).rmdir()
    place.rmdir()


def opened(path: Path) -> Fd:
    path.mkdir(exist_ok=True)
    return Fd.open(str(path), DIRECTORY_FLAGS)


def number_of(top: Fd) -> int:
    found = get_project(top.fileno())
    assert found.is_inherited
    return found.number


def test_a_project_that_the_user_chose_is_not_the_home_s(
    parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        opened(parent) as place,
        opened(parent / "anna.homedir") as anna,
        opened(parent / "bert.homedir") as bert,
    ):
        berts = projects.assign(bert, place)
        assert FIRST <= berts < END
        for chosen in (5, FIRST - 1, END, berts):
            set_project(anna.fileno(), Project(chosen, is_inherited=True))
            annas = projects.assign(anna, place)
            assert FIRST <= annas < END
            assert annas != berts
            assert number_of(anna) == annas
        assert number_of(bert) == berts
        # One of its own is kept.
        assert projects.assign(anna, place) == annas
        monkeypatch.setattr(quota, "usage", lambda _fd, _number: TAKEN)
        assert projects.usage(anna) == TAKEN
        set_project(anna.fileno(), Project(5, is_inherited=True))
        assert projects.usage(anna) is None
        projects.hand_over(anna, bert)
        assert number_of(bert) == berts
