"""A home of a hundred thousand files: an account, then a home area, then an image, in seconds."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread

import pytest

from homemgr.kernel import mounts
from homemgr.kernel.identity import filesystem_identity
from tests import volumes
from tests.service.converting import begin, logged_in, refusal, rooms, wait
from tests.service.site import Service, Site, short
from tests.service.test_attacks import processor_time_s
from tests.service.test_classic import GID, UID, Account
from tests.volumes import MIB

FILES, IN_EACH = 100_000, 500
#: One of so many has something in it: without, the tree would be all there is to copy.
WRITTEN = 5
#: What it may take of a processor, where it takes 2 and 15 (s). By the clock that was 3 s and
#: 20 s on two processors, but others have them too.
CLASSIC_S, CONVERT_S = 10, 45
#: How often it is looked what they have used (s).
_LOOK_S = 0.05


@pytest.fixture(scope="module")
def crowded(new_site: Callable[..., Site]) -> Iterator[Service]:
    """A service whose homes lie in memory."""
    site = new_site()
    volumes.mount_new("tmpfs", "tmpfs", site.home_root, size="3g", nr_inodes="1m", mode="0755")
    running = Service(site)
    yield running
    running.call("DeactivateAllHomes")
    running.close()
    mounts.umount2(str(site.home_root), mounts.MNT_DETACH)


def make_files(account: Account) -> None:
    """Many files of the user, of every size that takes no room or little."""
    with filesystem_identity(UID, GID):
        for number in range(FILES // IN_EACH):
            directory = account.home / f"many-{number}"
            directory.mkdir(0o700)
            with volumes.Fd.open(str(directory), os.O_RDONLY | os.O_DIRECTORY) as parent:
                for name in range(IN_EACH):
                    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
                    file = os.open(str(name), flags, 0o600, dir_fd=parent.fileno())
                    if name % WRITTEN == 0:
                        os.write(file, b"%d of %d\n" % (name, number))
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


@pytest.mark.timeout(400)
def test_a_home_of_many_files_is_taken_over_and_made_an_image(crowded: Service) -> None:
    bob = Account(crowded, crowded.site.home_root / "bob")
    bob.make()
    make_files(bob)
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
        assert (home / "many-7/5").read_text() == "5 of 7\n"
        assert sum(len(os.listdir(one)) for one in home.glob("many-*")) == FILES
