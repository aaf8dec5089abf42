"""Measures extensions in the box: what merging adds to an activation, what it does to file access.

Run as a module with the plan as its argument. Needs no other service to compare with:
the same homes without extensions are the measure.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

from .drive import Driver
from .homes import FILES_PER_DIRECTORY, FIRST_UID, NOBODY, RECORDS, RECORDS_ON_DISK, Homes
from .plan import Plan
from .service import OURS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    #: Seconds by kind of operation, then by where it was done.
    Operations = dict[str, dict[str, list[float]]]

#: On the disk of the homes, as on most machines, and not on the box's own overlay.
STORE = Path("/home/.extensions")
CONF = Path("/etc/homemgr/extensions.conf")
DROP_IN = Path("/run/systemd/system/homemgrd.service.d/bench.conf")
#: Images of many files, which were put into the store before: a box has no tools for them.
IMAGES = ("erofs", "squashfs", "composefs")
#: A home without extensions, and one with an extension of few and of many files.
PEOPLE = ("without", "few", "many", *IMAGES)
MERGED = ".local/share/corp"
FEW = 10
#: Files that one round of file operations works on, and the bytes in each.
WORKED_ON = 500
CONTENT = b"x" * 4096
PAUSE_S = 0.05


def main() -> None:
    """Measure what the plan says."""
    plan = Plan.from_json(sys.argv[1])
    OURS.stop()
    RECORDS_ON_DISK.mkdir(mode=0o700)
    subprocess.run(["mount", "--bind", str(RECORDS_ON_DISK), str(RECORDS)], check=True)
    homes = Homes()
    homes.wipe()
    for number, name in enumerate(PEOPLE):
        homes.add(name, FIRST_UID + number, files=FEW)
    _make_extensions(plan.files)
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    OURS.start()
    with Driver(homes.secret) as driver:
        activations = _activations(driver, plan)
        operations = _operations(driver, plan)
    json.dump({"activations": activations, "operations": operations}, sys.stdout)


def _make_extensions(many: int) -> None:
    for name, count in (("few", FEW), ("many", many)):
        top = STORE / name
        release = top / "usr/lib/extension-release.d" / f"extension-release.{name}"
        release.parent.mkdir(parents=True)
        release.write_text("ID=_any\n")
        fill(top / "home" / MERGED, count)
        subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", str(top / "home")], check=True)
        top.chmod(0o700)
    rules = [f"[Extension {name}]\nUsers={name}\n" for name in PEOPLE[1:]]
    CONF.parent.mkdir(parents=True, exist_ok=True)
    CONF.write_text("".join(rules))
    DROP_IN.parent.mkdir(parents=True, exist_ok=True)
    DROP_IN.write_text(f"[Service]\nEnvironment=HOMEMGR_EXTENSION_PATH={STORE}\n")


def fill(merged: Path, count: int, use: Callable[[Path], object] = Path.touch) -> None:
    """Make the directory ``merged`` with so many files, each by ``use``."""
    merged.mkdir(parents=True)
    # Two entries: with a single directory in it, that one would be merged instead.
    (merged / "README").touch()
    for number in range(count):
        directory = merged / f"d{number // FILES_PER_DIRECTORY}"
        if number % FILES_PER_DIRECTORY == 0:
            directory.mkdir()
        use(directory / f"f{number}")


def _activations(driver: Driver, plan: Plan) -> dict[str, list[float]]:
    """Seconds of each activation; the homes take turns, whatever else the machine does."""
    for name in PEOPLE:
        driver.activate(name)
        if os.path.ismount(f"/home/{name}/{MERGED}") != (name != "without"):
            raise RuntimeError(f"home {name} is not merged as it should be")
        driver.deactivate(name)
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(plan.rounds * plan.repeats):
        for name in PEOPLE:
            time.sleep(PAUSE_S)
            found[name].append(driver.activate(name))
            time.sleep(PAUSE_S)
            driver.deactivate(name)
    return found


def _operations(driver: Driver, plan: Plan) -> Operations:
    """Seconds per file operation, directly on the disk, in a home and in a merged directory."""
    uid = FIRST_UID + PEOPLE.index("few")
    plain = Path("/home/.plain")
    plain.mkdir()
    os.chown(plain, uid, uid)
    driver.activate("few")
    places = {
        "plain": plain,
        "idmapped": Path("/home/few/bench"),
        "overlay": Path(f"/home/few/{MERGED}/bench"),
    }
    found: Operations = defaultdict(lambda: defaultdict(list))
    for _ in range(plan.rounds):
        for place, directory in places.items():
            for operation, seconds in _as_user(uid, directory).items():
                found[operation][place].append(seconds)
    driver.deactivate("few")
    return found


def _as_user(uid: int, directory: Path) -> dict[str, float]:
    """One round in a process of the user, who owns everything in it."""
    code = "from inside.extension import work; import sys; work(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(directory)],
        user=uid,
        group=uid,
        extra_groups=[],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


def work(directory: str) -> None:
    """Make, look at, read, rename and remove files; seconds per operation as JSON."""
    os.makedirs(directory, exist_ok=True)
    names = [f"{directory}/f{number}" for number in range(WORKED_ON)]
    found = {
        "create and write 4 KiB": _each(names, _create),
        "stat": _each(names, os.stat),
        "open and read": _each(names, _read),
        "list 500 files": _each([directory], os.listdir),
        "rename": _each(names, lambda name: os.rename(name, f"{name}.new")),
        "unlink": _each([f"{name}.new" for name in names], os.unlink),
    }
    json.dump(found, sys.stdout)


def _create(name: str) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(fd, CONTENT)
    os.close(fd)


def _read(name: str) -> None:
    fd = os.open(name, os.O_RDONLY)
    os.read(fd, len(CONTENT))
    os.close(fd)


def _each(names: list[str], operation: Callable[[str], object]) -> float:
    start = time.perf_counter()
    for name in names:
        operation(name)
    return (time.perf_counter() - start) / len(names)


if __name__ == "__main__":
    main()
