"""The interfaces every object has: Peer, Introspectable, Properties, ObjectManager.

Knows the standard interfaces of the D-Bus specification and serves them from the
object tree and its tables; no transport, no objects of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from homemgr.errors import FileNotFound
from homemgr.wire import messages
from homemgr.wire.call import Refusal
from homemgr.wire.codec import Variant
from homemgr.wire.introspect import node_xml
from homemgr.wire.table import Interface, Method, Signal

if TYPE_CHECKING:
    from homemgr.wire.call import Call
    from homemgr.wire.table import Node, Objects, Property

_MACHINE_ID = "/etc/machine-id"
#: Objects described before the event loop gets its turn.
_OBJECTS_PER_TURN = 32


@dataclass(frozen=True)
class Place:
    """Where a call arrived: what the standard interfaces have as their target."""

    objects: Objects
    path: str
    node: Node | None

    def interfaces(self) -> tuple[Interface, ...]:
        """All interfaces here, the standard ones first, as sd-bus lists them."""
        if self.node is None:
            return (PEER,)
        managing = (OBJECT_MANAGER,) if self.node.manages else ()
        return (PEER, INTROSPECTABLE, PROPERTIES, *managing, *self.node.interfaces)


# --- Peer and Introspectable ----------------------------------------------------------


def _ping(_place: Place, _call: Call) -> None:
    return None


def _machine_id(_place: Place, _call: Call) -> tuple[str]:
    try:
        with open(_MACHINE_ID, encoding="ascii") as file:
            return (file.read(64).strip(),)
    except OSError as wrong:
        raise FileNotFound(f"This machine has no {_MACHINE_ID}.") from wrong


def _introspect(place: Place, _call: Call) -> tuple[str]:
    return (node_xml(place.interfaces(), place.objects.children(place.path)),)


# --- Properties -----------------------------------------------------------------------


def _chosen(place: Place, interface: object) -> tuple[Interface, ...]:
    """The interface asked for, or all of them for the empty name."""
    found = place.interfaces()
    # The specification lets callers leave the interface out by an empty name.
    if interface:
        found = tuple(one for one in found if one.name == interface)
    if not found:
        text = f"{place.path} has no interface {interface}."
        raise Refusal(messages.UNKNOWN_INTERFACE, text)
    return found


def _property(place: Place, interface: object, name: object) -> Property:
    for one in _chosen(place, interface):
        if isinstance(name, str) and name in one.property:
            return one.property[name]
    raise Refusal(messages.UNKNOWN_PROPERTY, f"{place.path} has no property {name}.")


def _target(place: Place) -> object:
    return place.node.target if place.node else None


async def _value(place: Place, call: Call, one: Property) -> Variant:
    value = one.get(_target(place), call)
    if isinstance(value, Awaitable):
        value = await value
    return Variant(one.signature, value)


async def _get(place: Place, call: Call, interface: str, name: str) -> tuple[Variant]:
    return (await _value(place, call, _property(place, interface, name)),)


async def _get_all(place: Place, call: Call, interface: str) -> tuple[dict[str, Variant]]:
    return (await properties(place, call, _chosen(place, interface)),)


async def properties(
    place: Place, call: Call, interfaces: tuple[Interface, ...]
) -> dict[str, Variant]:
    """The values of all properties of ``interfaces``, as ``call`` may see them."""
    return {
        one.name: await _value(place, call, one)
        for interface in interfaces
        for one in interface.properties
    }


async def _set(place: Place, call: Call, interface: str, name: str, value: Variant) -> None:
    one = _property(place, interface, name)
    if one.set is None:
        raise Refusal(messages.PROPERTY_READ_ONLY, f"The property {name} cannot be set.")
    if value.signature != one.signature:
        text = f"The property {name} is of type {one.signature!r}, not {value.signature!r}."
        raise Refusal(messages.INVALID_ARGS, text)
    done = one.set(_target(place), call, value.value)
    if isinstance(done, Awaitable):
        await done


# --- ObjectManager ---------------------------------------------------------------------


async def _managed(place: Place, call: Call) -> tuple[dict[str, object]]:
    """Every object below, described; the loop gets its turn in between."""
    found: dict[str, object] = {}
    # No recursion: how deep the tree is, is not ours to know.
    waiting = [place.path]
    while waiting:
        parent = waiting.pop()
        prefix = "/" if parent == "/" else f"{parent}/"
        for name in place.objects.children(parent):
            path = prefix + name
            waiting.append(path)
            node = place.objects.resolve(path)
            # It may have gone since its parent was asked, or only lead further down.
            if node is not None and node.interfaces:
                found[path] = await described(Place(place.objects, path, node), call)
            if len(found) % _OBJECTS_PER_TURN == 0:
                await asyncio.sleep(0)
    return (found,)


async def described(place: Place, call: Call) -> dict[str, dict[str, Variant]]:
    """Interfaces and properties of one object, as ObjectManager and InterfacesAdded show it."""
    return {
        interface.name: await properties(place, call, (interface,))
        for interface in place.interfaces()
    }


PEER = Interface(
    "org.freedesktop.DBus.Peer",
    (
        Method("Ping", (), (), _ping),
        Method("GetMachineId", (), (("machine_uuid", "s"),), _machine_id),
    ),
)

INTROSPECTABLE = Interface(
    "org.freedesktop.DBus.Introspectable",
    (Method("Introspect", (), (("xml_data", "s"),), _introspect),),
)

PROPERTIES = Interface(
    "org.freedesktop.DBus.Properties",
    (
        Method(
            "Get",
            (("interface_name", "s"), ("property_name", "s")),
            (("value", "v"),),
            _get,
        ),
        Method("GetAll", (("interface_name", "s"),), (("props", "a{sv}"),), _get_all),
        Method(
            "Set",
            (("interface_name", "s"), ("property_name", "s"), ("value", "v")),
            (),
            _set,
        ),
    ),
    signals=(
        Signal(
            "PropertiesChanged",
            (
                ("interface_name", "s"),
                ("changed_properties", "a{sv}"),
                ("invalidated_properties", "as"),
            ),
        ),
    ),
)

OBJECT_MANAGER = Interface(
    "org.freedesktop.DBus.ObjectManager",
    (
        Method(
            "GetManagedObjects",
            (),
            (("object_paths_interfaces_and_properties", "a{oa{sa{sv}}}"),),
            _managed,
        ),
    ),
    signals=(
        Signal(
            "InterfacesAdded",
            (("object_path", "o"), ("interfaces_and_properties", "a{sa{sv}}")),
        ),
        Signal("InterfacesRemoved", (("object_path", "o"), ("interfaces", "as"))),
    ),
)
