"""Which cipher ssh is to use: of those that it would offer anyway, the one that costs least.

OpenSSH prefers chacha20-poly1305, which is right for processors without AES and takes about
twice the time of AES-GCM on those that have it. Only the order is changed: what the settings
of the user or of the system exclude stays excluded, and an order that begins with something
else is left as it is. See ssh_config(5), Ciphers.
"""

from __future__ import annotations

import subprocess

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_SLOW = "chacha20-poly1305@openssh.com"
_QUICK = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")

#: How long ssh may take to say its settings (s).
_PATIENCE_S = 5.0


class Ciphers:
    """The question, asked while there is something else to do."""

    def __init__(self, command: Sequence[str], host: str) -> None:
        """Ask the ssh that ``command`` runs; another program than ssh is asked nothing."""
        is_asked = command[0].rpartition("/")[2] == "ssh" and has_aes()
        self._asked = _ask([*command, "-G", "--", host]) if is_asked else None

    def option(self) -> list[str]:
        """What to add to ssh's options; nothing if it is to choose by itself."""
        if self._asked is None:
            return []
        try:
            text, _ = self._asked.communicate(timeout=_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._asked.kill()
            self._asked.communicate()
            return []
        return preferring(text)


def _ask(command: Sequence[str]) -> subprocess.Popen[str] | None:
    try:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, errors="replace",
        )  # fmt: skip
    except OSError:
        # The same program is started in earnest soon, and its failure is told.
        return None


def preferring(settings: str) -> list[str]:
    """The option for an ssh that prints ``settings`` for -G."""
    lines = (line.partition(" ") for line in settings.splitlines())
    offered = next((value.split(",") for word, _, value in lines if word == "ciphers"), [])
    quick = [name for name in _QUICK if name in offered]
    if not quick or offered[0] != _SLOW:
        return []
    rest = [name for name in offered if name not in quick]
    return [f"-oCiphers={','.join([*quick, *rest])}"]


def has_aes() -> bool:
    """Whether the processor has instructions for AES; see /proc/cpuinfo, flags or Features."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as lines:
            words = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        return False
    return "aes" in words.split()
