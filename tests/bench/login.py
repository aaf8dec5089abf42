"""The measurement of logins: boots one box with both services and runs `inside` in it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tests.world.box import ENVIRONMENT, Box

if TYPE_CHECKING:
    from .inside.plan import Plan
    from .inside.samples import Samples

INSIDE = Path(__file__).with_name("inside")
PLACE = "/opt/bench"  # of `inside` in the box, where its users can read it
PYTHON = "/opt/homemgr/bin/python"
TIMEOUT_S = 3600


def measure(plan: Plan) -> Samples:
    """Run the plan in a fresh box; raises CalledProcessError if it breaks off."""
    # Hosts without room on disk still have room for a sparse image: 100,000 files are empty.
    with Box("both", base="sid", home_size="4G") as box:
        box.run(["homemgr", "setup"])
        samples: Samples = json.loads(run_inside(box, "inside", plan))
    return samples


def run_inside(box: Box, module: str, plan: Plan, *more: str) -> str:
    """Run a module of `inside` in the box, with the plan and ``more``; what it printed."""
    for source in INSIDE.glob("*.py"):
        box.write(f"{PLACE}/inside/{source.name}", source.read_text())
    done = subprocess.run(
        box.command([PYTHON, "-m", module, plan.to_json(), *more]),
        env=ENVIRONMENT | {"PYTHONPATH": PLACE},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        timeout=TIMEOUT_S,
        check=True,
    )
    return done.stdout
