"""The machine a record is read on, and which perMachine entries are for it.

Pure: who reads /etc/machine-id and the host name hands them in. Implements
"Matching perMachine entries" of systemd.io/USER_RECORD.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from homemgr.record.jsontext import Json

_LOCALHOST: Final = ("localhost", "localhost.localdomain")


@dataclass(frozen=True)
class Machine:
    """What identifies a machine to user records: its id, its host name, its home root."""

    #: 32 lower-case hex digits of /etc/machine-id.
    id: str
    #: The kernel's host name, literally; None if it is unset.
    hostname: str | None = None
    #: Where homes are mounted when a record does not say.
    home_root: str = "/home"

    def matches(self, entry: Mapping[str, Json]) -> bool:
        """Whether a perMachine entry is for this machine: any one of its matches holds."""
        ids, not_ids = _words(entry.get("matchMachineId")), _words(entry.get("matchNotMachineId"))
        if ids is not None and self._is_among(ids):
            return True
        if not_ids is not None and not self._is_among(not_ids):
            return True
        hosts, not_hosts = _words(entry.get("matchHostname")), _words(entry.get("matchNotHostname"))
        # A host name nobody can tell from others' is in no list: neither matches nor excludes.
        known = self.has_hostname
        if hosts is not None and known and self.hostname in hosts:
            return True
        return not_hosts is not None and not (known and self.hostname in not_hosts)

    @property
    def has_hostname(self) -> bool:
        """False for a name that every other machine may have as well."""
        if not self.hostname or self.hostname == "(none)":
            return False
        name = self.hostname.removesuffix(".").lower()
        return name not in _LOCALHOST and not name.endswith(tuple("." + n for n in _LOCALHOST))

    def _is_among(self, ids: list[str]) -> bool:
        # systemd reads both spellings of a 128-bit id, plain and as UUID.
        return any(id_.replace("-", "").lower() == self.id for id_ in ids)


def _words(value: Json) -> list[str] | None:
    """A match member as list; None if it is missing or malformed, so that it never applies."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return [str(word) for word in value]
    return None
