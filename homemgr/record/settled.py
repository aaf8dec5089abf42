"""What was settled when a home came to a machine, and an update of the record cannot change.

Pure: compares the record that is to come with the one that is there. systemd-homed takes
such changes and goes on as before; here they are refused, with what can be done instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from homemgr.errors import NotSupported
from homemgr.record.storages import named_in

if TYPE_CHECKING:
    from homemgr.record.machine import Machine
    from homemgr.record.model import UserRecord

#: Field -> what it is called, and how to get what was asked for.
_SETTLED: Final = {
    "storage": ("storage", "`homemgr convert` does that while the user is logged out."),
    "imagePath": (
        "image path",
        "`homemgr convert --to=PATH` moves it while the user is logged out.",
    ),
    "uid": ("uid", "It stays as long as the home area is known to this machine."),
    "homeDirectory": (
        "home directory",
        "It stays as long as the home area is known to this machine.",
    ),
}


def check_settled(current: UserRecord, new: UserRecord, machine: Machine) -> None:
    """Raise NotSupported if ``new`` asks for something else than this machine has settled.

    What the record asked for before, in vain, it may go on to ask for: it came so from where
    the home was made. Sections for other machines may ask for anything.
    """
    binding = current.binding(machine.id)
    before, after = (record.without("binding").on(machine) for record in (current, new))
    for field, (called, advice) in _SETTLED.items():
        settled = named_in(binding) if field == "storage" else binding.get(field)
        wanted = after.get(field)
        if settled is None or wanted is None or wanted in (settled, before.get(field)):
            continue
        raise NotSupported(
            f"Cannot change the {called} of home area {current.name} from {settled} to"
            f" {wanted}: it was settled when the home area was made or came here. {advice}"
        )
