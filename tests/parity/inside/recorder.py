"""Does one step of a scenario at a time and keeps what came of it, as plain JSON.

A step never raises: an error is an outcome, by its name on the bus or its exit code. Texts for
people are kept as `said`, for whoever reads about a difference; each service words its own.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import time
import traceback
from contextlib import contextmanager, suppress

from homemgr.wire.client import Client
from homemgr.wire.codec import Variant
from homemgr.wire.messages import BUS_NAME, BUS_PATH, BusError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from homemgr.files import Fd
    from homemgr.wire.messages import Message

NAME, PATH = "org.freedesktop.home1", "/org/freedesktop/home1"
MANAGER, HOME = f"{NAME}.Manager", f"{NAME}.Home"
USERDB = "/run/systemd/userdb/io.systemd.Home"
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
    "SYSTEMD_PAGER": "cat",
    "SYSTEMD_COLORS": "0",
    "SYSTEMD_EMOJI": "0",
    "SYSTEMD_URLIFY": "0",
    "COLUMNS": "200",
}
CALL_TIMEOUT_S = 60.0
PROGRAM_TIMEOUT_S = 60.0
STATE_TIMEOUT_S = 20.0
POLL_S = 0.02


class Recorder:
    """The outcomes of all steps, by the name of the section and of the step."""

    def __init__(self) -> None:
        """Nothing happened yet."""
        self.outcomes: dict[str, object] = {}
        self.section = ""
        self._marks = itertools.count()
        self._client = Client()
        self._client.call(BUS_NAME, BUS_PATH, BUS_NAME, "GetId")

    def keep(self, step: str, outcome: object) -> None:
        """Remember what came of a step of the current section."""
        name = f"{self.section}: {step}"
        if name in self.outcomes:
            raise ValueError(f"two steps are called {name!r}")
        self.outcomes[name] = outcome

    def forget(self, step: str) -> None:
        """Of a step of the current section that is done once more."""
        del self.outcomes[f"{self.section}: {step}"]

    # The bus

    def call(
        self,
        step: str,
        member: str,
        signature: str = "",
        *arguments: object,
        path: str = PATH,
        interface: str = MANAGER,
        uid: int = 0,
        fds: Sequence[Fd] = (),
    ) -> list[object] | None:
        """One method call, kept; its body, or None if an error came. Descriptors are closed."""

        def ask(client: Client) -> dict[str, object]:
            target = (NAME, path, interface, member)
            return _asked(client, target, signature, arguments, fds)

        outcome = as_user(uid, ask) if uid else ask(self._client)
        self.keep(step, outcome)
        body = outcome.get("body")
        return body if isinstance(body, list) else None

    def quietly(self, member: str, signature: str = "", *arguments: object) -> list[object] | None:
        """A call to prepare or clean up; not kept, an error is None."""
        with suppress(BusError):
            reply = self._client.call(
                NAME, PATH, MANAGER, member, signature, arguments, timeout_s=CALL_TIMEOUT_S
            )
            for fd in reply.fds:
                fd.close()
            return reply.body
        return None

    def reference(self, step: str, member: str, signature: str, *arguments: object) -> Fd | None:
        """A call that gives a descriptor; what kind of one is kept, and it is the caller's."""
        try:
            reply = self._client.call(
                NAME, PATH, MANAGER, member, signature, arguments, timeout_s=CALL_TIMEOUT_S
            )
        except BusError as error:
            self.keep(step, {"error": error.name, "said": error.message})
            return None
        (fd,) = reply.fds
        self.keep(step, {"fd": _described(fd)})
        return fd

    # Programs

    def run(
        self,
        step: str,
        *argv: str,
        env: Mapping[str, str] | None = None,
        stdin: str = "",
        user: str = "",
        shown: bool = True,
    ) -> str:
        """A program to its end: exit code, and what it printed if that is to be compared."""
        code, stdout, stderr = run(argv, env=env, stdin=stdin, user=user)
        outcome: dict[str, object] = {"code": code, "said": stderr}
        if shown:
            outcome["stdout"] = _readable(stdout)
        self.keep(step, outcome)
        return stdout

    # The user database

    def userdb(
        self, step: str, method: str, *, caller: int = 0, more: bool = True, **parameters: object
    ) -> None:
        """All answers to one question."""
        asked = {"service": "io.systemd.Home", **parameters}
        asked = {key: value for key, value in asked.items() if value != "absent"}
        name = method if "." in method else f"io.systemd.UserDatabase.{method}"
        request = {"method": name, "parameters": asked, "more": more}

        def ask(_client: Client) -> dict[str, object]:
            return {"answers": _answers(json.dumps(request).encode())}

        self.keep(step, as_user(caller, ask) if caller else ask(self._client))

    # States and signals

    def state(self, name: str) -> str:
        """The state of a home; empty if there is none."""
        body = self.quietly("GetHomeByName", "s", name)
        return str(body[1]) if body else ""

    def wait(self, name: str, *states: str) -> str:
        """Until the home is in one of the states; the state it is in at last."""
        deadline = time.monotonic() + STATE_TIMEOUT_S
        while (found := self.state(name)) not in states and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return found

    @contextmanager
    def signals(self, step: str, sentinel: Callable[[str], None]) -> Iterator[None]:
        """Keep which signals the service sends during the block, each kind once.

        ``sentinel`` makes the user whose appearance marks the end.
        """
        heard: list[Message] = []
        mark = f"sentinel{next(self._marks)}"
        with Client() as listener:
            listener.on_signal = heard.append
            rule = f"type='signal',sender='{NAME}'"
            listener.call(BUS_NAME, BUS_PATH, BUS_NAME, "AddMatch", "s", [rule])
            yield
            sentinel(mark)
            deadline = time.monotonic() + STATE_TIMEOUT_S
            while not any(_names(message, mark) for message in heard):
                if time.monotonic() > deadline:
                    break
                listener.call(BUS_NAME, BUS_PATH, BUS_NAME, "GetId")
                time.sleep(POLL_S)
            self.quietly("UnregisterHome", "s", mark)
        self.keep(step, {_kind(one): True for one in heard if not _names(one, mark)})


def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    stdin: str = "",
    user: str = "",
) -> tuple[int, str, str]:
    """Exit code and output of a program without a terminal; -1 if it had to be killed."""
    become = ["setpriv", "--reuid", user, "--regid", user, "--init-groups"] if user else []
    with subprocess.Popen(
        [*become, *argv],
        env=ENVIRONMENT | dict(env or {}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        cwd="/",
        start_new_session=True,
    ) as process:
        try:
            stdout, stderr = process.communicate(stdin, timeout=PROGRAM_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            stdout, stderr = process.communicate()
            return -1, stdout, stderr
        return process.returncode, stdout, stderr


def as_user(uid: int, ask: Callable[[Client], dict[str, object]]) -> dict[str, object]:
    """What a process of that user is told, over a connection of its own."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            with Client() as client, os.fdopen(writing, "w") as answer:
                json.dump(ask(client), answer)
        except Exception:  # noqa: BLE001 -- the parent fails on the missing answer
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    told: dict[str, object] = json.loads(text)
    return told


def _asked(
    client: Client,
    target: tuple[str, str, str, str],
    signature: str,
    arguments: Sequence[object],
    fds: Sequence[Fd],
) -> dict[str, object]:
    try:
        reply = client.call(
            *target, signature, arguments, fds=fds, interactive=False, timeout_s=CALL_TIMEOUT_S
        )
    except BusError as error:
        return {"error": error.name, "said": error.message}
    outcome: dict[str, object] = {"body": plain(reply.body)}
    if reply.fds:
        outcome["fds"] = [_described(fd) for fd in reply.fds]
        for fd in reply.fds:
            fd.close()
    return outcome


def plain(value: object) -> object:
    """A value of the bus as JSON; JSON in strings is taken apart as well."""
    if isinstance(value, Variant):
        return plain(value.value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, str) and value.startswith("{"):
        return json.loads(value)
    return value


def _described(fd: Fd) -> str:
    return os.readlink(f"/proc/self/fd/{fd.fileno()}")


def _readable(text: str) -> object:
    if text.startswith(("{", "[", "\x1e")):
        with suppress(ValueError):
            found = list(_documents(text))
            return found[0] if len(found) == 1 else found
    return text.splitlines()


def _documents(text: str) -> Iterator[object]:
    """One JSON text after the other, RFC 7464 separators between them or not."""
    left = text.strip("\x1e \n")
    while left:
        document, end = json.JSONDecoder().raw_decode(left)
        yield document
        left = left[end:].strip("\x1e \n")


def _answers(request: bytes) -> list[object]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(CALL_TIMEOUT_S)
        connection.connect(USERDB)
        connection.sendall(request + b"\0")
        received, found = bytearray(), []
        while True:
            while b"\0" not in received:
                chunk = connection.recv(1 << 16)
                if not chunk:
                    return [*found, "closed"]
                received += chunk
            text, _, received = received.partition(b"\0")
            answer = json.loads(text)
            found.append({key: answer[key] for key in ("error", "parameters") if answer.get(key)})
            if not answer.get("continues"):
                return found


def _names(message: Message, mark: str) -> bool:
    return mark in message.path or mark in json.dumps(plain(message.body()))


def _kind(message: Message) -> str:
    """Path, member, and the names of what came, went or changed."""
    body = plain(message.body())
    assert isinstance(body, list)
    if message.member == "PropertiesChanged":
        interface, changed, invalidated = body
        what: object = [interface, sorted(changed), sorted(invalidated)]
    elif message.member == "InterfacesAdded":
        path, interfaces = body
        what = [path, {name: sorted(values) for name, values in sorted(interfaces.items())}]
    else:
        what = [body[0], *(sorted(item) for item in body[1:])]
    return f"{message.path} {message.member} {json.dumps(what)}"
