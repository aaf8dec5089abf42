"""What the service says about its own members."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, NamedTuple

from tests.service.site import NAME

if TYPE_CHECKING:
    from tests.service.site import Service

_PRIVILEGED = "org.freedesktop.systemd1.Privileged"


class Member(NamedTuple):
    """A method: its signatures, and whether it says that it is root's alone."""

    takes: str
    gives: str
    is_privileged: bool


def document(service: Service, path: str) -> ET.Element:
    """The introspection data of an object."""
    interface = "org.freedesktop.DBus.Introspectable"
    (text,) = service.client.call(NAME, path, interface, "Introspect").body
    return ET.fromstring(str(text))


def members(service: Service, path: str, interface: str) -> dict[str, Member]:
    """The methods of one interface."""
    found = {}
    for method in document(service, path).findall(f"interface[@name='{interface}']/method"):
        arguments = [(a.get("direction", "in"), a.get("type", "")) for a in method.iter("arg")]
        takes = "".join(kind for direction, kind in arguments if direction == "in")
        gives = "".join(kind for direction, kind in arguments if direction == "out")
        notes = {a.get("name"): a.get("value") for a in method.iter("annotation")}
        found[method.get("name", "")] = Member(takes, gives, notes.get(_PRIVILEGED) == "true")
    return found


def annotated_members(service: Service, path: str, interface: str) -> set[str]:
    """Names of the methods that say they are root's alone."""
    return {name for name, one in members(service, path, interface).items() if one.is_privileged}
