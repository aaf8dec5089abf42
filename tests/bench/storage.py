"""What homes of each storage take, beside systemd-homed: one box for each file system, a guest."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.world.box import Box

from . import luks
from .goals import Goal, Unit
from .login import run_inside

if TYPE_CHECKING:
    from .inside.plan import Plan
    from .inside.samples import Samples

#: What is measured on which file system of /home.
STORAGES = {"ext4": ("directory", "fscrypt"), "btrfs": ("subvolume",)}

GOALS = (
    *(
        goal
        for storage, activate in (("directory", 0.5), ("subvolume", 0.5), ("fscrypt", 0.6))
        for goal in (
            Goal(f"create {storage}", f"create, {storage}", Unit.MS),
            Goal(f"activate {storage}", f"activate, {storage}", Unit.MS, ratio=activate),
            Goal(f"deactivate {storage}", f"deactivate, {storage}", Unit.MS),
        )
    ),
    Goal("worst deactivate fscrypt", "deactivate, fscrypt, slowest", Unit.MS, ratio=0.25),
    Goal("lock fscrypt", "lock, fscrypt", Unit.MS),
    Goal("unlock fscrypt", "unlock, fscrypt", Unit.MS),
    *(
        Goal(f"{what} luks", f"{what}, luks", Unit.MS)
        for what in ("create", "activate", "deactivate")
    ),
)


def measure(plan: Plan) -> Samples:
    """Run the plan in fresh machines; raises RuntimeError or its like if one breaks off."""
    samples: Samples = {}
    for file_system, storages in STORAGES.items():
        with Box("both", base="sid", file_system=file_system) as box:
            box.run(["homemgr", "setup"])
            _add(samples, json.loads(run_inside(box, "inside.storage", plan, ",".join(storages))))
    _add(samples, luks.measure(plan))
    return samples


def _add(samples: Samples, found: Samples) -> None:
    for service, turns in found.items():
        known = samples.setdefault(service, [{} for _ in turns])
        for turn, more in zip(known, turns, strict=True):
            turn.update(more)
