"""Jobs of the fake service: each does with its stream, tells and answers as its script says.

The script maps "MEMBER job" to a list of what its jobs do, one after the other, each an
object of: "writes": text into the stream, "reads": how many bytes from it (all of it: -1),
"tells": a list of progress, "error" and "message", or "result"; "hangs" waits for Cancel,
"dies" ends the service. What was read is noted in the log under "stream".
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any

from homemgr.errors import BY_BUS_NAME, Cancelled, HomeError
from homemgr.files import Fd
from homemgr.wire.dispatch import Call, Interface, Method, Node

if TYPE_CHECKING:
    from fake_home1 import Service

MEMBERS = (
    *("SendHome", "ReceiveHome", "ExportHome", "ImportHome", "ConvertHome"),
    *("ConvertAccount", "UndoAccountConversion"),
)
INTERFACE = "org.homemgr1.Job"


class FakeJob:
    def __init__(self, service: Service, path: str, does: dict[str, Any], fds: list[Fd]) -> None:
        self.service, self.path, self.does, self.fds = service, path, does, fds
        self.is_called_off = asyncio.Event()

    async def wait(self, call: Call) -> tuple[str]:
        self.service.note("Wait", self.path)
        try:
            await asyncio.to_thread(self.stream)
        finally:
            for fd in self.fds:
                fd.close()
        assert self.service.connection
        for progress in self.does.get("tells", []):
            text = json.dumps(progress)
            self.service.connection.emit(self.path, INTERFACE, "Progress", "s", (text,))
        await asyncio.sleep(float(self.does.get("takes_s", 0)))
        if self.does.get("dies"):
            os._exit(1)
        if self.does.get("hangs"):
            await self.is_called_off.wait()
            raise Cancelled
        if "error" in self.does:
            raise failure(self.does["error"], self.does.get("message", ""))
        return (json.dumps(self.does.get("result", {})),)

    def stream(self) -> None:
        """The last descriptor is written to, the first one read from."""
        if "writes" in self.does:
            os.write(self.fds[-1].fileno(), self.does["writes"].encode())
        limit = self.does.get("reads", 0)
        data = b""
        while limit < 0 or len(data) < limit:
            chunk = os.read(self.fds[0].fileno(), 4096 if limit < 0 else limit - len(data))
            if not chunk:
                break
            data += chunk
        if limit:
            self.service.note("stream", data.decode())

    def cancel(self, call: Call) -> None:
        self.service.note("Cancel", self.path)
        self.is_called_off.set()


def begin(service: Service, member: str, arguments: tuple[object, ...]) -> str:
    """The path of a new job, which keeps the descriptors of the call."""
    path = f"/org/homemgr1/job/{len(service.nodes)}"
    does = service.next(f"{member} job", {})
    assert isinstance(does, dict)
    fds = [argument.duplicate() for argument in arguments if isinstance(argument, Fd)]
    methods = (
        Method("Wait", (), (("result", "s"),), FakeJob.wait),
        Method("Cancel", (), (), FakeJob.cancel),
    )
    job = FakeJob(service, path, does, fds)
    service.nodes[path] = Node(job, (Interface(INTERFACE, methods, (), ()),))
    return path


def failure(name: str, message: str) -> HomeError:
    known = BY_BUS_NAME.get(name) or type("Foreign", (HomeError,), {"bus_name": name})
    return known(message or "Failed.")
