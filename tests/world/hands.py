"""homemgr and systemd-homed on one machine: who of them serves."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .box import Box


def take_over(box: Box) -> None:
    """homemgr setup."""
    box.run(["homemgr", "setup"])
    box.daemon = "homemgr"


def give_back(box: Box) -> None:
    """homemgr unsetup; does nothing where systemd-homed serves."""
    box.run(["homemgr", "unsetup"])
    box.daemon = "both"
