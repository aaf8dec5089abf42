"""Encrypted directories held to a size by project quota: their names are no hindrance."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from homemgr.kernel import mounts
from tests.service.people import PASSWORD, secret
from tests.service.quota.test_quota import MAKE
from tests.service.site import Service, Site
from tests.service.sizes import MIB, SIZE, figures, take, take_up_to_the_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def both(new_site: Callable[..., Site], tmp_path: Path) -> Iterator[Service]:
    """A service whose homes lie on an ext4 that encrypts, and counts what projects take."""
    site, image = new_site(), tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(64 * MIB)
    make = [*MAKE["ext4"], "-b", "4096", "-O", "encrypt"]
    subprocess.run([*make, str(image)], check=True, stdout=subprocess.DEVNULL)
    place = str(site.home_root)
    subprocess.run(["mount", "-o", "loop,prjquota", str(image), place], check=True)
    site.home_root.chmod(0o755)
    service = Service(site)
    yield service
    service.call("DeactivateAllHomes")
    service.close()
    mounts.umount2(place, 0)
    image.unlink()


def test_one_that_was_there_before_is_counted_whole_and_kept_to_its_size(both: Service) -> None:
    both.create("anna", storage="fscrypt")
    both.activate("anna")
    assert take(both, "anna", 3 * MIB) == 0
    both.deactivate("anna")
    both.call("ResizeHome", "sts", "anna", SIZE, secret(PASSWORD))
    assert figures(both, "anna")["diskUsage"] >= 3 * MIB
    both.activate("anna")
    take_up_to_the_limit(both, "anna", SIZE)
