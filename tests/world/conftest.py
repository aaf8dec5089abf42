"""Fixtures of the world: one box per module and world, a fresh user per test, nothing left over."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from . import hands, machines, users
from .box import Box, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

HERE = Path(__file__).parent
TEST_TIMEOUT_S = 300  # the first one in a fresh checkout also builds the layers


@dataclass(frozen=True)
class World:
    """What a box of a module is made of."""

    daemon: str = "homemgr"
    base: str = "debian12"
    file_system: str = "ext4"
    files: tuple[tuple[str, str], ...] = field(default=())

    def __str__(self) -> str:
        """The name of the world in test ids."""
        special = [self.file_system] if self.file_system != "ext4" else []
        special += [Path(name).name for name, _ in self.files]
        return "-".join([self.daemon, self.base, *special])


# The newest: 252 gives a home to two of three sessions only, which would prove nothing.
REFERENCE = World("homed", "sid")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers that only this directory knows."""
    for marker in (
        "reference: runs against systemd-homed too, to prove the world itself",
        "base(name): only in boxes of this distribution",
    ):
        config.addinivalue_line("markers", marker)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs root and time."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.world)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(TEST_TIMEOUT_S))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A module names its worlds in WORLDS; a test marked `reference` adds systemd-homed."""
    if "box" not in metafunc.fixturenames:
        return
    worlds = list(getattr(metafunc.module, "WORLDS", (World(),)))
    if metafunc.definition.get_closest_marker("reference"):
        worlds.append(REFERENCE)
    if only := metafunc.definition.get_closest_marker("base"):
        worlds = [world for world in worlds if world.base in only.args]
    metafunc.parametrize("box", worlds, indirect=True, ids=str, scope="module")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows what the home service logged."""
    report = yield
    box = getattr(item, "funcargs", {}).get("box")
    if report.failed and isinstance(box, Box) and box.pid1:
        report.sections.append((f"journal of {box.service}", box.journal(box.service, lines=80)))
        report.sections.append(("journal", box.journal(lines=80)))
    return report


@pytest.fixture(scope="session")
def machine() -> None:
    """What this machine must be able to do; on a laptop a lack skips, in CI it fails."""
    missing = [tool for tool in ("unshare", "nsenter", "mkfs.ext4") if not shutil.which(tool)]
    if os.geteuid() != 0:
        missing.append("root")
    if not shutil.which("apt-get"):
        missing.append("Debian")
    if missing:
        reason = f"boxes need {', '.join(missing)}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(scope="module")
def box(request: pytest.FixtureRequest, machine: None) -> Iterator[Box]:
    """A booted machine, shared by the tests of a module."""
    world: World = request.param
    with Box(
        world.daemon,
        base=world.base,
        file_system=world.file_system,
        files=dict(world.files),
    ) as booted:
        yield booted


@pytest.fixture(scope="module")
def pair(machine: None) -> Iterator[tuple[Box, Box]]:
    """Two machines with a wire between them, and with different systems."""
    with Box() as one, Box(base="sid") as other, machines.wired(one, other):
        yield one, other


@pytest.fixture
def here(pair: tuple[Box, Box]) -> Box:
    """The machine where homes begin."""
    return pair[0]


@pytest.fixture
def there(pair: tuple[Box, Box]) -> Box:
    """The other one, of the newest system."""
    return pair[1]


@pytest.fixture
def homed(box: Box) -> Iterator[Box]:
    """A box with both, where systemd-homed serves before and after."""
    yield box
    hands.give_back(box)


@pytest.fixture
def nothing_left(box: Box) -> Iterator[None]:
    """After a test the box must look as before it."""
    before = _Traces.of(box)
    yield
    wait_for(
        lambda: not _Traces.of(box).beyond(before),
        "nothing of the test is left",
        timeout_s=20,
        describe=lambda: "; ".join(_Traces.of(box).beyond(before)),
    )


@pytest.fixture
def new_user(box: Box, nothing_left: None) -> Iterator[Callable[..., users.User]]:
    """Makes users as users.create does; they are removed after the test."""
    made: list[users.User] = []

    def make(*options: str, name: str = "", password: str = "") -> users.User:
        made.append(users.create(box, *options, name=name, password=password))
        return made[-1]

    yield make
    for user in made:
        users.remove(user)


@pytest.fixture
def alice(new_user: Callable[..., users.User]) -> users.User:
    """A fresh user with an inactive home."""
    return new_user()


@dataclass
class _Traces:
    """What a test could leave in a box."""

    mounts: set[str]
    people: set[str]
    references: set[str]
    homes: set[str]
    daemon: int
    descriptors: int

    @classmethod
    def of(cls, box: Box) -> _Traces:
        """Look at all of it."""
        pid = box.main_pid()
        return cls(
            mounts=set(box.mounts()),
            people={line for line in box.people() if line},
            references=_references(box),
            homes=_names(box.path("/home")) | _names(box.path("/home/.homemgr")),
            daemon=pid,
            descriptors=len(box.run(["ls", f"/proc/{pid}/fd"], check=False).stdout.split()),
        )

    def beyond(self, before: _Traces) -> list[str]:
        """What is here that was not there before, in words."""
        more = [
            *(f"mount {path}" for path in sorted(self.mounts - before.mounts)),
            *(f"process {line}" for line in sorted(self.people - before.people)),
            *(f"reference {name}" for name in sorted(self.references - before.references)),
            *(f"home {name}" for name in sorted(self.homes - before.homes)),
        ]
        # A few are allowed for caches; a restarted service starts its count anew.
        if self.daemon == before.daemon and self.descriptors > before.descriptors + 4:
            more.append(f"{self.descriptors - before.descriptors} descriptors of the service")
        return more


def _references(box: Box) -> set[str]:
    # systemd-homed leaves its FIFOs until the machine is shut down.
    if box.daemon != "homemgr":
        return set()
    return {entry.name for entry in box.path("/run/systemd/home").glob("*-suspend")}


def _names(directory: Path) -> set[str]:
    # The base directory appears with the first home and stays.
    return {entry.name for entry in directory.glob("*")} - {".homemgr"}
