"""How the homemgr on the other machine tells the one that called it through ssh how it ended.

One line on standard error: ``{"homemgr": 1, "error": NAME, "message": TEXT}``, without the last
two after a success.
"""

from __future__ import annotations

import json
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from homemgr.cli.home1 import BusError


def tell(error: BusError | None = None) -> None:
    """Say how it ended: well, or with ``error``."""
    told: dict[str, object] = {"homemgr": 1}
    if error is not None:
        told |= {"error": error.name, "message": error.message or error.name}
    print(json.dumps(told), file=sys.stderr)


def read(text: str) -> dict[str, object] | None:
    """What a line of standard error tells of that; None if it is any other line."""
    if not text.startswith('{"homemgr"'):
        return None
    try:
        told = json.loads(text)
    except ValueError:
        return None
    return told if isinstance(told, dict) else None
