"""`homemgr passwd [USER]`: change the password of a home."""

from __future__ import annotations

import json

from homemgr.cli.complain import Reported, complain, complain_of
from homemgr.cli.credentials import Credentials, new_password, unlock
from homemgr.cli.home1 import BusError, Home1, Reply, error_is, own_name, with_agent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from homemgr.cli.arguments import Arguments

OPTIONS = ()


def run(arguments: Arguments) -> int:
    """Ask for the new password, then for the current one as the service wants it."""
    user = arguments.words[0] if arguments.words else own_name()
    doing = f"Cannot change the password of home {user}"
    home1 = Home1(arguments)
    with_agent(home1)
    # PASSWORD is the current one, NEWPASSWORD the new one; each is asked for if missing.
    current = Credentials.from_environment()
    wanted = new_password(user, may_ask=home1.may_ask)

    def call() -> Reply:
        # Asked again here, and not outside: a weak password must not cost another round.
        nonlocal wanted
        while True:
            new = json.dumps({"password": [wanted]}, ensure_ascii=False)
            try:
                return home1.call("ChangePasswordHome", "sss", user, new, current.to_json())
            except BusError as error:
                if error_is(error, "BadPasswordAndNoToken"):
                    # A password alone would not do: every key has to be written anew.
                    complain_of(doing, error)
                    raise Reported from error
                if not (home1.may_ask and error_is(error, "LowPasswordQuality")):
                    raise
                complain(error.message)
                wanted = new_password(user, may_ask=True)

    unlock(user, current, call, doing, may_ask=home1.may_ask, asks_for="current password")
    return 0
