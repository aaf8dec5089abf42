"""The dialog that makes the first user of a machine: name, groups, shell; the password comes later.

Asks on the terminal and looks names up; makes nothing itself.
"""

from __future__ import annotations

import grp
import os
import pwd
from typing import TYPE_CHECKING

from homemgr.cli import console
from homemgr.cli.prompt import ask_openly
from homemgr.errors import InvalidArgs
from homemgr.record.names import check_new_name

if TYPE_CHECKING:
    from homemgr.record.jsontext import JsonObject

#: Uids of regular users: neither of the system, nor given out by services or to containers.
_REGULAR = (range(1000, 61184), range(65536, 524288))


def has_regular_user() -> bool:
    """Whether the machine knows any user who is a person; homes count."""
    return any(entry.pw_uid in uids for entry in pwd.getpwall() for uids in _REGULAR)


def is_user(name: str) -> bool:
    """Whether the machine knows a user of this name."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _is_group(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def ask_for_user(*, groups: bool, shell: bool) -> JsonObject:
    """The record of a new user; empty if none was named. Raises Reported without a terminal."""
    name = _ask_for_name()
    if not name:
        return {}
    # Nobody at this screen could call us again with --enforce-password-policy=no.
    record: JsonObject = {"userName": name, "enforcePasswordPolicy": False}
    if groups and (chosen := _ask_for_groups(name)):
        record["memberOf"] = [*sorted(chosen)]
    if shell and (path := _ask_for_shell(name)):
        record["shell"] = path
    return record


def _ask_for_name() -> str:
    while name := ask_openly("Please enter user name to create (empty to skip):"):
        try:
            check_new_name(name)
        except InvalidArgs as error:
            console.write(f"{error.message}\n")
            continue
        if not is_user(name) and not _is_group(name):
            return name
        console.write(f"The name {name} is taken, try again.\n")
    return ""


def _ask_for_groups(user: str) -> set[str]:
    question = f"Please enter an auxiliary group for user {user} (empty to continue, list):"
    chosen: set[str] = set()
    while name := ask_openly(question):
        available = sorted({group.gr_name for group in grp.getgrall()})
        if name == "list":
            console.write("".join(f"{group}\n" for group in available))
        elif name in available:
            chosen.add(name)
            console.write(f"Selected: {', '.join(sorted(chosen))}\n")
        else:
            console.write(f"There is no group {name}, try again.\n")
    return chosen


def _ask_for_shell(user: str) -> str:
    while path := ask_openly(f"Please enter the shell of user {user} (empty for the default):"):
        if os.path.isabs(path) and os.path.isfile(path) and os.access(path, os.X_OK):
            return path
        console.write(f"{path} is no program that can be run, try again.\n")
    return ""
