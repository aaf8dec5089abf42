"""The inner half of `homemgr demo`: every step is a real command with its real output.

Runs as the first process of its pid namespace, in a mount namespace of its own.
What it shows is not asserted here; the tests do that.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pwd import getpwnam
from typing import TYPE_CHECKING, NoReturn

from homemgr.cli.complain import Reported, complain
from homemgr.cli.demo.outside import SOURCE, program
from homemgr.files import Fd
from homemgr.wire.client import Client
from homemgr.wire.messages import BusError

if TYPE_CHECKING:
    from types import FrameType
    from typing import IO

_PASSWORD = "correct horse battery"  # noqa: S105 (shown on the screen, gone with the home)
_IMAGE_BYTES = 64 << 20
_START_S = 20.0
#: Where directories are that may be covered for a while; only root can change what leads there.
_PLACES = ("/mnt", "/media", "/srv", "/tmp")  # noqa: S108 -- covered, not used
_DIRECTORY_MODE = 0o755
_NAMES = ("alice", "alice-demo", "alice-homemgr-demo")
_BUS_CONFIG = """<busconfig>
 <listen>unix:path={socket}</listen><auth>EXTERNAL</auth>
 <policy context="default">
  <deny user="*"/><allow user="root"/>
  <allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/>
 </policy>
</busconfig>
"""


class Stage:
    """The directory of the demonstration, and the commands that are run on it."""

    def __init__(self, directory: str) -> None:
        """Everything lies below ``directory``."""
        self.directory = directory
        self.home_root = f"{directory}/home"
        self._steps = 0
        self.environment = {
            "PATH": os.environ["PATH"],
            "LC_ALL": "C.UTF-8",
            "TERM": os.environ.get("TERM", "dumb"),
            "PYTHONPATH": SOURCE,
            "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={directory}/bus",
            "SYSTEMD_HOME_ROOT": self.home_root,
            "SYSTEMD_HOME_RECORD_DIR": f"{directory}/records",
            "SYSTEMD_HOME_SYSTEM_BLOB_DIR": f"{directory}/blobs",
            "HOMEMGR_RUNTIME_DIR": f"{directory}/run",
            "HOMEMGR_CONFIG": f"{directory}/homemgr.conf",
            "HOMEMGR_LOG_LEVEL": "WARNING",
        }

    def say(self, text: str) -> None:
        """One step, in one line."""
        self._steps += 1
        print(f"\n{self._steps}. {text}")

    def show(self, *command: str, fails: bool = False, **more: str) -> None:
        """Run a command, showing it and what it prints; ``fails`` says that it has to."""
        prefix = "".join(f"{k}={shlex.quote(v)} " for k, v in more.items())
        print(f"   $ {prefix}{shlex.join(command)}")
        ours = program("homemgr") if command[0] == "homemgr" else [command[0]]
        done = subprocess.run(
            [*ours, *command[1:]],
            env=self.environment | more,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        for line in done.stdout.splitlines():
            print(f"   {line}")
        if bool(done.returncode) != fails:
            complain(f"This should {'have failed' if fails else 'have worked'}.")
            raise Reported

    def start(self, *command: str, errors: IO[str] | None = None) -> subprocess.Popen[bytes]:
        """Start a program that stays; ``errors`` takes what it complains about."""
        return subprocess.Popen(
            command, env=self.environment, stdin=subprocess.DEVNULL, stderr=errors
        )


def run() -> int:
    """Show everything; the namespaces around us do the cleaning up."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        # The first process of a pid namespace is sent no signal it does not handle.
        signal.signal(number, _end)
    stage = Stage(_ground())
    print("homemgr shows itself: private bus, private mounts, nothing of this machine is changed.")
    print(f"Nobody else sees what is in {stage.directory}.", flush=True)
    _file_system(stage)
    service = _service(stage)
    user = _free_name()
    _life_of_a_home(stage, user)
    service.terminate()
    service.wait()
    print("\nDone. Bus, service, mounts and files of this demonstration are gone now.")
    return 0


def _ground() -> str:
    """A new directory in memory: seen in our mount namespace alone, and gone with it.

    What is there already is covered, so that nothing has to be made on the machine.
    """
    needed = {os.path.realpath(path) for path in (SOURCE, sys.prefix, sys.base_prefix, *sys.path)}
    for place in _PLACES:
        is_needed = any(f"{path}/".startswith(f"{place}/") for path in needed)
        if is_needed or os.path.islink(place) or not os.path.isdir(place):
            continue
        command = ["mount", "-t", "tmpfs", "-o", "mode=755,nosuid,nodev", "homemgr-demo", place]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        directory = f"{place}/homemgr-demo"
        os.mkdir(directory)
        # Whatever the umask: the user of the demonstration has to reach the home inside.
        os.chmod(directory, _DIRECTORY_MODE)
        return directory
    complain(f"None of {', '.join(_PLACES)} is a directory that can be covered.")
    raise Reported


def _file_system(stage: Stage) -> None:
    stage.say("A file system in an image, for this demonstration alone.")
    image = f"{stage.directory}/image"
    os.mkdir(stage.home_root)
    with Fd.open(image, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as file:
        os.ftruncate(file.fileno(), _IMAGE_BYTES)
    stage.show("mkfs.ext4", "-q", image)
    stage.show("mount", "-o", "loop", image, stage.home_root)


def _service(stage: Stage) -> subprocess.Popen[bytes]:
    stage.say("A bus, and the service on it: what systemd-homed is elsewhere.")
    config = f"{stage.directory}/bus.conf"
    with open(config, "w", encoding="utf-8") as file:
        file.write(_BUS_CONFIG.format(socket=f"{stage.directory}/bus"))
    # Its remarks, on limits it cannot raise in a container, are of interest only if it fails.
    log = f"{stage.directory}/bus.log"
    with open(log, "w", encoding="utf-8") as errors:
        command = ("dbus-daemon", f"--config-file={config}", "--nofork", "--nopidfile")
        stage.start(*command, errors=errors)
    _wait_for(f"{stage.directory}/bus", log)
    service = stage.start(*program("homemgrd"))
    deadline = time.monotonic() + _START_S
    client = Client(stage.environment["DBUS_SYSTEM_BUS_ADDRESS"])
    target = ("org.freedesktop.home1", "/org/freedesktop/home1", "org.freedesktop.home1.Manager")
    while True:
        try:
            client.call(*target, "ListHomes")
        except BusError as error:
            if service.poll() is not None or time.monotonic() > deadline:
                complain(f"The service did not start: {error.message}")
                raise Reported from error
            time.sleep(0.05)
        else:
            client.close()
            break
    # Through the command line as well: the first thing shown is that it answers.
    stage.show("homemgr", "list")
    return service


def _life_of_a_home(stage: Stage, user: str) -> None:
    home = f"{stage.home_root}/{user}"
    base = f"{stage.home_root}/.homemgr"
    image = f"{base}/{user}.homedir"
    stage.say(f"A person gets an account: a signed record and a home for {user}.")
    stage.show("homemgr", "create", user, "--real-name=Alice Example", NEWPASSWORD=_PASSWORD)
    stage.show("homemgr", "list")
    stage.say("At rest every file belongs to nobody (65534), below a directory for root alone.")
    stage.show("ls", "-lnd", base)
    stage.show("ls", "-lnA", image)
    stage.say("Without the password there is no home.")
    wrong = {"PASSWORD": "wrong"}
    stage.show("homemgr", "activate", user, "--no-ask-password", fails=True, **wrong)
    stage.say("With it, an idmapped mount shows the same files as the user's own.")
    stage.show("homemgr", "activate", user, PASSWORD=_PASSWORD)
    stage.show("findmnt", "-no", "FSTYPE,OPTIONS", home)
    uid = str(os.stat(home).st_uid)
    as_user = ("setpriv", "--reuid", uid, "--regid", uid, "--clear-groups")
    stage.say(f"The user, uid {uid} on this machine, writes a file.")
    stage.show(*as_user, "sh", "-c", f"echo hello > {home}/note; chmod 600 {home}/note")
    stage.say("Seen by the user, the file is the user's ...")
    stage.show("ls", "-ln", home)
    stage.say("... and on disk, the same file is nobody's.")
    stage.show("ls", "-ln", image)
    stage.say("Nothing can be stored under another id: not even root has one in there.")
    stage.show("touch", f"{home}/of-root", fails=True)
    stage.say("The user leaves: the mount goes, and with it the user's view of the files.")
    stage.show("homemgr", "deactivate", user)
    stage.show("ls", "-lnA", home)
    stage.say("The account goes, record and files.")
    stage.show("homemgr", "remove", user)
    stage.show("homemgr", "list")


def _free_name() -> str:
    """A name that is no account here: the service refuses names that are taken."""
    for name in _NAMES:
        try:
            getpwnam(name)
        except KeyError:
            return name
    complain(f"All of {', '.join(_NAMES)} are accounts on this machine.")
    raise Reported


def _wait_for(path: str, log: str) -> None:
    deadline = time.monotonic() + _START_S
    while not os.path.exists(path):
        if time.monotonic() > deadline:
            with open(log, encoding="utf-8") as file:
                complain(f"The private bus did not start: {file.read()}")
            raise Reported
        time.sleep(0.01)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
