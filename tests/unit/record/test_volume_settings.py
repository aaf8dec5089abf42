"""What a record says of its volume, and what is done where it says nothing."""

from __future__ import annotations

import pytest

from homemgr.record.machine import Machine
from homemgr.record.model import UserRecord
from homemgr.record.volume_settings import volume_settings

HERE = Machine("a" * 32, None, "/home")

FILE, DEVICE = "/home/anna.home", "/dev/disk/by-uuid/a-b"


@pytest.mark.parametrize(
    ("path", "said", "while_active", "at_logout"),
    [
        # As systemd-homed decides it: files keep their room, flash is told at once.
        (FILE, {}, False, True),
        (FILE, {"luksDiscard": True}, True, True),
        (FILE, {"luksDiscard": True, "luksOfflineDiscard": False}, True, False),
        (FILE, {"luksOfflineDiscard": False}, False, False),
        (DEVICE, {}, True, True),
        (DEVICE, {"luksDiscard": False}, False, False),
        (DEVICE, {"luksDiscard": False, "luksOfflineDiscard": True}, False, True),
    ],
)
def test_deleted_content_is_given_back_when_the_record_says_so(
    path: str, said: dict[str, bool], *, while_active: bool, at_logout: bool
) -> None:
    record = UserRecord({"userName": "anna", **said}).with_binding(HERE.id, {"imagePath": path})
    found = volume_settings(record.on(HERE))
    assert (found.discard, found.offline_discard) == (while_active, at_logout)
