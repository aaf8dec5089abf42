"""Fields set and unset, section by section, and what they make of a user record.

One entry of perMachine stands for this machine, one for all others; further entries are
somebody else's. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from homemgr.cli.record_options import PRIVILEGED, REGULAR, THIS_MACHINE

if TYPE_CHECKING:
    from homemgr.record.jsontext import Json, JsonObject

OTHER_MACHINES = "other"


class FieldChanges:
    """What to set in each section, and what to take out of all of them."""

    def __init__(self) -> None:
        """Change nothing yet."""
        self.sections: dict[str, JsonObject] = {
            REGULAR: {}, PRIVILEGED: {}, THIS_MACHINE: {}, OTHER_MACHINES: {}
        }  # fmt: skip
        self.unset: set[str] = set()
        #: Resource limits are merged one by one: to set, and to take away.
        self.limits: JsonObject = {}
        self.unset_limits: set[str] = set()

    def __bool__(self) -> bool:
        """Whether there is anything to change."""
        return any((*self.sections.values(), self.limits, self.unset, self.unset_limits))

    def applied_to(self, record: JsonObject, machine_id: str) -> JsonObject:
        """A copy of ``record`` with the changes made; its section privileged is always there."""
        # First away, then set: an option may replace in one section what it clears in all.
        result = self._without_unset(record)
        limits = result.get("resourceLimits")
        if self.unset_limits and isinstance(limits, dict):
            kept: JsonObject = {k: v for k, v in limits.items() if k not in self.unset_limits}
            result["resourceLimits"] = kept
        result.update(self.sections[REGULAR])
        if self._touches_machines:
            machines = self._machines(result.get("perMachine"), machine_id)
            if machines or "perMachine" in result:
                result["perMachine"] = machines
        privileged = result.get("privileged")
        merged = self._without_unset(privileged if isinstance(privileged, dict) else {})
        merged.update(self.sections[PRIVILEGED])
        result["privileged"] = merged
        return result

    @property
    def _touches_machines(self) -> bool:
        fields = self.sections[THIS_MACHINE] or self.sections[OTHER_MACHINES] or self.unset
        return bool(fields or self.limits or self.unset_limits)

    def _without_unset(self, members: JsonObject) -> JsonObject:
        return {k: v for k, v in members.items() if k not in self.unset}

    def _machines(self, entries: Json, machine_id: str) -> list[Json]:
        """The perMachine section, with one entry for this machine and one for all others."""
        listed = entries if isinstance(entries, list) else []
        kept: list[Json] = []
        ours: dict[str, JsonObject] = {"matchMachineId": {}, "matchNotMachineId": {}}
        for entry in listed:
            members = entry if isinstance(entry, dict) else {}
            # Only entries for this very machine are ours to change.
            match = next((m for m in ours if _is_only(members.get(m), machine_id)), "")
            if match:
                ours[match].update({k: v for k, v in members.items() if k != match})
            else:
                kept.append(entry)
        this, others = map(self._without_unset, ours.values())
        this = self._with_limits({**this, **self.sections[THIS_MACHINE]})
        others = {**others, **self.sections[OTHER_MACHINES]}
        for match, members in zip(ours, (this, others), strict=True):
            if members:
                kept.append({match: machine_id, **members})
        return kept

    def _with_limits(self, members: JsonObject) -> JsonObject:
        """Resource limits are merged one by one; they are homectl's only nested option."""
        known = members.pop("resourceLimits", {})
        old = known if isinstance(known, dict) else {}
        limits = {k: v for k, v in old.items() if k not in self.unset_limits} | self.limits
        return {**members, "resourceLimits": limits} if limits else members


def _is_only(match: Json, machine_id: str) -> bool:
    return match in (machine_id, [machine_id])
