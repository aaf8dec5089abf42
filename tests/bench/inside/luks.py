"""What encrypted homes take to make, to open and to close: both services on buses of their own.

Runs in a guest whose kernel encrypts (tests/world/guest.py), where there is no systemd: each
service is the only one of its bus and has its own part of one disk. Argument: the plan. How long
words are stretched is the same for both, and short, as that is no part of either.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from homemgr.kernel import mounts
from tests import volumes
from tests.service.bus import Bus
from tests.service.luks.homed import Homed
from tests.service.site import Service, Site

from .drive import Driver
from .homes import Homes
from .plan import Plan
from .samples import Notes
from .service import HOMED, OURS
from .storage import turn

if TYPE_CHECKING:
    from homemgr.record.jsontext import JsonObject

    from .samples import Samples

MIB = 1 << 20
DISK_BYTES = 1024 * MIB
SETTINGS: JsonObject = {
    "storage": "luks",
    "fileSystemType": "ext4",
    "diskSize": 96 * MIB,
    "luksDiscard": True,
    "luksPbkdfType": "pbkdf2",
    "luksPbkdfForceIterations": 1000,
}


def main() -> None:
    """Measure turn by turn, first ours, then theirs; samples are the last line of the output."""
    plan, homes = Plan.from_json(sys.argv[1]), Homes()
    record: JsonObject = {**homes.new_record(""), **SETTINGS}
    samples: Samples = defaultdict(list)
    with volumes.private_mount_namespace(), ExitStack() as stack:
        buses = _start(stack)
        for _ in range(plan.rounds):
            for key, address in buses.items():
                notes = Notes()
                with Driver(homes.secret, address) as driver:
                    turn(driver, record, plan, notes)
                samples[key].append(notes.turn)
    print(json.dumps(samples))


def _start(stack: ExitStack) -> dict[str, str]:
    """Start both; the addresses of their buses."""
    ground = Path("/run/bench")
    ground.mkdir(0o755)
    image = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "image"
    disk = ground / "disk"
    volumes.mount_image(image, "ext4", disk, DISK_BYTES)
    stack.callback(mounts.umount2, str(disk), mounts.MNT_DETACH)
    ours, theirs = (disk / service.key for service in (OURS, HOMED))
    for home_root in (ours, theirs):
        home_root.mkdir(0o755)
    bus = Bus(ground / "state")
    stack.callback(bus.close)
    service = Service(Site(ours, ground / "state", bus.address))
    stack.callback(service.close)
    homed = Homed("sid", theirs, ground / "homed", bus.address, {})
    stack.callback(homed.close)
    return {OURS.key: bus.address, HOMED.key: homed.address}


if __name__ == "__main__":
    main()
