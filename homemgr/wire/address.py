"""Where the bus is: the server addresses of the D-Bus specification, unix sockets only.

Knows how an address is written and which one is the system bus; opens nothing.
"""

from __future__ import annotations

import os

from homemgr.wire.messages import BusError

#: Where every distribution has it, as the specification names it.
SYSTEM_BUS = "unix:path=/run/dbus/system_bus_socket"


def system_bus() -> str:
    """The address to use when none is given."""
    return os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or SYSTEM_BUS


def unix_sockets(address: str) -> list[str]:
    """Socket names to try in turn, an abstract one with a leading NUL."""
    found = []
    # Several servers may be listed; the first that answers is the one.
    for entry in filter(None, address.split(";")):
        transport, _, options = entry.partition(":")
        # Other keys, guid= above all, do not matter for getting there.
        keys = dict(option.partition("=")[::2] for option in options.split(","))
        if transport == "unix" and "path" in keys:
            found.append(_unescape(keys["path"]))
        elif transport == "unix" and "abstract" in keys:
            found.append("\0" + _unescape(keys["abstract"]))
    if not found:
        raise BusError(
            "org.freedesktop.DBus.Error.BadAddress",
            f"The bus address {address!r} names no unix socket by path= or abstract=.",
        )
    return found


def _unescape(value: str) -> str:
    first, *rest = value.split("%")
    try:
        raw = b"".join(bytes.fromhex(part[:2]) + os.fsencode(part[2:]) for part in rest)
    except ValueError as wrong:
        raise BusError(
            "org.freedesktop.DBus.Error.BadAddress",
            f"The bus address part {value!r} has a % without two hexadecimal digits.",
        ) from wrong
    return first + os.fsdecode(raw)
