"""`homemgr slot COMMAND USER [NAME]`: passwords and recovery keys of a home, one by one.

Each has a name, and comes and goes without the others. A recovery key is made here and
shown once it unlocks. Speaks to our own interface org.homemgr1.Manager.
"""

from __future__ import annotations

import json
import sys

from homemgr.cli import qr
from homemgr.cli.arguments import Option, UsageError
from homemgr.cli.complain import complain
from homemgr.cli.credentials import Credentials, new_password, unlock
from homemgr.cli.home1 import BusError, Homemgr1, Reply, error_is, own_name, with_agent
from homemgr.cli.output import json_format, print_json, print_table
from homemgr.cli.record_source import new_recovery_key
from homemgr.errors import NoSuchSlot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from homemgr.cli.arguments import Arguments

OPTIONS = (
    Option("recovery-key", "", "", "add: a recovery key, which is made and shown, no password"),
)

_PASSWORD, _RECOVERY_KEY = "password", "recovery-key"


def run(arguments: Arguments) -> int:
    """Find the command and run it."""
    command, *words = arguments.words
    if command == "list" and len(words) < 2:
        return _list(arguments, *words)
    if command not in _COMMANDS:
        raise UsageError(f"Unknown command {command}: expected one of list, {', '.join(_COMMANDS)}")
    if len(words) != 2:
        raise UsageError(f"Expected `homemgr slot {command} USER NAME`.")
    if arguments.has("recovery-key") and command != "add":
        raise UsageError(f"--recovery-key means nothing to `homemgr slot {command}`.")
    service = Homemgr1(arguments)
    with_agent(service)
    return _COMMANDS[command](Request(service, *words), arguments)


class Request:
    """One slot, and the connection to the service that has it."""

    def __init__(self, service: Homemgr1, user: str, name: str) -> None:
        """``PASSWORD`` in the environment unlocks the home; what is missing is asked for."""
        self.user = user
        self.name = name
        self._service = service
        self._credentials = Credentials.from_environment()

    def kind(self) -> str:
        """What the slot holds; raises NoSuchSlot before anybody is asked for anything."""
        for slot in _slots(self._service, self.user):
            if slot["name"] == self.name:
                return slot["kind"]
        raise NoSuchSlot(f"Home area {self.user} has no slot {self.name!r}.")

    def change(self, member: str, doing: str, asks_for: str = "password") -> int:
        """Call ``member`` with the credential, asking for it as it is missed."""

        def call() -> Reply:
            return self._call(member)

        self._unlock(call, doing, asks_for)
        return 0

    def fill(self, member: str, doing: str, *kind: str, with_key: bool) -> int:
        """The same with a new password, or a new recovery key that is shown in the end."""
        word = new_recovery_key() if with_key else self._new_password()

        def call() -> Reply:
            # Asked again here, and not outside: a weak password must not cost another round.
            nonlocal word
            while True:
                new = json.dumps({"password": [word]}, ensure_ascii=False)
                try:
                    return self._call(member, *kind, new)
                except BusError as error:
                    if not (self._service.may_ask and error_is(error, "LowPasswordQuality")):
                        raise
                    complain(error.message)
                    word = self._new_password()

        self._unlock(call, doing, "current password")
        if with_key:
            _show(word)
        return 0

    def _new_password(self) -> str:
        return new_password(self.user, may_ask=self._service.may_ask)

    def _call(self, member: str, *body: str) -> Reply:
        words = (self.user, self.name, *body, self._credentials.to_json())
        return self._service.call(member, "s" * len(words), *words)

    def _unlock(self, call: Callable[[], Reply], doing: str, asks_for: str) -> None:
        may_ask = self._service.may_ask
        unlock(self.user, self._credentials, call, doing, may_ask=may_ask, asks_for=asks_for)


def _slots(service: Homemgr1, user: str) -> list[dict[str, str]]:
    (text,) = service.call("ListSlots", "s", user).body
    found: list[dict[str, str]] = json.loads(str(text))
    return found


def _list(arguments: Arguments, user: str = "") -> int:
    service = Homemgr1(arguments)
    found = _slots(service, user or own_name())
    form = json_format(arguments)
    if form:
        print_json(found, form)
    else:
        rows = [(slot["name"], slot["kind"]) for slot in found]
        print_table(("NAME", "KIND"), rows, legend=not arguments.has("no-legend"))
    return 0


def _add(request: Request, arguments: Arguments) -> int:
    is_key = arguments.has("recovery-key")
    kind = _RECOVERY_KEY if is_key else _PASSWORD
    doing = f"Cannot add slot {request.name} to home {request.user}"
    return request.fill("AddSlot", doing, kind, with_key=is_key)


def _replace(request: Request, _arguments: Arguments) -> int:
    doing = f"Cannot replace slot {request.name} of home {request.user}"
    return request.fill("ReplaceSlot", doing, with_key=request.kind() == _RECOVERY_KEY)


def _remove(request: Request, _arguments: Arguments) -> int:
    doing = f"Cannot remove slot {request.name} of home {request.user}"
    return request.change("RemoveSlot", doing, "password of another slot")


def _test(request: Request, _arguments: Arguments) -> int:
    doing = f"Cannot test slot {request.name} of home {request.user}"
    return request.change("TestSlot", doing)


_COMMANDS: dict[str, Callable[[Request, Arguments], int]] = {
    "add": _add,
    "replace": _replace,
    "remove": _remove,
    "test": _test,
}


def _show(key: str) -> None:
    """Show a new recovery key, the one time it can be shown: alone on standard output."""
    print(
        "This recovery key unlocks the home from now on. Write it down and keep it in a safe"
        "\nplace, it cannot be shown again:\n",
        file=sys.stderr,
        flush=True,
    )
    print(key, flush=True)
    qr.show(key, "recovery key")
