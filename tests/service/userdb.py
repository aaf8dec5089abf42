"""A client of the user database socket: varlink, one JSON object and a NUL each way."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

INTERFACE = "io.systemd.UserDatabase"
SERVICE = "io.systemd.Home"

Answer = dict[str, Any]


class VarlinkFailure(Exception):
    """The error that came back; its name without the interface."""

    def __init__(self, answer: Answer) -> None:
        """As received."""
        super().__init__(answer["error"])
        self.name = str(answer["error"]).removeprefix(f"{INTERFACE}.")
        self.parameters = answer.get("parameters", {})


class UserDatabase:
    """One connection; use as a context manager."""

    def __init__(self, path: Path) -> None:
        """Connect."""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(20)
        self._socket.connect(str(path))
        self._received = b""

    def __enter__(self) -> UserDatabase:
        """Until the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Disconnect."""
        self._socket.close()

    def send(self, method: str, parameters: Answer, *, more: bool = False) -> None:
        """Ask without waiting; ``service`` is added unless given, and the interface too."""
        asked = {"service": SERVICE, **parameters}
        name = method if "." in method else f"{INTERFACE}.{method}"
        request = {"method": name, "parameters": asked, "more": more}
        self._socket.sendall(json.dumps(request).encode() + b"\0")

    def receive(self) -> Answer:
        """The next answer, whatever it is."""
        while b"\0" not in self._received:
            chunk = self._socket.recv(1 << 20)
            assert chunk, "the service closed the connection"
            self._received += chunk
        text, _, self._received = self._received.partition(b"\0")
        answer = json.loads(text)
        assert isinstance(answer, dict)
        return answer

    def ask(self, method: str, **parameters: object) -> Answer:
        """The parameters of the only answer; raises VarlinkFailure."""
        self.send(method, parameters)
        return self._parameters(self.receive())

    def all(self, method: str, **parameters: object) -> list[Answer]:
        """The parameters of every answer; raises VarlinkFailure."""
        self.send(method, parameters, more=True)
        found = []
        while True:
            answer = self.receive()
            found.append(self._parameters(answer))
            if not answer.get("continues"):
                return found

    @staticmethod
    def _parameters(answer: Answer) -> Answer:
        if "error" in answer:
            raise VarlinkFailure(answer)
        parameters = answer["parameters"]
        assert isinstance(parameters, dict)
        return parameters
