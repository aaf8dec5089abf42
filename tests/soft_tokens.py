"""Security tokens that are programs: SoftHSM for PKCS#11, our own authenticator for FIDO2.

For tests in a private mount namespace: the files that name the tokens are shown in the places
where programs look for them, so that everything between is as with real ones.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests import volumes

if TYPE_CHECKING:
    from collections.abc import Iterator

MODULE = "/usr/lib/softhsm/libsofthsm2.so"
CONFIG = Path("/etc/softhsm/softhsm2.conf")
HIDRAW = Path("/sys/class/hidraw")
AUTHENTICATOR = Path(__file__).with_name("authenticator.py")
PIN = "4711"


class SoftHsm:
    """PKCS#11 tokens kept in a directory."""

    def __init__(self, directory: Path) -> None:
        """No token yet; from now on SoftHSM looks here."""
        self._tokens = directory / "tokens"
        self._away = directory / "away"
        self._tokens.mkdir()
        config = directory / "softhsm2.conf"
        config.write_text(f"directories.tokendir = {self._tokens}\nobjectstore.backend = file\n")
        volumes.show_file(config, CONFIG)

    def add(self, label: str, kind: str = "EC:prime256v1") -> str:
        """A token with one key of a ``kind`` as pkcs11-tool(1) names it; gives its URI."""
        said = ("--label", label, "--pin", PIN, "--so-pin", "0815")
        run("softhsm2-util", "--init-token", "--free", *said)
        usage = "--usage-derive" if kind.startswith("EC") else "--usage-decrypt"
        login = ("--token-label", label, "--login", "--pin", PIN)
        key = ("--keypairgen", "--key-type", kind, usage, "--id", "01", "--label", "home")
        run("pkcs11-tool", "--module", MODULE, *login, *key)
        return f"pkcs11:token={label}"

    @contextmanager
    def unplugged(self) -> Iterator[None]:
        """None is there until the end of the block."""
        self._tokens.rename(self._away)
        self._tokens.mkdir()
        try:
            yield
        finally:
            shutil.rmtree(self._tokens)
            self._away.rename(self._tokens)


class Port:
    """Where FIDO2 tokens are plugged in."""

    def __init__(self, directory: Path) -> None:
        """From now on the kernel's list of HID devices is what is in ``directory``."""
        self._directory = directory
        volumes.show_file(directory, HIDRAW)

    @contextmanager
    def plugged_in(self, *options: str) -> Iterator[str]:
        """A token with options of `authenticator`, until the end of the block; gives its device."""
        with subprocess.Popen(
            [sys.executable, "-W", "error", AUTHENTICATOR, "--sys", self._directory, *options],
            stdout=subprocess.PIPE,
            text=True,
        ) as token:
            assert token.stdout is not None
            try:
                device = token.stdout.readline().strip()
                assert device, "the authenticator did not start"
                yield device
            finally:
                token.send_signal(signal.SIGKILL)
                shutil.rmtree(self._directory / f"hidraw{token.pid}", ignore_errors=True)


def run(*argv: str) -> None:
    """Run a program that has to succeed."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
