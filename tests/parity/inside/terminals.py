"""What is typed: passwords that programs ask for on a terminal, right and wrong."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import time
from contextlib import suppress

from . import people
from .accounts import is_old
from .people import OTHER, PASSWORD, SECRET, WRONG
from .recorder import ENVIRONMENT, Recorder

#: Whatever asks: homectl, PAM modules and login programs.
PROMPT = re.compile(rb"(password|login|again)[^\n]{0,60}: ?(\(press TAB for no echo\) ?)?$", re.I)
TYPING_TIMEOUT_S = 60.0
NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
CHEAP = ("--storage=directory", "--enforce-password-policy=no")


def typed(to: Recorder, step: str, argv: tuple[str, ...], answers: tuple[str, ...]) -> None:
    """A program on a terminal of its own: exit code, and how many answers it asked for.

    Who is asked once more than there are answers, hangs up.
    """
    child, terminal = pty.fork()
    if child == 0:
        os.chdir("/")
        os.execvpe(argv[0], argv, ENVIRONMENT)  # noqa: S606 -- no shell is wanted
    shown, left = bytearray(), list(answers)
    deadline = time.monotonic() + TYPING_TIMEOUT_S
    # A terminal that nobody has open any more cannot be read.
    with suppress(OSError):
        while time.monotonic() < deadline:
            if not select.select([terminal], [], [], 1.0)[0]:
                continue
            shown += os.read(terminal, 1 << 12)
            if PROMPT.search(shown):
                if not left:
                    break
                shown.clear()
                os.write(terminal, left.pop(0).encode() + b"\n")
    os.close(terminal)
    _, status = os.waitpid(child, 0)
    asked = len(answers) - len(left)
    to.keep(step, {"code": os.waitstatus_to_exitcode(status), "asked": asked})


def by_homectl(to: Recorder) -> None:
    """Verbs of homectl that need a password and were given none."""
    create = ("homectl", "create", "anna", "--uid=60111", *CHEAP)
    typed(to, "create, not the same twice", create, (PASSWORD, OTHER, PASSWORD, PASSWORD))
    typed(to, "authenticate", ("homectl", "authenticate", "anna"), (PASSWORD,))
    typed(to, "authenticate, wrong first", ("homectl", "authenticate", "anna"), (WRONG, PASSWORD))
    typed(to, "authenticate, gives up", ("homectl", "authenticate", "anna"), (WRONG,))
    typed(to, "activate", ("homectl", "activate", "anna"), (PASSWORD,))
    typed(to, "update", ("homectl", "update", "anna", "--real-name=Typed"), (PASSWORD,))
    to.call("record", "GetUserRecordByName", "s", "anna")
    typed(to, "passwd", ("homectl", "passwd", "anna"), (OTHER, OTHER, PASSWORD))
    typed(to, "authenticate with the new one", ("homectl", "authenticate", "anna"), (OTHER,))
    typed(to, "deactivate", ("homectl", "deactivate", "anna"), ())
    words = ("homectl", "with", "anna", "--", "sh", "-c", "exit 7")
    typed(to, "with", words, (OTHER,))
    to.keep("after with", to.wait("anna", "inactive"))
    typed(to, "unknown user", ("homectl", "authenticate", "kim"), (OTHER,))
    typed(to, "remove", ("homectl", "remove", "anna"), ())


def by_login_programs(to: Recorder) -> None:
    """su, login and passwd themselves."""
    people.create(to, "anna", uid=60111, realName="Anna A")
    if not is_old():
        su = (*NOBODY, "su", "-", "anna", "-c", "test $PWD = /home/anna && exit 7")
        typed(to, "su", su, (PASSWORD,))
        to.keep("after su", to.wait("anna", "inactive"))
        typed(to, "su, wrong first", su, (WRONG, PASSWORD))
        to.keep("after su, wrong first", to.wait("anna", "inactive"))
    to.quietly("ActivateHome", "ss", "anna", SECRET)
    user = ("setpriv", "--reuid", "60111", "--regid", "60111", "--clear-groups")
    typed(to, "passwd", (*user, "passwd"), (OTHER, OTHER, PASSWORD))
    secret = json.dumps({"password": [OTHER]})
    to.call("the new password", "AuthenticateHome", "ss", "anna", secret)
    typed(to, "passwd, wrong", (*user, "passwd"), (PASSWORD, PASSWORD, WRONG))
    to.call("record", "GetUserRecordByName", "s", "anna")


SECTIONS = (by_homectl, by_login_programs)
