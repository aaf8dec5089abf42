"""Composition root of the two programs: `homemgr` and `homemgrd`.

The only place that sees all rooms. Imports happen inside the functions: the
command line must not pay for the service.
"""

from __future__ import annotations

import os
import sys


def homemgr() -> int:
    """The command line."""
    from homemgr.cli.main import main

    # As short as --root= may be written; most command lines need nothing of this.
    if any(word.startswith("--r") for word in sys.argv):
        from homemgr.cli import home1
        from homemgr.offline.line import open_line

        home1.over_image = open_line
    return main(sys.argv[1:])


def homemgrd() -> int:
    """The service; takes no arguments, its environment and configuration say everything."""
    if len(sys.argv) > 1:
        print(f"homemgrd takes no arguments, found {sys.argv[1]}.", file=sys.stderr)
        return 2
    if os.geteuid() != 0:
        print("homemgrd has to be started by root.", file=sys.stderr)
        return 1
    # Before any name look-up: our own user database must not be asked by ourselves.
    os.environ["SYSTEMD_BYPASS_USERDB"] = "io.systemd.Home"
    log_to_the_journal()
    _keep_out_of_core_dumps()
    from homemgr.work import server

    # Before everything that only the service uses: what both have loaded they share, page
    # by page, and a small process is forked quickly. And before there is an event loop,
    # which no fork must copy.
    control = server.start()
    # The service speaks to local sockets only. None makes the import fail, as on a Python
    # without OpenSSL, which would be a megabyte of memory for nothing.
    sys.modules["ssl"] = None  # type: ignore[assignment]
    import asyncio

    del sys.modules["ssl"]
    from homemgr import errors
    from homemgr.bus import service
    from homemgr.daemon import config
    from homemgr.storage import devices, figures, mountpoint, watch
    from homemgr.wire import messages

    try:
        settings = config.load(os.environ)
        return asyncio.run(
            service.serve(
                control,
                settings,
                mountpoint.is_active,
                watch.Watch,
                figures.measure,
                devices.listen,
            )
        )
    except (errors.HomeError, messages.BusError) as error:
        print(f"homemgrd: {error.message}", file=sys.stderr)
        return 1


def _keep_out_of_core_dumps() -> None:
    """Passwords pass through this process and its workers, which inherit both settings."""
    import resource

    from homemgr.kernel import process

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The limit alone is not heeded where a program takes the dumps, see core(5).
    process.set_dumpable(dumpable=False)


def log_to_the_journal() -> None:
    """Log to standard error with priorities as prefixes, which the journal reads (sd-daemon(3)).

    What comes from records and file names can neither begin a line nor steer a terminal.
    """
    import logging

    priorities = {10: "<7>", 20: "<6>", 30: "<4>", 40: "<3>", 50: "<2>"}
    wants_prefix = "JOURNAL_STREAM" in os.environ

    class Formatter(logging.Formatter):
        """One line for the message and one for each of a traceback, priority first."""

        def format(self, record: logging.LogRecord) -> str:
            lines = [record.getMessage()]
            if record.exc_info:
                lines += self.formatException(record.exc_info).splitlines()
            prefix = priorities.get(record.levelno, "<6>") if wants_prefix else ""
            return "\n".join(prefix + "".join(map(_escaped, line)) for line in lines)

    handler = logging.StreamHandler()
    handler.setFormatter(Formatter())
    level = os.environ.get("HOMEMGR_LOG_LEVEL", "INFO").upper()
    logging.basicConfig(level=level, handlers=[handler])


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")
