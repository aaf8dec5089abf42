"""The interfaces every varlink service has: org.varlink.service, io.systemd.service.

Knows what a service tells about itself; no transport. See varlink.org and systemd's
varlinkctl(1), which reads the descriptions.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

from homemgr.wire import logs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from homemgr.wire.peer import Peer

VARLINK = "org.varlink.service"
SYSTEMD = "io.systemd.service"

_DESCRIPTIONS = {
    VARLINK: """interface org.varlink.service

method GetInfo() -> (
  vendor: string,
  product: string,
  version: string,
  url: string,
  interfaces: []string
)
method GetInterfaceDescription(interface: string) -> (description: string)

error InterfaceNotFound(interface: string)
error MethodNotFound(method: string)
error MethodNotImplemented(method: string)
error InvalidParameter(parameter: string)
error PermissionDenied()
error ExpectedMore()
""",
    SYSTEMD: """interface io.systemd.service

method Ping() -> ()
method SetLogLevel(level: int) -> ()
method GetLogLevel() -> (level: int)
method GetEnvironment() -> (environment: ?[]string)

error InconsistentEnvironment()
""",
}

# Finding the declared methods in the description keeps the two from disagreeing.
_METHOD = re.compile(r"^method\s+([A-Za-z][A-Za-z0-9]*)", re.MULTILINE)


class VarlinkError(Exception):
    """An error reply: its full name and parameters, both seen by the caller."""

    def __init__(self, name: str, parameters: Mapping[str, object] | None = None) -> None:
        """``name`` with its interface."""
        super().__init__(name)
        self.name = name
        self.parameters = dict(parameters or {})


class Service:
    """Tells about a set of interfaces, and which of them knows a method."""

    def __init__(self, interfaces: Mapping[str, str]) -> None:
        """``interfaces`` by name, with their descriptions, besides the standard ones."""
        self._descriptions = _DESCRIPTIONS | dict(interfaces)
        self._methods = {
            name: frozenset(_METHOD.findall(text)) for name, text in self._descriptions.items()
        }

    def is_standard(self, method: str) -> bool:
        """Whether `answer` answers ``method``; `VarlinkError` if nobody does."""
        interface, _, member = method.rpartition(".")
        if interface not in self._methods:
            raise VarlinkError(f"{VARLINK}.InterfaceNotFound", {"interface": interface})
        if member not in self._methods[interface]:
            raise VarlinkError(f"{VARLINK}.MethodNotFound", {"method": method})
        return interface in _DESCRIPTIONS

    def answer(self, peer: Peer, method: str, parameters: Mapping[str, object]) -> bytes:
        """The encoded parameters of the reply."""
        member = method.rpartition(".")[2]
        if member == "GetInfo":
            return self._info()
        if member == "GetInterfaceDescription":
            return self._description(parameters.get("interface"))
        if member == "SetLogLevel":
            return _set_log_level(peer, parameters.get("level"))
        if member == "GetLogLevel":
            return _encoded({"level": logs.level()})
        if member == "GetEnvironment":
            # Nothing secret is in ours, but that is not for a caller to find out.
            _require_trust(peer)
            return _encoded({"environment": [f"{k}={v}" for k, v in os.environ.items()]})
        # What remains of the declared methods is Ping.
        return b"{}"

    def _info(self) -> bytes:
        about = {"vendor": "homemgr", "product": "homemgr", "version": "", "url": ""}
        return _encoded(about | {"interfaces": sorted(self._descriptions)})

    def _description(self, interface: object) -> bytes:
        if not isinstance(interface, str):
            raise _invalid("interface")
        if interface not in self._descriptions:
            raise VarlinkError(f"{VARLINK}.InterfaceNotFound", {"interface": interface})
        return _encoded({"description": self._descriptions[interface]})


def _encoded(parameters: Mapping[str, object]) -> bytes:
    return json.dumps(parameters, separators=(",", ":")).encode()


def _invalid(parameter: str) -> VarlinkError:
    return VarlinkError(f"{VARLINK}.InvalidParameter", {"parameter": parameter})


def _require_trust(peer: Peer) -> None:
    """As systemd: root, and whoever the service runs as."""
    if peer.uid not in (0, os.geteuid()):
        raise VarlinkError(f"{VARLINK}.PermissionDenied")


def _set_log_level(peer: Peer, level: object) -> bytes:
    _require_trust(peer)
    # bool is a subclass of int in Python, and no number in JSON.
    if type(level) is not int or level not in range(len(logs.NAMES)):
        raise _invalid("level")
    logs.set_level(level)
    return b"{}"
