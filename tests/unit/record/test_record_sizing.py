"""What a record says of how the size of its home follows what there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from homemgr.record.machine import Machine
from homemgr.record.model import UserRecord
from homemgr.record.sizing import Sizing, sizing_of

if TYPE_CHECKING:
    from homemgr.record.jsontext import JsonObject

HERE = Machine("1" * 32, "here", "/home")
GIB = 1 << 30


@pytest.mark.parametrize(
    ("storage", "fields", "expected"),
    [
        ("luks", {}, Sizing(None, 100, shrinks=True)),
        ("luks", {"diskSize": GIB}, Sizing(GIB, 0, shrinks=True)),
        ("luks", {"diskSizeRelative": 1 << 30}, Sizing(None, 0)),
        ("luks", {"diskSize": GIB, "rebalanceWeight": 7}, Sizing(GIB, 7, shrinks=True)),
        ("luks", {"diskSize": GIB, "rebalanceWeight": True}, Sizing(GIB, 100, shrinks=True)),
        ("luks", {"rebalanceWeight": False}, Sizing(None, 0)),
        ("luks", {"diskSize": GIB, "autoResizeMode": "off"}, Sizing(None, 0)),
        ("luks", {"diskSize": GIB, "autoResizeMode": "grow"}, Sizing(GIB, 0)),
        ("image", {"diskSize": GIB}, Sizing(None, 0)),
        (
            "image",
            {"diskSize": GIB, "autoResizeMode": "shrink-and-grow"},
            Sizing(GIB, 0, shrinks=True),
        ),
        ("image", {}, Sizing(None, 100)),
        ("image", {"autoResizeMode": True}, Sizing(None, 100, shrinks=True)),
        # Nothing would have it grow again.
        ("image", {"autoResizeMode": True, "rebalanceWeight": 0}, Sizing(None, 0)),
        ("directory", {"diskSize": GIB, "autoResizeMode": "grow"}, Sizing(None, 0)),
        ("subvolume", {"rebalanceWeight": 100}, Sizing(None, 0)),
    ],
)
def test_what_is_not_said_is_as_systemd_homed_has_it(
    storage: str, fields: JsonObject, expected: Sizing
) -> None:
    suffix = {"image": ".homeimage", "luks": ".home"}.get(storage, ".homedir")
    record = UserRecord({"userName": "anna", **fields}).with_binding(
        HERE.id,
        {
            "imagePath": f"/home/anna{suffix}",
            "storage": "directory" if storage == "image" else storage,
        },
    )
    assert sizing_of(record.on(HERE)) == expected


def test_a_stick_is_left_alone_by_the_end_of_a_logout() -> None:
    record = UserRecord({"userName": "anna", "diskSize": GIB}).with_binding(
        HERE.id, {"imagePath": "/dev/disk/by-uuid/1", "storage": "luks"}
    )
    assert sizing_of(record.on(HERE)) == Sizing(GIB, 0)
