"""`homemgr resize USER [SIZE]`: give a home another size, without SIZE the one in its record."""

from __future__ import annotations

from homemgr.cli import convert
from homemgr.cli.arguments import UsageError
from homemgr.cli.credentials import Credentials, unlock
from homemgr.cli.home1 import Home1, Reply, with_agent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from homemgr.cli.arguments import Arguments

OPTIONS = ()

#: What ResizeHome takes for the size in the record; the largest size is one less.
_AS_RECORDED = (1 << 64) - 1
_WORDS = {"min": 0, "max": _AS_RECORDED - 1}


def run(arguments: Arguments) -> int:
    """Resize one home."""
    user, *rest = arguments.words
    size = _size(rest[0]) if rest else _AS_RECORDED
    home1 = Home1(arguments)
    with_agent(home1)
    credentials = Credentials.from_environment()

    def call() -> Reply:
        return home1.call("ResizeHome", "sts", user, size, credentials.to_json())

    unlock(user, credentials, call, f"Cannot resize home {user}", may_ask=home1.may_ask)
    return 0


def _size(text: str) -> int:
    """Bytes; raises UsageError."""
    if text in _WORDS:
        return _WORDS[text]
    try:
        size = convert.size(text)
    except ValueError as error:
        raise UsageError(f"{text}: expected min, max or {error}.") from error
    if size >= _AS_RECORDED:
        raise UsageError(f"{text}: expected less than 16E.")
    return size
