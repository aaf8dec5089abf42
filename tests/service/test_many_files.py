"""A home of a hundred thousand files: an account, then a home area, an image, and back again."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

import pytest

from homemgr.kernel import mounts
from homemgr.kernel.identity import filesystem_identity
from tests import homes, volumes
from tests.service.converting import begin, call, logged_in, refusal, rooms, wait
from tests.service.people import PASSWORD
from tests.service.site import Service, Site, short
from tests.service.test_attacks import processor_time_s
from tests.service.test_classic import GID, NOBODY, UID, Account
from tests.volumes import MIB

FILES, IN_EACH = 100_000, 500
#: One of so many has something in it: without, the tree would be all there is to copy.
WRITTEN = 5
#: Of those, one of so many has so much more (bytes).
LARGE, LARGE_BYTES = 100, 40_001
MODES = (0o600, 0o644, 0o755, 0o400, 0o4711, 0o000)
#: What it may take of a processor, where it takes 4, 18 and, of half of it, 9 (s). By the clock
#: that was little more on two processors, but others have them too.
CLASSIC_S, CONVERT_S, BACK_S = 10, 45, 25
#: How often it is looked what they have used (s).
_LOOK_S = 0.05
#: With room for the home and its copy.
_MAKE = ["mkfs.ext4", "-q", "-F", "-N", str(4 * FILES)]


@pytest.fixture(scope="module")
def crowded(
    new_site: Callable[..., Site], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """A service whose homes lie on a disk with room for so many files."""
    site = new_site()
    image = tmp_path_factory.mktemp("crowded") / "image"
    volumes.mount_image(image, "ext4", site.home_root, 3072 * MIB, _MAKE)
    running = Service(site)
    yield running
    running.call("DeactivateAllHomes")
    running.close()
    mounts.umount2(str(site.home_root), mounts.MNT_DETACH)
    image.unlink()


def make_files(account: Account) -> None:
    """Many files of the user, of every size that takes no room or little."""
    with filesystem_identity(UID, GID):
        for number in range(FILES // IN_EACH):
            directory = account.home / f"many-{number}"
            directory.mkdir(0o700)
            with volumes.Fd.open(str(directory), os.O_RDONLY | os.O_DIRECTORY) as parent:
                for name in range(IN_EACH):
                    _make_file(parent.fileno(), number, name)
                os.link("0", "again", src_dir_fd=parent.fileno(), dst_dir_fd=parent.fileno())
                os.symlink(f"../many-{number + 1}/0", "next", dir_fd=parent.fileno())
                os.utime(parent.fileno(), ns=(0, number * 1_000_000_007))


def _make_file(parent: int, number: int, name: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    file = os.open(str(name), flags, 0o600, dir_fd=parent)
    if name % WRITTEN == 0:
        os.write(file, b"%d of %d\n" % (name, number))
    if name % (WRITTEN * LARGE) == 0:
        os.write(file, os.urandom(LARGE_BYTES))
    os.fchmod(file, MODES[name % len(MODES)])
    os.utime(file, ns=(0, (number * IN_EACH + name) * 1_000_000_007))
    os.close(file)


@contextmanager
def within(service: Service, seconds: float) -> Iterator[None]:
    """The workers of the service are to work for at most so long, and for some time."""
    worked: dict[int, float] = {}
    is_over = Event()

    def watch() -> None:
        while not is_over.wait(_LOOK_S):
            for pid in service.workers():
                with suppress(OSError):
                    worked[pid] = processor_time_s(pid)

    thread = Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
    assert seconds / 20 < sum(worked.values()) < seconds


def seen(top: Path) -> tuple[homes.Seen, set[object]]:
    """Everything about the files of a home, but whose they are; whose they are."""
    found = homes.Seen.of(top, leave_out=(b".identity",))
    # It gets a record, and so another time.
    del found.entries[b""]
    return found, {facts.pop("owner") for facts in found.entries.values()}


def delete_half(home: Path, known: homes.Seen) -> None:
    """Have the user delete half of it: all of it would take as long to have back as it took."""
    uid = home.stat().st_uid
    program = ["sh", "-c", 'rm -r "$0"/many-1*', str(home)]
    subprocess.run(program, check=True, user=uid, group=uid, extra_groups=[])
    for path in [path for path in known.entries if path.startswith(b"many-1")]:
        del known.entries[path]
    for inode in [inode for inode, (path, *_) in known.groups.items() if path[:6] == b"many-1"]:
        del known.groups[inode]


@pytest.mark.timeout(400)
def test_a_home_of_many_files_is_taken_over_made_an_image_and_had_back(crowded: Service) -> None:
    bob = Account(crowded, crowded.site.home_root / "bob")
    bob.make()
    make_files(bob)
    before, owners = seen(bob.home)
    assert (len(before.entries) > FILES, owners) == (True, {(UID, GID), (0, 0)})
    with within(crowded, CLASSIC_S):
        assert bob.run()["files"] > FILES
    too_small = refusal(crowded, begin(crowded, "bob", storage="image", disk_size=128 * MIB))
    assert (short(too_small.name), rooms(crowded.site.base)) == ("BadHomeSize", [])
    assert re.search(r": \d+ are missing\. .*--disk-size=", str(too_small))
    with within(crowded, CONVERT_S):
        job = begin(crowded, "bob", storage="image", disk_size=256 * MIB)
        result = wait(crowded, job, within_s=300)
    assert result["files"] > FILES
    with logged_in(crowded, "bob"):
        home = crowded.path_of("bob")
        # More than an ext4 of this size has unless it is asked for more.
        assert os.statvfs(home).f_files > FILES
        inside, owners = seen(home)
        assert (before.differences(inside), owners) == ([], {(UID, UID)})
        delete_half(home, before)
    # What is compared at the end is not what was there before.
    call(crowded, "ConfirmConversion", "s", "bob")
    assert not bob.image.exists()
    with within(crowded, BACK_S):
        job = begin(crowded, "bob", PASSWORD, storage="directory")
        assert wait(crowded, job, within_s=300)["files"] > len(before.entries)
    after, owners = seen(bob.image)
    assert (before.differences(after), owners) == ([], {NOBODY})
