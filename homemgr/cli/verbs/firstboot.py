"""`homemgr firstboot`: users and signing keys of credentials, and a dialog for the first user.

The credentials are those of systemd-homed: ``home.add-signing-key.NAME`` (a key in PEM form),
``home.create.USER`` and ``home.register.USER`` (user records as JSON). What is there already is
left alone, so that it can be run again. See systemd.system-credentials(7).
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

from homemgr.cli import console, creating, newcomer
from homemgr.cli import record_source as source
from homemgr.cli.arguments import Option
from homemgr.cli.complain import Reported, complain, complain_of, printable
from homemgr.cli.home1 import BusError, Home1, error_is
from homemgr.cli.options import is_on
from homemgr.cli.passed import passed
from homemgr.errors import InvalidRecord
from homemgr.record import jsontext

if TYPE_CHECKING:
    from collections.abc import Callable

    from homemgr.cli.arguments import Arguments
    from homemgr.record.jsontext import JsonObject

OPTIONS = (
    Option("prompt-new-user", "", "", "Ask for a user to create, if there is no regular one"),
    Option("prompt-groups", "", "BOOL", "Ask for the new user's groups (default: yes)"),
    Option("prompt-shell", "", "BOOL", "Ask for the new user's shell (default: yes)"),
    Option("chrome", "", "BOOL", "Show a bar above the questions (default: yes)"),
    Option("mute-console", "", "BOOL", "Keep others from writing to the console (default: no)"),
)
_KEY, _CREATE, _REGISTER = "home.add-signing-key.", "home.create.", "home.register."
_KEY_SUFFIX = ".public"
_MAX_KEY_BYTES = 65536
_NO_FLAGS = 0


def run(arguments: Arguments) -> int:
    """Keys first: records may be signed by them. One that fails does not stop the others."""
    home1 = Home1(arguments)
    done = [_add_key(home1, name, pem) for name, pem in _passed(_KEY, _MAX_KEY_BYTES)]
    for prefix, make in ((_CREATE, _create), (_REGISTER, _register)):
        for user, text in _passed(prefix, jsontext.MAX_RECORD_BYTES):
            done.append(_from_credential(home1, prefix + user, user, text, make))
    if arguments.has("prompt-new-user") and _is_to_ask(home1):
        done.append(_ask(arguments, home1))
    return int(not all(done))


def _passed(prefix: str, limit: int) -> list[tuple[str, bytes]]:
    return list(passed(prefix, limit, os.environ).items())


def _say(text: str) -> None:
    print(printable(text), file=sys.stderr)


# --- credentials ----------------------------------------------------------------------------


def _add_key(home1: Home1, name: str, data: bytes) -> bool:
    if not name.endswith(_KEY_SUFFIX):
        name += _KEY_SUFFIX
    try:
        pem = data.decode("ascii")
        (listed,) = home1.call("ListSigningKeys").body
        assert isinstance(listed, list)
        if any(str(known[1]).split() == pem.split() for known in listed):
            _say(f"Signing key {name} is accepted already, left alone.")
            return True
        home1.call("AddSigningKey", "sst", name, pem, _NO_FLAGS)
    except BusError as error:
        complain_of(f"Cannot add signing key {name}", error)
        return False
    except UnicodeDecodeError:
        complain(f"The credential {_KEY}{name} is no key in PEM form.")
        return False
    _say(f"Signing key {name} is added.")
    return True


def _from_credential(
    home1: Home1,
    credential: str,
    user: str,
    text: bytes,
    make: Callable[[Home1, JsonObject], None],
) -> bool:
    """Make one user of a record that was passed; False if that failed."""
    try:
        record = _record_of(user, text)
        if newcomer.is_user(user) or _is_home(home1, user):
            _say(f"User {user} is there already, left alone.")
            return True
        make(home1, record)
    except InvalidRecord as error:
        complain(f"Credential {credential}: {error.message}")
        return False
    except BusError as error:
        complain_of(f"Credential {credential}", error)
        return False
    except Reported:
        return False
    _say(f"User {user} is made of credential {credential}.")
    return True


def _record_of(user: str, text: bytes) -> JsonObject:
    record = jsontext.parse(text)
    if record.setdefault("userName", user) != user:
        raise InvalidRecord(".userName: expected the one in the name of the credential, or none.")
    return record


def _is_home(home1: Home1, user: str) -> bool:
    try:
        home1.call("GetHomeByName", "s", user)
    except BusError as error:
        if error_is(error, "NoSuchHome"):
            return False
        raise
    return True


def _create(home1: Home1, record: JsonObject) -> None:
    made = creating.without_origin(record, seize=True)
    made.setdefault("disposition", "regular")
    source.stamp(made, with_password=True, override=False)
    creating.add_password(made, str(made["userName"]), may_ask=home1.may_ask)
    creating.create(home1, made, source.Blobs())


def _register(home1: Home1, record: JsonObject) -> None:
    home1.call("RegisterHome", "s", jsontext.pretty(record))


# --- the dialog -----------------------------------------------------------------------------


def _is_to_ask(home1: Home1) -> bool:
    wanted = console.override()
    if wanted is False or not console.may_prompt():
        return False
    if wanted is None and (newcomer.has_regular_user() or home1.call("ListHomes").body[0]):
        _say("There is a regular user already, so none is asked for.")
        return False
    return True


def _ask(arguments: Arguments, home1: Home1) -> bool:
    with ExitStack() as stack:
        if is_on(arguments, "mute-console", by_default=False):
            stack.enter_context(console.muted())
        if is_on(arguments, "chrome", by_default=True):
            console.show_heading("Create a User Account")
        try:
            record = newcomer.ask_for_user(
                groups=is_on(arguments, "prompt-groups", by_default=True),
                shell=is_on(arguments, "prompt-shell", by_default=True),
            )
            if record:
                _create(home1, record)
                _say(f"User {record['userName']} is created.")
        except Reported:
            return False
    return True
