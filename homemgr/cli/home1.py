"""The service as the verbs see it: one manager object, called by member name.

Knows names, paths and time limits of org.freedesktop.home1 and of our own object
beside it; no verb and no wording. See org.freedesktop.home1(5).
"""

from __future__ import annotations

import os

from homemgr.wire.client import Client, Reply
from homemgr.wire.messages import BUS_NAME, BUS_PATH, BusError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from socket import socket

    from homemgr.cli.arguments import Arguments
    from homemgr.files import Fd
    from homemgr.wire.messages import Message

_NAME = "org.freedesktop.home1"
_PATH = "/org/freedesktop/home1"
_INTERFACE = "org.freedesktop.home1.Manager"

_QUICK_S = 25.0
#: Members whose answer comes when a worker is done, which may take minutes.
_SLOW_S = 120.0
#: Jobs say how far they are; people know how long that may take.
_FOREVER_S = 1e9
_QUICK = frozenset(
    {"ListHomes", "GetHomeByName", "GetHomeByUID", "GetUserRecordByName", "GetUserRecordByUID"}
    | {"GetExtensionStatus", "ListSigningKeys", "GetSigningKey", "ListTransfers", "ListOrigins"}
    | {"ListSlots", "ListSnapshots", "ListConversions"}
)

__all__ = ["BusError", "Home1", "Homemgr1", "Reply"]


#: Has an image served and gives the line to who serves it; set by who puts the program together.
over_image: Callable[[str], socket] | None = None


class Home1:
    """A connection to the manager object; opened by the first call."""

    path, interface = _PATH, _INTERFACE
    #: Of the service over the image of --root=; all of one command line share it.
    _over_image: Client | None = None

    def __init__(self, arguments: Arguments) -> None:
        """``--no-ask-password`` also keeps polkit from asking; ``--root=`` asks an image."""
        # A second instance for debugging, as systemd-homed has it.
        suffix = os.environ.get("SYSTEMD_HOME_DEBUG_SUFFIX")
        self._name = f"{_NAME}.{suffix}" if suffix else _NAME
        root = arguments.value("root")
        if root and Home1._over_image is None:
            assert over_image is not None
            Home1._over_image = Client(line=over_image(root))
        self._client = Home1._over_image if root and Home1._over_image else Client()
        self.may_ask = not arguments.has("no-ask-password")

    def call(
        self, member: str, signature: str = "", *body: object, fds: Sequence[Fd] = ()
    ) -> Reply:
        """Call a method of the manager; raises BusError."""
        return self._client.call(
            self._name,
            self.path,
            self.interface,
            member,
            signature,
            body,
            fds=fds,
            interactive=self.may_ask,
            timeout_s=_QUICK_S if member in _QUICK else _SLOW_S,
        )


class Homemgr1(Home1):
    """The same service's object for what org.freedesktop.home1 has no words for."""

    path, interface = "/org/homemgr1", "org.homemgr1.Manager"

    def listen(self, member: str, hear: Callable[[list[object]], None]) -> None:
        """Give ``hear`` what each signal ``member`` of the service says, while a call waits."""

        def on_signal(message: Message) -> None:
            if message.path == self.path and message.member == member:
                hear(message.body())

        self._client.on_signal = on_signal
        rule = f"type='signal',sender='{self._name}',path='{self.path}',member='{member}'"
        self._client.call(BUS_NAME, BUS_PATH, BUS_NAME, "AddMatch", "s", (rule,))


class Job1(Homemgr1):
    """A job that the service does for us: as long as we stay on the bus, and wait for it."""

    interface = "org.homemgr1.Job"

    def __init__(self, service: Homemgr1, path: str) -> None:
        """The job that a call of ``service`` gave; it belongs to that very connection."""
        self._name, self._client = service._name, service._client
        self.may_ask = False
        self.path = path

    def wait(self, idle: Callable[[], None]) -> Reply:
        """What comes of it; ``idle`` is called again and again meanwhile. Raises BusError."""
        self._client.on_idle = idle
        try:
            target = (self._name, self.path, self.interface, "Wait")
            return self._client.call(*target, timeout_s=_FOREVER_S)
        finally:
            self._client.on_idle = None

    def cancel(self) -> None:
        """Call it off; `wait` says when it has ended."""
        self._client.tell(self._name, self.path, self.interface, "Cancel")


def own_name() -> str:
    """The caller's user name, for verbs that take none."""
    # The real uid: under sudo it is root who asks, and root has no home here.
    from pwd import getpwuid

    return getpwuid(os.getuid()).pw_name


def error_is(error: BusError, name: str) -> bool:
    """Whether the error is the one that `homemgr.errors` calls ``name``."""
    return error.name == f"{_NAME}.{name}"


def with_agent(home1: Home1) -> None:
    """Let polkit ask on this terminal while the process lives, if it may have to ask at all."""
    # Started only where it can be needed: it costs as much as the whole rest.
    if home1.may_ask and os.geteuid() != 0:
        from homemgr.cli.agent import start

        start()
