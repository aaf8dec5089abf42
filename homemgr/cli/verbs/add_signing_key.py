"""`homemgr add-signing-key [FILE...]`: accept records that are signed with these keys.

A key in PEM form, as `homemgr get-signing-key` prints it on the other machine. It is
called as the file is, or as --key-name= says.
"""

from __future__ import annotations

import os
import sys

from homemgr.cli.arguments import Option, UsageError
from homemgr.cli.complain import complain, complain_of
from homemgr.cli.home1 import BusError, Home1, with_agent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from homemgr.cli.arguments import Arguments

OPTIONS = (Option("key-name", "", "NAME.public", "What the key is called here"),)

_STDIN = "-"
_NO_FLAGS = 0
#: A public key of ed25519 has 113 bytes; what is beyond this is no key.
_MAX_CHARACTERS = 65536


def run(arguments: Arguments) -> int:
    """Add each key; one that fails does not stop the others."""
    home1 = Home1(arguments)
    paths = arguments.words or [_STDIN]
    keys = [(path, _name(arguments, path, len(paths))) for path in paths]
    with_agent(home1)
    failed = False
    for path, name in keys:
        try:
            home1.call("AddSigningKey", "sst", name, _read(path), _NO_FLAGS)
        except BusError as error:
            complain_of(f"Cannot add signing key {name}", error)
            failed = True
        except UnicodeDecodeError:
            complain(f"{path}: no key in PEM form.")
            failed = True
    return int(failed)


def _name(arguments: Arguments, path: str, count: int) -> str:
    given = arguments.value("key-name")
    if given and count > 1:
        raise UsageError(f"--key-name={given}: {count} keys cannot have the same name.")
    if path == _STDIN and not given:
        raise UsageError("A key from standard input needs --key-name=NAME.public.")
    return given or os.path.basename(path)


def _read(path: str) -> str:
    if path == _STDIN:
        return sys.stdin.read(_MAX_CHARACTERS)
    with open(path, encoding="ascii") as file:
        return file.read(_MAX_CHARACTERS)
