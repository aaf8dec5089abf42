"""Whether a disk is asked and not a cache, with loop devices as disks."""

from __future__ import annotations

import os
from pathlib import Path

from homemgr.files import Fd
from homemgr.kernel import loop
from homemgr.volume import liveness


def test_a_device_answers_as_long_as_it_has_a_disk(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(1 << 20))
    with Fd.open(str(path), os.O_RDWR) as image:
        device, node = loop.attach(image.fileno())
    assert liveness.answers(node)
    with device:
        # It still says what it was; its size is read from what is below.
        os.truncate(path, 0)
        assert not liveness.answers(node)
    assert not liveness.answers(str(tmp_path / "nothing"))


def test_what_is_not_allowed_is_no_sign_of_a_missing_disk(tmp_path: Path) -> None:
    # Too many links are an error of the path, and say nothing of a disk.
    (tmp_path / "loop").symlink_to("loop")
    assert liveness.answers(str(tmp_path / "loop"))
