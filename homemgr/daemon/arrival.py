"""What is different for a user on the machine where his home arrives, for the report."""

from __future__ import annotations

import asyncio
import grp
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from homemgr.daemon.transfer_states import TransferState
    from homemgr.record.effective import EffectiveRecord
    from homemgr.record.machine import Machine
    from homemgr.record.model import UserRecord


Note = dict[str, str]


async def notes(state: TransferState, record: UserRecord, machine: Machine) -> list[Note]:
    """uid-changed, storage-changed, group-missing and shell-missing, each once for each case."""
    return await asyncio.to_thread(_notes, state, record.on(machine))


def report(found: list[Note]) -> dict[str, object]:
    """Notes as a report: ``{"counts": {KIND: NUMBER}, "notes": [{kind, path, detail}]}``."""
    counts: dict[str, int] = {}
    for note in found:
        counts[note["kind"]] = counts.get(note["kind"], 0) + 1
    return {"counts": counts, "notes": found}


def _notes(state: TransferState, effective: EffectiveRecord) -> list[Note]:
    found = []
    if state.origin_uid and state.origin_uid != state.uid:
        detail = f"{state.origin_uid} at the origin, {state.uid} here"
        found.append(_note("uid-changed", detail))
    if state.storage and state.origin_storage and state.storage != state.origin_storage:
        detail = f"{state.origin_storage} at the origin, {state.storage} here"
        found.append(_note("storage-changed", detail))
    for group in effective.member_of:
        try:
            grp.getgrnam(group)
        except KeyError:
            found.append(_note("group-missing", group))
    shell = effective.shell
    if shell and not os.access(shell, os.X_OK):
        found.append(_note("shell-missing", shell))
    return found


def _note(kind: str, detail: str) -> Note:
    return {"kind": kind, "path": "", "detail": detail}
