"""io.systemd.UserDatabase for home areas: users, their groups, memberships.

Answers from memory only. Interface of systemd 262 (https://systemd.io/USER_GROUP_API),
as nss-systemd, userdbctl and sshd's key look-up use it.
"""

from __future__ import annotations

import json
from itertools import chain
from typing import TYPE_CHECKING

from homemgr.record import status
from homemgr.wire.varlink import Peer, VarlinkError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from homemgr.daemon.answers import Answers
    from homemgr.daemon.home import Home
    from homemgr.daemon.registry import Registry

SERVICE = "io.systemd.Home"
INTERFACE = "io.systemd.UserDatabase"

#: Interface description in the language of varlink.org, for introspection.
DESCRIPTION = """interface io.systemd.UserDatabase

method GetUserRecord(uid: ?int, userName: ?string, service: string)
  -> (record: object, incomplete: ?bool)
method GetGroupRecord(gid: ?int, groupName: ?string, service: string)
  -> (record: object, incomplete: ?bool)
method GetMemberships(userName: ?string, groupName: ?string, service: string)
  -> (userName: string, groupName: string)

error NoRecordFound()
error BadService()
error ServiceNotAvailable()
error ConflictingRecordFound()
error NonMatchingRecordFound()
error EnumerationNotSupported()
"""

#: (uid_t) -1 stands for no user at all.
_NO_ID = 0xFFFFFFFF

#: Clients since systemd 258 try filters first and filter themselves on this answer.
_KNOWN: dict[str, dict[str, type]] = {
    "GetUserRecord": {"uid": int, "userName": str, "service": str},
    "GetGroupRecord": {"gid": int, "groupName": str, "service": str},
    "GetMemberships": {"userName": str, "groupName": str, "service": str},
}


def _failure(name: str) -> VarlinkError:
    return VarlinkError(f"{INTERFACE}.{name}", {})


class UserDatabase:
    """The methods of the interface over one registry."""

    def __init__(self, registry: Registry, answers: Answers) -> None:
        """Answer about the homes of ``registry``."""
        self._registry = registry
        self._answers = answers
        #: Kept for all clients together while no home comes or goes.
        self._listed: tuple[Home, ...] | None = None
        registry.appeared.append(self._forget)
        registry.vanished.append(self._forget)
        self._methods: dict[str, Callable[[Peer, Mapping[str, object]], Iterator[bytes]]] = {
            "GetUserRecord": self._user_records,
            "GetGroupRecord": self._group_records,
            "GetMemberships": self._memberships,
        }

    def handle(
        self,
        peer: Peer,
        method: str,
        parameters: Mapping[str, object],
        _more: bool,  # noqa: FBT001 -- wire order
    ) -> Iterator[bytes]:
        """Encoded reply parameters, made as they are taken; raises VarlinkError."""
        name = method.removeprefix(INTERFACE + ".")
        run = self._methods.get(name)
        if run is None:
            raise VarlinkError("org.varlink.service.MethodNotFound", {"method": method})
        _check(name, parameters)
        replies = run(peer, parameters)
        # Made now: an error is an answer of its own, and cannot follow a first reply.
        first = next(replies, None)
        if first is None:
            raise _failure("NoRecordFound")
        return chain((first,), replies)

    def _all(self) -> Iterator[Home]:
        """Every home; some may come and go before a slow client has taken them all."""
        if self._listed is None:
            self._listed = tuple(self._registry)
        return (home for home in self._listed if home.is_known)

    def _forget(self, _home: Home) -> None:
        self._listed = None

    def _user_records(self, peer: Peer, parameters: Mapping[str, object]) -> Iterator[bytes]:
        for home in self._select(parameters.get("uid"), parameters.get("userName")):
            privileged = peer.uid in (0, home.uid)
            text, incomplete = self._answers.user_record(home, privileged=privileged)
            flag = "true" if incomplete else "false"
            yield f'{{"record":{text},"incomplete":{flag}}}'.encode()

    def _group_records(self, _peer: Peer, parameters: Mapping[str, object]) -> Iterator[bytes]:
        for home in self._select(parameters.get("gid"), parameters.get("groupName")):
            yield f'{{"record":{self._answers.group_record(home)}}}'.encode()

    def _memberships(self, _peer: Peer, parameters: Mapping[str, object]) -> Iterator[bytes]:
        user, group = parameters.get("userName"), parameters.get("groupName")
        named = None if user is None else self._registry.by_name(str(user))
        for home in self._all() if user is None else (named,) if named else ():
            for name, member_of in status.memberships(home.record, home.services.machine):
                if group in (None, member_of):
                    yield _membership(name, member_of)
                elif member_of == home.name and self._registry.by_name(str(group)) is home:
                    # The user's own group goes by his other names as well.
                    yield _membership(name, str(group))

    def _select(self, number: object, name: object) -> Iterator[Home]:
        """The homes a query means: by id first, then by name; all if it names neither."""
        if number is None and name is None:
            yield from self._all()
            return
        found = self._registry.by_uid(number) if isinstance(number, int) else None
        if name is not None and not (number is not None and found is None):
            named = self._registry.by_name(str(name))
            if number is not None and named is not found:
                raise _failure("ConflictingRecordFound")
            found = named
        if found is not None:
            yield found


def _membership(user: str, group: str) -> bytes:
    return json.dumps({"userName": user, "groupName": group}).encode()


def _is_possible(value: object) -> bool:
    """Whether a user or group could have this name or id at all."""
    if isinstance(value, str):
        return value != "" and not (":" in value or "/" in value)
    return not isinstance(value, bool) and isinstance(value, int) and 0 <= value < _NO_ID


def _check(method: str, parameters: Mapping[str, object]) -> None:
    """Refuse what real systemd-homed refuses, in its words."""
    known = _KNOWN[method]
    for name, value in parameters.items():
        expected = known.get(name)
        if expected is None or not isinstance(value, expected) or not _is_possible(value):
            raise VarlinkError("org.varlink.service.InvalidParameter", {"parameter": name})
    service = parameters.get("service")
    if service is None:
        raise VarlinkError("org.varlink.service.InvalidParameter", {"parameter": "service"})
    if service != SERVICE:
        raise _failure("BadService")
