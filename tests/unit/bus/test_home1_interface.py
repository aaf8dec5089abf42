"""The interfaces of systemd-homed as they are described to clients, member by member.

The facts are what `busctl introspect --xml-interface` showed of a running systemd-homed 262.1.
It has no signals of its own and nothing that is deprecated.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import pytest

from homemgr.bus import log_control
from homemgr.bus.faces import HOME_INTERFACE, MANAGER_INTERFACE
from homemgr.wire.introspect import node_xml

if TYPE_CHECKING:
    from homemgr.wire.dispatch import Interface

PRIVILEGED = "org.freedesktop.systemd1.Privileged"
EMITS = "org.freedesktop.DBus.Property.EmitsChangedSignal"

#: Name, "!" if it says that it is root's alone, what it takes, "->" what it gives.
#: Of properties: name, type, access, whether changes are told, "!" if only root may set it.
MANAGER_FACTS = """\
AutoLogin = a(sso) read true
GetHomeByName user_name:s -> uid:u home_state:s gid:u real_name:s home_directory:s shell:s bus_path:o
GetHomeByUID uid:u -> user_name:s home_state:s gid:u real_name:s home_directory:s shell:s bus_path:o
GetUserRecordByName user_name:s -> user_record:s incomplete:b bus_path:o
GetUserRecordByUID uid:u -> user_record:s incomplete:b bus_path:o
ListHomes -> home_areas:a(susussso)
ActivateHome user_name:s secret:s
ActivateHomeIfReferenced user_name:s secret:s
DeactivateHome ! user_name:s
RegisterHome user_record:s
AdoptHome image_path:s flags:t
UnregisterHome user_name:s
CreateHome user_record:s
CreateHomeEx user_record:s blobs:a{sh} flags:t
RealizeHome user_name:s secret:s
RemoveHome user_name:s
FixateHome ! user_name:s secret:s
AuthenticateHome user_name:s secret:s
UpdateHome user_record:s
UpdateHomeEx user_record:s blobs:a{sh} flags:t
ResizeHome user_name:s size:t secret:s
ChangePasswordHome user_name:s new_secret:s old_secret:s
LockHome ! user_name:s
UnlockHome ! user_name:s secret:s
AcquireHome user_name:s secret:s please_suspend:b -> send_fd:h
RefHome ! user_name:s please_suspend:b -> send_fd:h
RefHomeUnrestricted ! user_name:s please_suspend:b -> send_fd:h
ReleaseHome ! user_name:s
ListSigningKeys -> keys:a(sst)
GetSigningKey name:s -> der:s flags:t
AddSigningKey name:s pem:s flags:t
RemoveSigningKey name:s flags:t
LockAllHomes !
DeactivateAllHomes !
Rebalance !
"""  # noqa: E501 -- one fact in one line

HOME_FACTS = """\
UserName = s read const
UID = u read true
UnixRecord = (suusss) read true
State = s read false
UserRecord = (sb) read invalidates
Activate secret:s
ActivateIfReferenced secret:s
Deactivate !
Unregister
Realize secret:s
Remove
Fixate ! secret:s
Authenticate secret:s
Update user_record:s
UpdateEx user_record:s blobs:a{sh} flags:t
Resize size:t secret:s
ChangePassword new_secret:s old_secret:s
Lock !
Unlock ! secret:s
Acquire ! secret:s please_suspend:b -> send_fd:h
Ref ! please_suspend:b -> send_fd:h
RefUnrestricted ! please_suspend:b -> send_fd:h
Release !
"""

LOG_CONTROL_FACTS = """\
LogLevel = s readwrite false !
LogTarget = s readwrite false !
SyslogIdentifier = s read false
"""


@pytest.mark.parametrize(
    ("interface", "facts"),
    [
        (MANAGER_INTERFACE, MANAGER_FACTS),
        (HOME_INTERFACE, HOME_FACTS),
        (log_control.INTERFACE, LOG_CONTROL_FACTS),
    ],
    ids=lambda it: getattr(it, "name", ""),
)
def test_every_member_is_described_as_by_systemd_homed(interface: Interface, facts: str) -> None:
    document = ET.fromstring(node_xml((interface,), ()))
    (described,) = document.findall("interface")
    assert described.get("name") == interface.name
    assert sorted(map(in_words, described)) == sorted(facts.splitlines())


def in_words(member: ET.Element) -> str:
    """The fact that a member's description states; anything else in it makes another fact."""
    notes = {note.get("name"): note.get("value") for note in member.findall("annotation")}
    name = member.get("name", "")
    is_privileged = notes.pop(PRIVILEGED, "") == "true"
    if member.tag == "property":
        # What is not said of changes means that they are told (D-Bus specification).
        words = [name, "=", member.get("type"), member.get("access"), notes.pop(EMITS, "true")]
        words += ["!"][: int(is_privileged)]
    else:
        words = [name, *_method_in_words(member, is_privileged=is_privileged)]
    if member.tag not in ("property", "method"):
        words.append(member.tag)
    return " ".join(map(str, [*words, *notes.items()]))


def _method_in_words(member: ET.Element, *, is_privileged: bool) -> list[str]:
    given = {"in": [""], "out": [""]}
    for argument in member.findall("arg"):
        direction = given[argument.get("direction", "in")]
        direction.append(f"{argument.get('name')}:{argument.get('type')}")
    takes, gives = given["in"][1:], given["out"][1:]
    return [*["!"][: int(is_privileged)], *takes, *(["->", *gives] if gives else [])]
