"""A file server: the real smbd, for kernels that can mount what it serves."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.service.site import wait_until

CONFIGURATION = """
[global]
server role = standalone server
interfaces = lo
bind interfaces only = yes
smb ports = 445
disable netbios = yes
load printers = no
printcap name = /dev/null
passdb backend = tdbsam
private dir = {state}/private
lock directory = {state}/lock
state directory = {state}/state
cache directory = {state}/cache
pid directory = {state}/pid
ncalrpc dir = {state}/ncalrpc
log file = {state}/log
[homes-of-all]
path = {share}
read only = no
"""


class Server:
    """A real smbd with one share, whose users have passwords of their own."""

    def __init__(self, state: Path, network: str = "/proc/self/ns/net") -> None:
        """Start it in a network namespace, on a machine that nobody else uses."""
        self.share = state / "share"
        self._inside = ["nsenter", f"--net={network}"]
        self._configuration = state / "smb.conf"
        for name in ("private", "lock", "state", "cache", "pid", "ncalrpc", "share"):
            (state / name).mkdir(parents=True)
        self.share.chmod(0o777)
        text = CONFIGURATION.format(state=state, share=self.share)
        self._configuration.write_text(text, encoding="utf-8")
        # It ends its whole process group, which must not be ours.
        argv = ["smbd", "--foreground", "--no-process-group", "-s", str(self._configuration)]
        argv = [*self._inside, *argv]
        self._process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, start_new_session=True)
        wait_until(self._answers, "the file server")

    def _answers(self) -> bool:
        argv = [*self._inside, "bash", "-c", ": </dev/tcp/127.0.0.1/445"]
        return subprocess.run(argv, check=False, stderr=subprocess.DEVNULL).returncode == 0

    def set_password(self, user: str, word: str) -> None:
        """Let ``user`` in with ``word`` alone; he needs an account of his own on the server."""
        known = subprocess.run(["getent", "passwd", user], check=False, capture_output=True)
        if known.returncode:
            subprocess.run(["useradd", "-M", user], check=True)
        argv = ["smbpasswd", "-c", str(self._configuration), "-a", "-s", user]
        subprocess.run(argv, input=f"{word}\n{word}\n".encode(), check=True, capture_output=True)

    def lock_after(self, wrong: int) -> None:
        """Lock an account for good after so many ``wrong`` passwords; never if 0."""
        argv = ["pdbedit", "-s", str(self._configuration), "-P", "bad lockout attempt"]
        subprocess.run([*argv, "-C", str(wrong)], check=True, capture_output=True)

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(20)
