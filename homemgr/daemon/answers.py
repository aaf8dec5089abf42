"""What look-ups are answered with: user and group records as JSON text, kept until they change.

Answers come from memory alone: a user database that waits delays every name
look-up on the machine.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from homemgr.record import jsontext, status
from homemgr.record.signature import Verdict

if TYPE_CHECKING:
    from homemgr.daemon.home import Home
    from homemgr.daemon.registry import Registry


@dataclass
class _Texts:
    """Encoded answers about one home; empty until asked for."""

    user: dict[bool, tuple[str, bool]] = field(default_factory=dict)
    group: str = ""


class Answers:
    """Encoded records of all homes of a registry."""

    def __init__(self, registry: Registry) -> None:
        """Forget what is kept about a home whenever the registry says it changed."""
        self._kept: dict[str, _Texts] = {}
        registry.changed.append(self._forget)
        registry.vanished.append(self._forget)

    def user_record(self, home: Home, *, privileged: bool) -> tuple[str, bool]:
        """The user record as shown to a caller, and whether something was left out for him."""
        texts = self._kept.setdefault(home.name, _Texts())
        if privileged not in texts.user:
            texts.user[privileged] = self._encode_user(home, privileged=privileged)
        return texts.user[privileged]

    def group_record(self, home: Home) -> str:
        """The record of the user's own group."""
        texts = self._kept.setdefault(home.name, _Texts())
        if not texts.group:
            group = status.group_record(home.record, home.services.machine)
            texts.group = jsontext.compact(group)
        return texts.group

    def _forget(self, home: Home) -> None:
        self._kept.pop(home.name, None)

    @staticmethod
    def _encode_user(home: Home, *, privileged: bool) -> tuple[str, bool]:
        services = home.services
        shown = home.record if privileged else home.record.public()
        is_incomplete = not privileged and "privileged" in home.record.data
        members = status.synthesize(
            home.effective,
            state=home.state,
            is_active=home.is_active,
            is_signed_locally=home.verdict is Verdict.EXCLUSIVE,
            fallback_shell=services.config.fallback_shell,
        )
        complete = shown.without("secret").with_status(services.machine.id, members)
        return complete.compact(), is_incomplete
