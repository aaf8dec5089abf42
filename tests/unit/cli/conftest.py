"""A private bus, a scripted service on it, and the command line as a real process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).parents[3]
RUN = [
    sys.executable,
    "-c",
    "import sys; from homemgr.cli.main import main; sys.exit(main(sys.argv[1:]))",
]
HOME1 = "org.freedesktop.home1."
BUS_CONFIG = """<busconfig>
<listen>unix:path={socket}</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_type="method_call"/>
<allow send_destination="*"/><allow receive_sender="*"/></policy></busconfig>"""


class Service:
    """The fake service: script it, then see what it was asked."""

    def __init__(self, directory: Path) -> None:
        self.address = f"unix:path={directory / 'bus'}"
        self.script = directory / "script.json"
        self.log = directory / "log"
        self.process: subprocess.Popen[str] | None = None

    def start(self, **script: object) -> None:
        self.script.write_text(json.dumps(script))
        self.log.touch()
        program = str(Path(__file__).with_name("fake_home1.py"))
        self.process = subprocess.Popen(
            [sys.executable, program, self.address, str(self.script), str(self.log)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )
        assert self.process.stdout
        assert self.process.stdout.readline() == "ready\n"

    @property
    def calls(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def calls_of(self, member: str) -> list[list[object]]:
        found = [call["arguments"] for call in self.calls if call["member"] == member]
        return [arguments for arguments in found if isinstance(arguments, list)]

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.communicate()


def error(name: str, message: str = "") -> dict[str, str]:
    return {"error": name if "." in name else HOME1 + name, "message": message}


def environment(service: Service | None = None, **more: str) -> dict[str, str]:
    found = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "LC_ALL": "C.UTF-8"}
    if service:
        found["DBUS_SYSTEM_BUS_ADDRESS"] = service.address
    return found | more


def homemgr(
    *arguments: str, service: Service | None = None, stdin: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    """The command line without a terminal."""
    return subprocess.run(
        [*RUN, *arguments],
        env=environment(service, **variables),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        # No controlling terminal: a test that runs on one must not ask its user.
        start_new_session=True,
    )


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    config = tmp_path / "bus.conf"
    config.write_text(BUS_CONFIG.format(socket=tmp_path / "bus"))
    command = ["dbus-daemon", f"--config-file={config}", "--nofork", "--print-address"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as bus:
        assert bus.stdout
        bus.stdout.readline()
        found = Service(tmp_path)
        yield found
        found.stop()
        bus.terminate()
