"""The object tree org.freedesktop.home1 shows, and the signals about its changes.

Objects are resolved when asked for: thousands of homes cost nothing at start.
Paths, interfaces and signals as systemd-homed 262; the State property is
announced too, which systemd-homed leaves to polling.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from homemgr.bus import autologin, homemgr1, jobs, labels, log_control
from homemgr.bus.faces import (
    HOME,
    HOME_INTERFACE,
    MANAGER,
    MANAGER_INTERFACE,
    Faces,
    HomeTarget,
)
from homemgr.bus.listing import unix
from homemgr.wire.codec import Variant
from homemgr.wire.dispatch import Node

if TYPE_CHECKING:
    from homemgr.daemon.home import Home
    from homemgr.wire.connection import Connection

_PROPERTIES = "org.freedesktop.DBus.Properties"
_OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"
_HOME_INTERFACES = (
    "org.freedesktop.DBus.Peer",
    "org.freedesktop.DBus.Introspectable",
    _PROPERTIES,
    HOME,
)
#: A short operation changes a home several times, and its caller comes before listeners.
_MOMENT_S = 0.01
#: Of the largest uid.
_UID_DIGITS = 10
_ANCESTORS = ("/", "/org", "/org/freedesktop")


class Tree:
    """Finds the object for a path."""

    def __init__(self, faces: Faces, extensions: homemgr1.ExtensionFace) -> None:
        """Show the homes of ``faces``."""
        self._faces = faces
        # Asked for by nearly every call, and always the same.
        self._fixed = {
            labels.ROOT: Node(faces, (MANAGER_INTERFACE,)),
            labels.HOMES: Node(faces, (), manages=True),
            homemgr1.PATH: homemgr1.node(extensions),
            log_control.PATH: log_control.node(faces.authority),
            **{path: Node(faces, ()) for path in (*_ANCESTORS, jobs.ROOT)},
        }

    def resolve(self, path: str) -> Node | None:
        """The object at ``path``; both the name and the uid form of a home's path work."""
        fixed = self._fixed.get(path)
        if fixed is not None:
            return fixed
        parent, _, label = path.rpartition("/")
        if parent == jobs.ROOT:
            return self._faces.jobs.node(label)
        home = self._home(label) if parent == labels.HOMES else None
        return None if home is None else Node(HomeTarget(self._faces, home), (HOME_INTERFACE,))

    def children(self, path: str) -> list[str]:
        """Names of the nodes below ``path``."""
        if path == labels.HOMES:
            return [labels.encode(home.name) for home in self._faces.manager.registry]
        if path == jobs.ROOT:
            return self._faces.jobs.labels()
        above = path.rstrip("/") + "/"
        paths = (labels.HOMES, jobs.ROOT, log_control.PATH)
        return sorted({p.removeprefix(above).split("/")[0] for p in paths if p.startswith(above)})

    def _home(self, label: str) -> Home | None:
        registry = self._faces.manager.registry
        name = labels.decode(label)
        if name.isascii() and name.isdecimal():
            # No uid is longer; int() refuses what has thousands of digits.
            return registry.by_uid(int(name)) if len(name) <= _UID_DIGITS else None
        return registry.by_name(name)


class Announcer:
    """Emits the signals; changes of a home within a moment are told together."""

    def __init__(self, connection: Connection, faces: Faces) -> None:
        """Listen to the registry of ``faces`` from now on."""
        self._connection = connection
        self._changed: dict[str, Home] = {}
        self._loop = asyncio.get_running_loop()
        registry = faces.manager.registry
        registry.appeared.append(self._appeared)
        registry.changed.append(self._note)
        registry.vanished.append(self._vanished)
        faces.auto_logins.changed.append(lambda: self._tell_auto_logins(faces))

    def _tell_auto_logins(self, faces: Faces) -> None:
        value = Variant(autologin.SIGNATURE, faces.auto_logins.rows())
        body: tuple[object, ...] = (MANAGER, {"AutoLogin": value}, [])
        self._connection.emit(labels.ROOT, _PROPERTIES, "PropertiesChanged", "sa{sv}as", body)

    def _appeared(self, home: Home) -> None:
        properties = {
            "UserName": Variant("s", home.name),
            "UID": Variant("u", home.uid),
            "UnixRecord": Variant("(suusss)", (home.name, home.uid, *unix(home))),
            "State": Variant("s", home.state),
        }
        interfaces: dict[str, dict[str, Variant]] = {name: {} for name in _HOME_INTERFACES}
        interfaces[HOME] = properties
        path = labels.path_of(home.name)
        self._emit_managed("InterfacesAdded", "oa{sa{sv}}", (path, interfaces))

    def _vanished(self, home: Home) -> None:
        self._changed.pop(home.name, None)
        path = labels.path_of(home.name)
        self._emit_managed("InterfacesRemoved", "oas", (path, list(_HOME_INTERFACES)))

    def _emit_managed(self, member: str, signature: str, body: tuple[object, ...]) -> None:
        self._connection.emit(labels.HOMES, _OBJECT_MANAGER, member, signature, body)

    def _note(self, home: Home) -> None:
        if not self._changed:
            self._loop.call_later(_MOMENT_S, self._tell)
        self._changed[home.name] = home

    def _tell(self) -> None:
        changed, self._changed = self._changed, {}
        for home in changed.values():
            properties = {
                "UID": Variant("u", home.uid),
                "UnixRecord": Variant("(suusss)", (home.name, home.uid, *unix(home))),
                "State": Variant("s", home.state),
            }
            self._connection.emit(
                labels.path_of(home.name),
                _PROPERTIES,
                "PropertiesChanged",
                "sa{sv}as",
                (HOME, properties, ["UserRecord"]),
            )
