"""The user record: the JSON it came as, cut to its sections and changed by copying.

Knows the shape of records, not the meaning of fields, and never drops what it does
not know: signatures cover unknown members too. Implements systemd.io/USER_RECORD
and the table of sections of homed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from homemgr.errors import InvalidRecord
from homemgr.record import jsontext, names
from homemgr.record.effective import EffectiveRecord
from homemgr.record.fields import FIELDS
from homemgr.record.jsontext import child, element, kind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from homemgr.record.jsontext import Json, JsonObject
    from homemgr.record.machine import Machine

#: More perMachine entries or signatures than these are an attack on our time.
MAX_ENTRIES: Final = 1024
MAX_SIGNATURES: Final = 32

_LOCAL_SECTIONS: Final[tuple[str, ...]] = ("binding", "status")
#: Sections that must not be in ``~/.identity``: the user's data travels, these do not.
NOT_EMBEDDED: Final = ("binding", "secret", "status")


class UserRecord:
    """One user record. ``data`` is never changed: every change makes a new record.

    Cheap to keep by the thousand: it holds the parsed JSON, and its last effective
    view once one was asked for.
    """

    __slots__ = ("_effective", "data")

    def __init__(self, data: JsonObject) -> None:
        """Wrap parsed JSON; raises InvalidRecord if a section does not have its shape."""
        _check_shape(data)
        # Kept as handed in, not copied: thousands of records are read at start.
        self.data: Final = data
        self._effective: EffectiveRecord | None = None

    @classmethod
    def parse(cls, text: str | bytes) -> UserRecord:
        """Read a record from JSON text; raises InvalidRecord."""
        return cls(jsontext.parse(text))

    def __repr__(self) -> str:
        """Name only: records end up in logs, their contents must not."""
        return f"<UserRecord {self.user_and_realm!r}>"

    # --- who it is about ---------------------------------------------------------

    @property
    def name(self) -> str:
        """The primary user name."""
        return str(self.data["userName"])

    @property
    def realm(self) -> str | None:
        """The realm, or None."""
        realm = self.data.get("realm")
        return realm if isinstance(realm, str) else None

    @property
    def user_and_realm(self) -> str:
        """``user@realm``, or the plain name without a realm."""
        return names.with_realm(self.name, self.realm)

    def is_same_user(self, other: UserRecord) -> bool:
        """Whether both are about one user: same name, same realm."""
        return (self.name, self.realm) == (other.name, other.realm)

    @property
    def last_change_usec(self) -> int | None:
        """When the signed part was changed last; None, older than any, if it does not say."""
        return self._stamp("lastChangeUSec")

    @property
    def last_password_change_usec(self) -> int | None:
        """When the password was changed last, if the record says."""
        return self._stamp("lastPasswordChangeUSec")

    def _stamp(self, name: str) -> int | None:
        try:
            value = FIELDS[name].rule.read(self.data.get(name), f".{name}")
        except InvalidRecord:
            return None  # read as homed does: a field it cannot read is unset
        return value if isinstance(value, int) else None

    # --- sections ------------------------------------------------------------------

    def section(self, name: str) -> Mapping[str, Json]:
        """A section that is an object: privileged, secret, binding, status; empty if missing."""
        value = self.data.get(name)
        return value if isinstance(value, dict) else {}

    @property
    def per_machine(self) -> list[JsonObject]:
        """The entries of the perMachine section, in their order."""
        entries = self.data.get("perMachine")
        return [e for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []

    def binding(self, machine_id: str) -> Mapping[str, Json]:
        """What one machine decided about the home: uid, paths, storage."""
        entry = self.section("binding").get(machine_id)
        return entry if isinstance(entry, dict) else {}

    def status(self, machine_id: str) -> Mapping[str, Json]:
        """What one machine noted about the home: counters, and more while shown."""
        entry = self.section("status").get(machine_id)
        return entry if isinstance(entry, dict) else {}

    # --- copies ------------------------------------------------------------------------

    def without(self, *members: str) -> UserRecord:
        """A copy without some top-level members."""
        if not any(member in self.data for member in members):
            return self
        return UserRecord({k: v for k, v in self.data.items() if k not in members})

    def replaced(self, members: Mapping[str, Json] | None = None, /, **more: Json) -> UserRecord:
        """A copy with some top-level members set; null stays null, see :meth:`without`."""
        return UserRecord({**self.data, **(members or {}), **more})

    def embedded(self) -> UserRecord:
        """The form of ``~/.identity``: without binding, status and secret."""
        return self.without(*NOT_EMBEDDED)

    def for_host(self) -> UserRecord:
        """The form of the host file: without secret."""
        return self.without("secret")

    def public(self) -> UserRecord:
        """The form strangers may see: without privileged and secret."""
        return self.without("privileged", "secret")

    def with_binding(self, machine_id: str, members: Mapping[str, Json]) -> UserRecord:
        """A copy with members merged into one machine's binding; None takes a member away."""
        return self._with_local("binding", machine_id, members)

    def with_status(self, machine_id: str, members: Mapping[str, Json]) -> UserRecord:
        """A copy with members merged into one machine's status; None takes a member away."""
        return self._with_local("status", machine_id, members)

    def with_local_sections_of(self, other: UserRecord) -> UserRecord:
        """A copy whose binding and status are those of ``other``."""
        local: JsonObject = {n: other.data[n] for n in _LOCAL_SECTIONS if n in other.data}
        return self.without(*_LOCAL_SECTIONS).replaced(local)

    def _with_local(self, section: str, machine_id: str, members: Mapping[str, Json]) -> UserRecord:
        entries = self.section(section)
        old = entries.get(machine_id)
        merged = {**(old if isinstance(old, dict) else {}), **members}
        # null and nothing mean the same in these sections; nothing is shorter.
        entry: JsonObject = {k: v for k, v in merged.items() if v is not None}
        return self.replaced({section: {**entries, machine_id: entry}})

    # --- comparing, writing, reading ----------------------------------------------------

    def same_content(self, other: UserRecord) -> bool:
        """Whether the signed sections are the same JSON; parsed values are never compared."""
        return self.canonical() == other.canonical()

    def canonical(self) -> bytes:
        """What a signature is made over."""
        try:
            return jsontext.canonical(self.data)
        except ValueError as error:
            raise InvalidRecord(".: expected a record that can be written as JSON.") from error

    def compact(self) -> str:
        """One line of JSON, for the wire."""
        return jsontext.compact(self.data)

    def pretty(self) -> bytes:
        """The text of the host file or of ``~/.identity``."""
        return jsontext.pretty(self.data).encode()

    def on(self, machine: Machine) -> EffectiveRecord:
        """What the record comes to on one machine; kept until asked for another."""
        # One machine asks in any one process, so one view is enough to keep.
        view = self._effective
        if view is None or view.machine != machine:
            view = EffectiveRecord(self.data, machine)
            self._effective = view
        return view


# --- shape -----------------------------------------------------------------------------


def _check_shape(data: JsonObject) -> None:
    """Refuse sections of another type than theirs, so that no reader has to doubt them."""
    if "userName" not in data:
        raise InvalidRecord(".userName: expected a user name, found nothing.")
    FIELDS["userName"].rule.read(data["userName"], ".userName")
    if data.get("realm") is not None:
        FIELDS["realm"].rule.read(data["realm"], ".realm")
    for name in ("privileged", "secret"):
        _expect_object(data.get(name, {}), f".{name}")
    for name, limit in (("perMachine", MAX_ENTRIES), ("signature", MAX_SIGNATURES)):
        _expect_objects(data.get(name, []), f".{name}", limit)
    for name in _LOCAL_SECTIONS:
        section = data.get(name, {})
        _expect_object(section, f".{name}")
        if isinstance(section, dict):
            for machine_id, entry in section.items():
                _expect_object(entry, child(f".{name}", machine_id))


def _expect_object(value: Json, path: str) -> None:
    if not isinstance(value, dict):
        raise InvalidRecord(f"{path}: expected an object, found {kind(value)}.")


def _expect_objects(value: Json, path: str, limit: int) -> None:
    if not isinstance(value, list):
        raise InvalidRecord(f"{path}: expected an array of objects, found {kind(value)}.")
    if len(value) > limit:
        raise InvalidRecord(f"{path}: expected at most {limit} elements, found {len(value)}.")
    for index, item in enumerate(value):
        _expect_object(item, element(path, index))
