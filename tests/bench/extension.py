"""The measurement of extensions: boots a box with our service and runs `inside.extension` in it."""

from __future__ import annotations

import json
from statistics import median
from typing import TYPE_CHECKING, TypedDict

from tests.world.box import Box

from . import images
from .inside.extension import IMAGES, STORE
from .login import run_inside
from .table import VERDICTS, aligned

if TYPE_CHECKING:
    from .inside.plan import Plan

#: How much longer an activation may take with an extension, however many files it has.
MOST_S = 0.020


class Samples(TypedDict):
    """Seconds: of activations by home, and of file operations by kind and place."""

    activations: dict[str, list[float]]
    operations: dict[str, dict[str, list[float]]]


def measure(plan: Plan) -> Samples:
    """Run the plan in a fresh box; raises CalledProcessError if it breaks off."""
    with Box("homemgr", home_size="4G") as box:
        images.make(box.path(str(STORE)), plan.files)
        samples: Samples = json.loads(run_inside(box, "inside.extension", plan))
    return samples


def costs(samples: Samples) -> dict[str, float]:
    """What each extension, of few and of many files, adds to an activation."""
    seconds = {name: median(values) for name, values in samples["activations"].items()}
    return {name: s - seconds["without"] for name, s in seconds.items() if name != "without"}


def is_met(samples: Samples) -> bool:
    """Whether the goal is reached."""
    return all(cost <= MOST_S for cost in costs(samples).values())


def render(samples: Samples, files: int) -> str:
    """Both tables for people; ``files`` is how many the larger extension has."""
    return "\n\n".join((_activations(samples, files), _operations(samples)))


def _activations(samples: Samples, files: int) -> str:
    lines = [("activate", "median", "more", "goal", "")]
    added = costs(samples)
    labels = {"few": "extension of 10 files", "many": f"extension of {files:,} files"}
    labels |= {kind: f"the same as {kind}" for kind in IMAGES}
    for name, values in samples["activations"].items():
        cost = added.get(name)
        shown = (labels.get(name, "no extension"), _ms(median(values)))
        if cost is None:
            lines.append((*shown, "-", "-", ""))
        else:
            lines.append((*shown, _ms(cost), f"≤ {_ms(MOST_S)}", VERDICTS[cost <= MOST_S]))
    return aligned(lines)


def _operations(samples: Samples) -> str:
    lines = [("file operation", "plain", "idmapped", "overlay", "ratio")]
    for operation, places in samples["operations"].items():
        plain, idmapped, overlay = (median(places[p]) for p in ("plain", "idmapped", "overlay"))
        ratio = f"1 : {idmapped / plain:.2f} : {overlay / plain:.2f}"
        lines.append((operation, _us(plain), _us(idmapped), _us(overlay), ratio))
    return aligned(lines)


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms"


def _us(seconds: float) -> str:
    return f"{seconds * 1e6:.1f} µs"
