"""One run of the load: boots a box, runs `inside` in it, and judges what it found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from homemgr.work.server import BUSY
from tests.world.box import ENVIRONMENT, Box

from .inside.plan import Plan

#: Inputs fed straight into the parsers, beside what travels over the sockets.
PARSED = 100_000
INSIDE = Path(__file__).with_name("inside")
PLACE = "/opt/load"
PYTHON = "/opt/homemgr/bin/python"
#: Beyond the plan's time: making users, coming to rest twice, looking at all of it.
SPARE_S = 420.0
#: Connections whose end it has not seen yet; what leaks leaks thousands of times.
MORE_DESCRIPTORS = 4
#: The service, what makes its workers, and workers that wait for a while: some per processor.
MOST_AT_REST = 6 + (os.cpu_count() or 1)
#: What Python keeps for itself between two looks at rest, whatever it did meanwhile.
GROWTH_BYTES = 12 << 20
FILES = {
    "/etc/homemgr/homemgr.conf": "[Home]\nGraceSec=0.2\n",
    # Logins that meet a kill fail; sshd must not take their machine for an attacker.
    "/etc/ssh/sshd_config.d/01-load.conf": "PerSourcePenalties no\n",
}

Found = dict[str, Any]


def run(plan: Plan) -> Found:
    """Everything that was found; raises if the run itself broke off."""
    with Box(base="sid", files=FILES) as box:
        for source in INSIDE.glob("*.py"):
            box.write(f"{PLACE}/inside/{source.name}", source.read_text())
        done = subprocess.run(
            box.command([PYTHON, "-m", "inside", plan.to_json()]),
            env=ENVIRONMENT | {"PYTHONPATH": PLACE},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            timeout=plan.seconds + SPARE_S,
            check=False,
        )
        if done.returncode:
            print(box.journal(box.service, lines=100), file=sys.stderr)
            raise RuntimeError("the load broke off")
    found: Found = json.loads(done.stdout)
    return found


def faults(found: Found, plan: Plan) -> list[str]:
    """What is wrong, in words; empty if nothing is."""
    first, second = found["first"], found["second"]
    wrong = [*found["faults"], *found["lost"], *found["troubles"]]
    for look in (first, second):
        if look["states"] != {"inactive": plan.users}:
            wrong.append(f"states at rest: {look['states']}")
        wrong += [f"still there: {name}" for name in (*look["mounts"], *look["references"])]
    if found["restarts"] != plan.kills:
        wrong.append(f"started again {found['restarts']} times after {plan.kills} kills")
    if second["descriptors"] > first["descriptors"] + MORE_DESCRIPTORS:
        wrong.append(f"descriptors: {first['descriptors']}, then {second['descriptors']}")
    names = second["processes"]
    if BUSY in names or len(names) > MOST_AT_REST:
        wrong.append(f"processes at rest: {names}")
    if second["memory"] > first["memory"] + GROWTH_BYTES:
        wrong.append(f"memory grew from {first['memory']} to {second['memory']} bytes")
    if found["check"][0] != 0:
        wrong.append(f"homemgr check: {found['check']}")
    return wrong


def render(found: Found) -> str:
    """The figures for people."""
    rows = [f"{count:8} {what}" for what, count in sorted(found["done"].items())]
    for who, answers in found["answers"].items():
        rows += [f"{count:8} {who}: {what}" for what, count in sorted(answers.items())]
    for look in ("first", "second"):
        rows.append(f"{look}: {found[look]}")
    return "\n".join(rows)
