"""What encrypted homes take, beside systemd-homed: in a guest, as few machines can do without."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import TYPE_CHECKING

from tests.world import guest
from tests.world.product import given_to_guests

if TYPE_CHECKING:
    from .inside.plan import Plan
    from .inside.samples import Samples

MODULE = "tests.bench.inside.luks"
TIMEOUT_S = 1800
#: Each takes a second there.
CREATES, REPEATS = 2, 3


def measure(plan: Plan) -> Samples:
    """Run the plan in a fresh guest; raises RuntimeError if it breaks off."""
    plan = dataclasses.replace(
        plan, creates=min(plan.creates, CREATES), repeats=min(plan.repeats, REPEATS)
    )
    argv = [sys.executable, "-m", MODULE, plan.to_json()]
    done = guest.run("uml", argv, TIMEOUT_S, **given_to_guests())
    if done.status != 0:
        raise RuntimeError(f"{done.output}\n{done.console[-4000:]}")
    samples: Samples = json.loads(done.output.splitlines()[-1])
    return samples
