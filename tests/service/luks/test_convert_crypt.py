"""Homes go from every storage to every other, encrypted ones too, and lose nothing on the way."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from homemgr.kernel import mounts
from homemgr.wire.messages import BusError
from tests import verifying, volumes
from tests.service.converting import (
    call,
    convert,
    diary,
    differences,
    kept,
    logged_in,
    settle,
    storage_of,
    write,
)
from tests.service.people import PASSWORD, WRONG_PASSWORD
from tests.service.site import Service

if TYPE_CHECKING:
    from homemgr.record.jsontext import Json

#: All that an image file needs to be known by a record.
FIELDS: dict[str, Json] = {
    "luksDiscard": True,
    "luksPbkdfType": "pbkdf2",
    "luksPbkdfForceIterations": 1000,
    "rateLimitBurst": 1000,
}
SIZE = 96 << 20

#: Every way between an encrypted image and another home; what has no image goes both ways
#: elsewhere (tests/service/test_convert.py, tests/world/test_convert.py). No kernel of a guest is
#: quick and encrypts directories too: that one does what no other can, and as little as that.
WALK, MANY = ("luks", "image", "luks", "subvolume", "luks", "directory"), 500
IS_SLOW = "HOMEMGR_TEST_FSCRYPT" in os.environ
if IS_SLOW:
    WALK, MANY = ("luks", "fscrypt", "luks"), 100
SUFFIXES = {"luks": ".home", "image": ".homeimage"}


@pytest.fixture
def places(ground: Path, tmp_path: Path) -> Iterator[dict[str, Path]]:
    """Where homes of a storage have to lie that the usual place cannot hold."""
    if "subvolume" not in WALK:
        yield {}
        return
    btrfs = ground / "btrfs"
    volumes.mount_image(tmp_path / "btrfs", "btrfs", btrfs, 256 << 20)
    (btrfs / "homes").mkdir(0o700)
    yield {"subvolume": btrfs / "homes"}
    mounts.umount2(str(btrfs), 0)


@contextmanager
def raw(service: Service, image: Path, scratch: Path) -> Iterator[Path]:
    """The active home of anna as it lies on its disk."""
    if image.is_dir():
        yield image
        return
    argv = ["findmnt", "-nrvo", "SOURCE", str(service.path_of("anna"))]
    found = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    volumes.mount_new("ext4", found, scratch)
    try:
        yield scratch / "anna"
    finally:
        mounts.umount2(str(scratch), 0)


@pytest.mark.timeout(300)
def test_from_every_storage_to_every_other(
    places: dict[str, Path], running: Service, tmp_path: Path
) -> None:
    lines: list[str] = []
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    settle(running, "anna", many=MANY, **FIELDS)
    reference = None
    for storage in WALK:
        if not IS_SLOW:
            with pytest.raises(BusError, match="password"):
                convert(running, "anna", WRONG_PASSWORD, storage=storage)
        place = places.get(storage, running.site.base)
        image = place / f"anna{SUFFIXES.get(storage, '.homedir')}"
        result = convert(running, "anna", PASSWORD, storage=storage, to=str(image), disk_size=SIZE)
        assert (result["storage"], result["phase"]) == (storage, "kept")
        # To the record an image that is not encrypted is a directory.
        assert storage_of(running, "anna") == ("directory" if storage == "image" else storage)
        if reference is None:
            reference = kept(running, "anna")
        else:
            call(running, "ConfirmConversion", "s", "anna")
        verifying.wait_until_gone()
        found = [path for top in (running.site.base, *places.values()) for path in top.iterdir()]
        assert found == [image]
        with logged_in(running, "anna"):
            with raw(running, image, scratch) as there:
                assert differences(reference, there) == []
            assert (diary(running, "anna") if lines else []) == lines
            write(running, "anna", storage)
        lines.append(storage)
    assert PASSWORD not in running.site.log.read_text()


@pytest.fixture
def other_disk(running: Service) -> Iterator[Path]:
    """Another file system, where only root gets."""
    place = running.site.home_root / "other"
    place.mkdir()
    volumes.mount_new("tmpfs", "tmpfs", place, size="256m", mode="0700")
    yield place
    if running.is_running:
        running.call("DeactivateAllHomes")
        for name in running.states():
            running.call("RemoveHome", "s", name)
    verifying.wait_until_unused(place)
    mounts.umount2(str(place), 0)
    place.rmdir()


def test_an_encrypted_image_goes_to_another_disk_and_back(
    running: Service, other_disk: Path
) -> None:
    """Both are open at once, each as a device of its own."""
    running.create("nora", storage="luks", diskSize=SIZE, **FIELDS)
    with logged_in(running, "nora"):
        write(running, "nora", "here")
    with pytest.raises(BusError, match="password"):
        convert(running, "nora", WRONG_PASSWORD, to=str(other_disk / "nora.home"))
    convert(running, "nora", PASSWORD, to=str(other_disk / "nora.home"))
    verifying.wait_until_gone()
    assert storage_of(running, "nora") == "luks"
    assert (other_disk / "nora.home").is_file()
    assert not (running.site.base / "nora.home").exists()
    with logged_in(running, "nora"):
        assert diary(running, "nora") == ["here"]
        write(running, "nora", "there")
    call(running, "UndoConversion", "ss", "nora", '{"force": true}')
    assert list(other_disk.iterdir()) == []
    with logged_in(running, "nora"):
        assert diary(running, "nora") == ["here"]
