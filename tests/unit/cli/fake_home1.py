"""A home1 service that answers as its script says and writes down what it was asked.

Run as a program: ADDRESS SCRIPT LOG. The script maps members to answers, used one
after the other, the last one for good: {"error": NAME, "message": TEXT} or a list
of reply values. The log gets one JSON object per call.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from homemgr.errors import BY_BUS_NAME, HomeError
from homemgr.files import Fd
from homemgr.wire.connection import Connection
from homemgr.wire.dispatch import Call, Dispatcher, Interface, Method, Node

sys.path.insert(0, str(Path(__file__).parent))
import fake_jobs

PATH = "/org/freedesktop/home1"
OUR_PATH = "/org/homemgr1"
SIGNATURES = {
    "ListHomes": ("", "a(susussso)"),
    "GetHomeByName": ("s", "usussso"),
    "GetUserRecordByName": ("s", "sbo"),
    "GetUserRecordByUID": ("u", "sbo"),
    "ActivateHome": ("ss", ""),
    "DeactivateHome": ("s", ""),
    "DeactivateAllHomes": ("", ""),
    "AuthenticateHome": ("ss", ""),
    "CreateHomeEx": ("sa{sh}t", ""),
    "CreateHome": ("s", ""),
    "UpdateHome": ("s", ""),
    "UpdateHomeEx": ("sa{sh}t", ""),
    "ResizeHome": ("sts", ""),
    "Rebalance": ("", ""),
    "LockHome": ("s", ""),
    "UnlockHome": ("ss", ""),
    "LockAllHomes": ("", ""),
    "ChangePasswordHome": ("sss", ""),
    "RemoveHome": ("s", ""),
    "AcquireHome": ("ssb", "h"),
    "RefHome": ("sb", "h"),
    "ReleaseHome": ("s", ""),
    "RegisterHome": ("s", ""),
    "UnregisterHome": ("s", ""),
    "AdoptHome": ("st", ""),
    "ListSigningKeys": ("", "a(sst)"),
    "GetSigningKey": ("s", "st"),
    "AddSigningKey": ("sst", ""),
    "RemoveSigningKey": ("st", ""),
}
OUR_SIGNATURES = {
    "ListExtensions": ("", "s"),
    "TrustExtension": ("s", "s"),
    "DistrustExtension": ("s", "s"),
    "GetExtensionStatus": ("s", "s"),
    "EnableExtension": ("ss", ""),
    "DisableExtension": ("ss", ""),
    "RefreshExtensions": ("st", "s"),
    "GetExtensionDifferences": ("s", "s"),
    "DiscardExtensionChanges": ("sast", "s"),
    "ActivateHomeInMode": ("sss", ""),
    "SendHome": ("sshh", "o"),
    "ReceiveHome": ("shh", "o"),
    "ExportHome": ("ssh", "o"),
    "ImportHome": ("sh", "o"),
    "ConvertHome": ("sss", "o"),
    "UndoConversion": ("ss", ""),
    "ConfirmConversion": ("s", ""),
    "ListConversions": ("", "s"),
    "ConvertAccount": ("st", "o"),
    "UndoAccountConversion": ("s", "o"),
    "ConfirmAccountConversion": ("s", ""),
    "ListAccountConversions": ("", "s"),
    "ListTransfers": ("", "s"),
    "ForgetTransfer": ("ss", ""),
    "ListOrigins": ("", "s"),
    "TrustOrigin": ("ss", ""),
    "ForgetOrigin": ("s", ""),
    "CheckHomes": ("s", "s"),
    "GetHomeUsage": ("st", "s"),
    "RepairHomes": ("s", "s"),
    "ListSlots": ("s", "s"),
    "AddSlot": ("sssss", ""),
    "ReplaceSlot": ("ssss", ""),
    "RemoveSlot": ("sss", ""),
    "TestSlot": ("sss", ""),
    "CreateHomeOfHash": ("s", ""),
}


class Service:
    """The script, the log, and the write ends that were handed out."""

    def __init__(self, script: Path, log: Path) -> None:
        self.script: dict[str, list[object]] = json.loads(script.read_text())
        self.log = log
        self.references: list[Fd] = []
        self.nodes: dict[str, Node] = {}
        self.connection: Connection | None = None
        self.emit: Callable[[str, str, list[object]], None] = lambda *_: None

    def run(self, member: str, call: Call, arguments: tuple[object, ...]) -> object:
        entry = {
            "member": member,
            "interactive": call.interactive,
            "arguments": [self.readable(a, call) for a in arguments],
            # A reference that was given back: reading its pipe finds the end.
            "references": [self.is_held(fd) for fd in self.references],
        }
        with self.log.open("a") as file:
            file.write(json.dumps(entry) + "\n")
        for signal in self.script.get(f"{member} tells", []):
            assert isinstance(signal, list)
            name, kinds, *values = signal
            self.emit(str(name), str(kinds), values)
        answer = self.next(member, [])
        if isinstance(answer, dict):
            raise failure(str(answer["error"]), str(answer.get("message", "")))
        if member in ("AcquireHome", "RefHome"):
            read, write = os.pipe()
            os.set_blocking(read, False)
            self.references.append(Fd(read))
            return (Fd(write),)
        if member in fake_jobs.MEMBERS:
            return (fake_jobs.begin(self, member, arguments),)
        return tuple(
            tuple(map(tuple, value)) if isinstance(value, list) else value for value in answer
        )

    def next(self, name: str, default: object) -> object:
        answers = self.script.get(name, [default])
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def note(self, member: str, *arguments: object) -> None:
        """Write down what is no call of ours."""
        with self.log.open("a") as file:
            file.write(json.dumps({"member": member, "arguments": arguments}) + "\n")

    @staticmethod
    def readable(argument: object, call: Call) -> object:
        if isinstance(argument, Fd):
            return "descriptor"
        if not isinstance(argument, dict):
            return argument
        return {
            name: os.read(_number(value, call), 4096).decode() for name, value in argument.items()
        }

    @staticmethod
    def is_held(fd: Fd) -> bool:
        try:
            return bool(os.read(fd.fileno(), 1))
        except BlockingIOError:
            return True


def _number(value: object, call: Call) -> int:
    return value.fileno() if isinstance(value, Fd) else call.fds[int(value)].fileno()  # type: ignore[call-overload]


def failure(name: str, message: str) -> HomeError:
    """The failure of that bus name; one made up for names that our own service never uses."""
    known = BY_BUS_NAME.get(name) or type("Foreign", (HomeError,), {"bus_name": name})
    return known(message or "Failed.")


class Objects:
    def __init__(self, nodes: dict[str, Node]) -> None:
        self.nodes = nodes

    def resolve(self, path: str) -> Node | None:
        return self.nodes.get(path)

    def children(self, path: str) -> list[str]:
        return []


def method(member: str, takes: str, gives: str) -> Method:
    def run(service: Service, call: Call, *arguments: object) -> object:
        return service.run(member, call, arguments)

    return Method(member, _named(takes), _named(gives), run)


def node(service: Service, name: str, signatures: dict[str, tuple[str, str]]) -> Node:
    methods = tuple(method(member, *kinds) for member, kinds in signatures.items())
    return Node(service, (Interface(name, methods, (), ()),))


def _named(signature: str) -> tuple[tuple[str, str], ...]:
    kinds, rest = [], signature
    while rest:
        size = next(n for n in range(1, len(rest) + 1) if _is_whole(rest[:n]))
        kinds.append((f"argument{len(kinds)}", rest[:size]))
        rest = rest[size:]
    return tuple(kinds)


def _is_whole(text: str) -> bool:
    return text[-1] != "a" and all(text.count(a) == text.count(b) for a, b in ("()", "{}"))


async def main(address: str, script: str, log: str) -> None:
    service = Service(Path(script), Path(log))
    nodes = {
        PATH: node(service, "org.freedesktop.home1.Manager", SIGNATURES),
        OUR_PATH: node(service, "org.homemgr1.Manager", OUR_SIGNATURES),
    }
    service.nodes = nodes
    connection = await Connection.open(address)
    service.connection = connection
    service.emit = lambda name, kinds, values: connection.emit(
        OUR_PATH, "org.homemgr1.Manager", name, kinds, values
    )
    connection.serve(Dispatcher(Objects(nodes)))
    await connection.request_name("org.freedesktop.home1")
    print("ready", flush=True)
    await connection.wait_closed()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
