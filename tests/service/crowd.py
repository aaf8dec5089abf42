"""Thousands of home areas: records as another day of this service would have written them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from homemgr.record.model import UserRecord
from homemgr.record.signature import PrivateKey, generate_key_pair, sign
from tests.service import people

if TYPE_CHECKING:
    from tests.service.site import Site

#: As many as the range holds; systemd-homed stops at 500.
RANGE = (100_000, 104_999)
COUNT = RANGE[1] - RANGE[0] + 1

_MACHINE_ID = "/etc/machine-id"


def settle(site: Site) -> None:
    """Write the records and make the images of everybody, with a key pair to verify them."""
    private, public = generate_key_pair()
    site.records.mkdir(0o700)
    (site.records / "local.private").write_bytes(private)
    (site.records / "local.private").chmod(0o400)
    (site.records / "local.public").write_bytes(public)
    site.base.mkdir(0o700)
    key = PrivateKey.from_pem(private)
    with open(_MACHINE_ID, encoding="ascii") as file:
        machine_id = file.read().strip()
    for number in range(COUNT):
        _settle_one(site, key, machine_id, number)


def name_of(number: int) -> str:
    """Name of a user by number."""
    return f"user{number:04}"


def _settle_one(site: Site, key: PrivateKey, machine_id: str, number: int) -> None:
    name, uid = name_of(number), RANGE[0] + number
    members = people.record(
        name,
        secret=None,
        aliases=[f"alias{number:04}"],
        realName=f"User Number {number}",
        memberOf=["crowd"],
    )
    image = site.base / f"{name}.homedir"
    record = sign(UserRecord(members), key).with_binding(
        machine_id,
        {
            "uid": uid,
            "gid": uid,
            "storage": "directory",
            "imagePath": str(image),
            "homeDirectory": str(site.home_root / name),
        },
    )
    (site.records / f"{name}.identity").write_bytes(record.pretty())
    os.mkdir(image, 0o700)
