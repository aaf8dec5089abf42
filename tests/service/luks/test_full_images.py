"""No room, below an encrypted image or in it: everybody gets in and out, nothing is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from homemgr.kernel import mounts
from homemgr.kernel.identity import filesystem_identity
from homemgr.volume.luks import Volume
from tests import verifying, volumes
from tests.service.people import OTHER_PASSWORD, PASSWORD, secret
from tests.service.site import Service
from tests.volumes import fill

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.service.site import Site

SETTINGS = {
    "storage": "luks",
    "diskSize": 48 << 20,
    "luksPbkdfType": "pbkdf2",
    "luksPbkdfForceIterations": 1000,
    "enforcePasswordPolicy": False,
    "rateLimitBurst": 1000,
}


@pytest.fixture
def small(new_site: Callable[..., Site], tmp_path: Path) -> Iterator[Service]:
    """A service whose homes lie on a file system that holds one of them."""
    site = new_site()
    image, place = tmp_path / "image", site.home_root
    volumes.mount_image(image, "ext4", place, 80 * volumes.MIB)
    service = Service(site)
    yield service
    service.call("DeactivateAllHomes")
    service.close()
    verifying.wait_until_gone()
    mounts.umount2(str(place), 0)


def rooms(service: Service, name: str) -> tuple[int, int]:
    """Bytes of the image, and of the disk that it takes."""
    found = (service.site.base / f"{name}.home").stat()
    return found.st_size, found.st_blocks * 512


def put(service: Service, name: str, size: int) -> Path:
    """Have the user of an active home keep this many bytes."""
    home = service.path_of(name)
    uid = home.stat().st_uid
    with filesystem_identity(uid, uid):
        (home / "file").write_bytes(b"x" * size)
    return home / "file"


def keys(name: str) -> int:
    """How many words unlock an active home."""
    with Volume.of_active(f"home-{name}") as volume:
        return len(volume.slots())


@pytest.mark.parametrize(("discard", "offline"), [(True, None), (False, None), (False, False)])
def test_a_full_disk_below_an_image_keeps_nobody_out(
    small: Service, *, discard: bool, offline: bool | None
) -> None:
    fields = {**SETTINGS, "luksDiscard": discard, "luksOfflineDiscard": offline}
    small.create("anna", **fields)
    small.activate("anna")
    file = put(small, "anna", 1 << 20)
    small.deactivate("anna")
    size, taken = rooms(small, "anna")
    # What is never given back is there when it is needed.
    assert (taken >= size) is (offline is False)
    fill(small.site.home_root)
    for _ in range(2):
        small.activate("anna")
        assert file.read_bytes() == b"x" * (1 << 20)
        small.deactivate("anna")
    change = ("anna", secret(OTHER_PASSWORD), secret(PASSWORD))
    words = [PASSWORD, OTHER_PASSWORD]
    # With the room of a slot it works; without it is refused, and nothing is changed.
    refused = small.begin("ChangePasswordHome", "sss", *change).failure()
    assert refused == ("NoDiskSpace" if offline is None else "")
    if refused:
        words.reverse()
    assert small.error("AuthenticateHome", "ss", "anna", secret(words[0])) == "BadPassword"
    small.activate("anna", words[1])
    assert keys("anna") == 1
    assert file.read_bytes() == b"x" * (1 << 20)
    small.deactivate("anna")


@pytest.mark.parametrize("kind", ["ext4", "btrfs"])
def test_a_full_home_can_be_left_and_entered(running: Service, kind: str) -> None:
    size = 48 << 20 if kind == "ext4" else 140 << 20
    fields = {**SETTINGS, "luksDiscard": True, "fileSystemType": kind, "diskSize": size}
    running.create("bert", **fields)
    running.activate("bert")
    home = running.path_of("bert")
    uid = home.stat().st_uid
    with filesystem_identity(uid, uid):
        ballast = fill(home)
        left = ballast.stat().st_size
    running.deactivate("bert")
    running.activate("bert")
    assert ballast.stat().st_size == left
    change = ("bert", secret(OTHER_PASSWORD), secret(PASSWORD))
    refused = running.begin("ChangePasswordHome", "sss", *change).failure()
    assert refused in ("", "NoDiskSpace")
    assert keys("bert") == 1
    running.deactivate("bert")
    word = PASSWORD if refused else OTHER_PASSWORD
    running.activate("bert", word)
    ballast.unlink()
    running.deactivate("bert")
    running.call("RemoveHome", "s", "bert")
