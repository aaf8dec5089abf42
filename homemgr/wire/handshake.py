"""Getting onto a bus: socket and authentication, with dbus-next doing the talking.

The only module that imports dbus-next, and what it hands out is a plain socket:
the library's reader starves the loop and leaks descriptors, its writer dies of a
full buffer (see `transport` for ours). Follows the D-Bus specification.
"""

from __future__ import annotations

import asyncio
import sys
import typing
import warnings
from contextlib import contextmanager
from socket import AF_UNIX, SO_SNDTIMEO, SOCK_STREAM, SOL_SOCKET, socket
from struct import pack
from typing import TYPE_CHECKING

from homemgr.wire.address import system_bus, unix_sockets
from homemgr.wire.messages import BusError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType


@contextmanager
def _spared() -> Iterator[None]:
    """Keep dbus-next's import working on every Python, quick and quiet.

    It uses a name of `typing` that is deprecated since 3.13 and gone in 3.15, and
    imports the GLib bindings if they are installed, which we never use.
    """

    def identity(decorator: Callable[..., object]) -> Callable[..., object]:
        return decorator

    if not hasattr(typing, "no_type_check_decorator"):
        setattr(typing, "no_type_check_decorator", identity)  # noqa: B010
    has_bindings = "gi" in sys.modules
    if not has_bindings:
        # None makes the import fail at once.
        sys.modules["gi"] = typing.cast("ModuleType", None)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        if not has_bindings:
            del sys.modules["gi"]


with _spared():
    from dbus_next.aio.message_bus import MessageBus
    from dbus_next.errors import AuthError

_AUTH_TIMEOUT_S = 25.0
_CONNECT_TIMEOUT = pack("ll", 5, 0)
_MAX_LINE_BYTES = 16 << 10


class _Opening(MessageBus):
    """A dbus-next connection as far as the end of its authentication."""

    def _setup_socket(self) -> None:
        """Connect to the first address that answers; the stock version leaks the others."""
        failure: OSError | None = None
        for name in unix_sockets(self._address):
            new = socket(AF_UNIX, SOCK_STREAM)
            # Only a full backlog blocks; a non-blocking connect would fail on it.
            new.setsockopt(SOL_SOCKET, SO_SNDTIMEO, _CONNECT_TIMEOUT)
            try:
                new.connect(name)
            except OSError as wrong:
                new.close()
                failure = wrong
                continue
            new.settimeout(0)
            self._sock, self._fd, self._stream = new, new.fileno(), new.makefile("rwb")
            return
        text = f"The bus at {self._address} cannot be reached: {failure}."
        raise BusError("org.freedesktop.DBus.Error.NoServer", text) from failure

    def __init__(self, address: str) -> None:
        """Connect to ``address``."""
        self._address = address
        super().__init__(bus_address="unix:path=/unused", negotiate_unix_fd=True)

    async def _auth_readline(self) -> str:
        """One line; the stock version spins for ever when the server hangs up."""
        line = bytearray()
        while not line.endswith(b"\r\n"):
            # One byte at a time: what follows the last line belongs to `transport`.
            byte = await self._loop.sock_recv(self._sock, 1)
            if not byte or len(line) > _MAX_LINE_BYTES:
                raise ConnectionError("the server hung up during the authentication")
            line += byte
        return line[:-2].decode("ascii", "replace")

    async def authenticated(self) -> socket:
        """The connected socket, ready for messages; now the caller's to close."""
        try:
            async with asyncio.timeout(_AUTH_TIMEOUT_S):
                await self._authenticate()  # type: ignore[no-untyped-call]
        except (AuthError, OSError, ValueError) as wrong:
            self._sock.close()
            text = f"The bus at {self._address} did not let us in: {wrong}."
            raise BusError("org.freedesktop.DBus.Error.AuthFailed", text) from wrong
        except asyncio.CancelledError:
            self._sock.close()
            raise
        finally:
            self._stream.close()
        return self._sock


async def connected_socket(address: str | None) -> socket:
    """A socket to the bus at ``address``, or the system bus, behind the authentication."""
    return await _Opening(address or system_bus()).authenticated()
