"""Machines that cannot do everything: mount options, file systems, capabilities, full disks."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from homemgr.errors import NotSupported
from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.kernel import mounts
from homemgr.record.storages import ABILITIES
from homemgr.storage import directory, idmapping, kinds, paths
from homemgr.storage.top import Top, attach

if TYPE_CHECKING:
    from collections.abc import Iterator

UNIT = Path(__file__).parents[2] / "units" / "homemgrd.service"
NAME = "alice.homedir"


@pytest.fixture
def tiny(ground: Path, tmp_path: Path) -> Iterator[Path]:
    """An ext4 with room for next to nothing."""
    image = tmp_path / "tiny.img"
    with image.open("wb") as file:
        file.truncate(2 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-O", "^has_journal", str(image)], check=True)
    target = ground / "tiny"
    target.mkdir()
    subprocess.run(["mount", "-o", "loop", str(image), str(target)], check=True)
    target.chmod(0o755)
    yield target
    mounts.umount2(str(target), 0)
    target.rmdir()


def create(base: Fd, skeleton: str | None = None) -> None:
    directory.create(base, NAME, access_mode=0o700, skeleton=skeleton, identity=b"{}", blobs={})


@pytest.mark.parametrize("files", [1, 5000])
def test_full_disk_leaves_nothing(tiny: Path, tmp_path: Path, files: int) -> None:
    """Bytes run out with one large file, inodes with many empty ones."""
    skeleton = tmp_path / "skel"
    skeleton.mkdir()
    for number in range(files):
        with (skeleton / str(number)).open("wb") as file:
            file.write(b"x" * (4_000_000 if files == 1 else 0))
    with paths.ensure_base(str(tiny / "base")) as base:
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)) as caught:
            create(base, str(skeleton))
        assert caught.value.errno == errno.ENOSPC
        assert os.listdir(base.fileno()) == []
        create(base)


def test_mount_option_that_decides_about_owners_is_noticed(tiny: Path) -> None:
    with paths.ensure_base(str(tiny / "base")) as base:
        subprocess.run(["mount", "-o", "remount,grpid", str(tiny)], check=True)
        with pytest.raises(NotSupported, match="65534:0"):
            create(base)
        assert os.listdir(base.fileno()) == []


def test_file_system_without_idmapped_mounts_is_named(area: Path) -> None:
    for name in ("lower", "upper", "work", "merged"):
        (area / name).mkdir()
    os.chown(area / "lower", 65534, 65534)
    os.chown(area / "upper", 65534, 65534)
    options = f"lowerdir={area}/lower,upperdir={area}/upper,workdir={area}/work"
    merged = area / "merged"
    subprocess.run(["mount", "-t", "overlay", "-o", options, "none", str(merged)], check=True)
    try:
        with Top(Fd.open(str(merged), DIRECTORY_FLAGS), str(merged)) as top:
            mapping = idmapping.strict(65534, 60001)
            with pytest.raises(NotSupported, match=str(merged)):
                attach(top, mapping, nosuid=True, nodev=True, noexec=False)
    finally:
        mounts.umount2(str(merged), 0)


def test_storages_that_nobody_knows_are_refused_by_name() -> None:
    assert kinds.storage_named("directory") is kinds.STORAGES["directory"]
    assert set(kinds.STORAGES) == set(ABILITIES)
    with pytest.raises(NotSupported, match=r"'tape'.*directory"):
        kinds.storage_named("tape")


SERVICE = """
import subprocess, sys
from homemgr.errors import HomeBusy
from homemgr.kernel import process
from homemgr.storage import directory, idmapping, mountpoint, paths
area = sys.argv[1]
process.set_dumpable(dumpable=False)
with paths.ensure_base(area + "/base") as base:
    directory.create(base, "alice.homedir", access_mode=0o700, skeleton="/etc/skel",
                     identity=b"{}", blobs={})
with directory.open_home(area + "/base/alice.homedir") as top:
    with mountpoint.prepare(area + "/alice") as target:
        mount = directory.attach(top, idmapping.strict(65534, 60001),
                                 nosuid=True, nodev=True, noexec=False)
        mountpoint.publish(mount, target)
holder = subprocess.Popen(["sleep", "60"], cwd=area + "/alice", user=60001, group=60001,
                          extra_groups=[])
try:
    mountpoint.take_away(area + "/alice")
except HomeBusy as busy:
    print(busy.message)
holder.kill()
holder.wait()
mountpoint.take_away(area + "/alice")
mountpoint.discard(area + "/alice")
with paths.open_safe_parent(area + "/base/alice.homedir", for_new=True) as base:
    directory.remove(base, "alice.homedir")
"""


def test_capabilities_of_the_service_unit_suffice(area: Path) -> None:
    """Everything a home goes through, with no more than the unit's bounding set."""
    found = re.findall(r"^CapabilityBoundingSet=(.*)$", UNIT.read_text(), re.MULTILINE)
    allowed = ",".join(name.lower().replace("cap_", "+") for name in " ".join(found).split())
    argv = ["setpriv", f"--bounding-set=-all,{allowed}", "--no-new-privs"]
    argv += [sys.executable, "-W", "error", "-c", SERVICE, str(area)]
    path = os.pathsep.join(filter(None, sys.path))
    result = subprocess.run(
        argv, check=True, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}
    )
    assert re.search(r"in use by sleep\[\d+\] \(cwd\)", result.stdout)
    assert os.listdir(area / "base") == []
