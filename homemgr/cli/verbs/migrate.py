"""`homemgr migrate USER [LOGIN@]HOST`: move a home to another machine, or fetch it from there.

Both machines need homemgr, and ssh has to get from here to there; everything else the two
services settle between themselves. Broken off at any point, the same command goes on.
"""

from __future__ import annotations

import json
import os

from homemgr.cli import move, options, report_text
from homemgr.cli.arguments import Option, UsageError
from homemgr.cli.credentials import Credentials, can_be_answered, unlock
from homemgr.cli.home1 import BusError, Home1, Homemgr1, with_agent
from homemgr.cli.output import json_format, print_json
from homemgr.cli.progress import ProgressLine
from homemgr.cli.ssh import NO_CONNECTION, VARIABLE, Host, NoConnection
from homemgr.cli.trust import OPTION as TRUST
from homemgr.cli.trust import Trust, is_untrusted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from homemgr.cli.arguments import Arguments
    from homemgr.cli.jobs import Answer

OPTIONS = (
    Option("from", "", "[LOGIN@]HOST", "Fetch the home from there in the place of sending it"),
    *options.SENDING,
    options.STORAGE,
    TRUST,
    Option("ssh", "", "COMMAND", f"The ssh program with its options; else {VARIABLE}, else ssh"),
    Option("remote", "", "COMMAND", "What ssh runs there, such as 'sudo homemgr'"),
    options.QUIET,
)

_HERE = "this machine"


def run(arguments: Arguments) -> int:
    """Move it, and ask once whether the sender is trusted, where the receiver wants to know."""
    migration = _Migration(arguments)
    try:
        answer = migration.run()
    except NoConnection as error:
        from homemgr.cli.complain import complain

        complain(error.message, error.hint)
        return NO_CONNECTION
    form = json_format(arguments)
    if form:
        print_json(answer, form)
    elif not arguments.has("quiet"):
        migration.tell(answer)
        report_text.notes(answer, legend=not arguments.has("no-legend"))
    return 0


class _Migration:
    """What the command line says."""

    def __init__(self, arguments: Arguments) -> None:
        """UsageError if it makes no sense."""
        self._arguments = arguments
        self._user, *hosts = arguments.words
        self._is_pull = arguments.has("from")
        # Before anything is begun: a wrong option must not be found out half way.
        self._sending = options.sending(arguments)
        self._trust = Trust(arguments)
        self._service = Homemgr1(arguments)
        self._credentials = Credentials.from_environment()
        hosts += [arguments.value("from")] if self._is_pull else []
        if len(hosts) > 1:
            raise UsageError(f"{hosts[0]} and --from={hosts[1]}: only one machine can be meant.")
        self._host = self._reached(hosts[0] if hosts else self._remembered())

    def _reached(self, name: str) -> Host:
        return Host(name, self._arguments.value("ssh"), self._arguments.value("remote"))

    def _remembered(self) -> str:
        """Where the home went, or came from, according to the service."""
        if not self._arguments.has("undo"):
            raise UsageError("Expected `homemgr migrate USER HOST`, or --from=HOST.")
        from homemgr.cli.transfer_text import known_host

        host, self._is_pull = known_host(self._service, self._user)
        return host

    def run(self) -> Answer:
        """Try until it is done or fails; a second time only if trust was missing."""
        self._host.require_ssh()
        with_agent(self._service)
        if not self._is_pull:
            self._trust.expect(Home1(self._arguments))
        is_wanted = not self._arguments.has("quiet")
        while True:
            try:
                return self._unlocked(is_wanted=is_wanted)
            except BusError as error:
                if not is_untrusted(error):
                    raise
                ends = (_HERE, self._host.name)
                self._trust.accept(error, *(ends if self._is_pull else reversed(ends)))

    def _unlocked(self, *, is_wanted: bool) -> Answer:
        """Try, and ask for the words that the home, or the one that is made of it, needs."""

        def attempt() -> Answer:
            with ProgressLine(is_wanted=is_wanted) as line:
                return self._pull(line) if self._is_pull else self._push(line)

        try:
            return attempt()
        except BusError as error:
            if not can_be_answered(error):
                raise
        doing = f"Cannot {'fetch' if self._is_pull else 'send'} home {self._user}"
        return unlock(self._user, self._credentials, attempt, doing, may_ask=self._service.may_ask)

    def _push(self, line: ProgressLine) -> Answer:
        words = ["transfer", "receive", self._user, "--outcome", f"--peer={os.uname().nodename}"]
        words += [f"--trust={fingerprint}" for fingerprint in self._trust.accepted]
        words += self._storage_words()
        wanted = {"host": self._host.name, **self._sending, **self._secret()}
        return move.push(self._service, self._host, self._user, wanted, words, line)

    def _pull(self, line: ProgressLine) -> Answer:
        words = ["transfer", "send", self._user, "--outcome", f"--peer={os.uname().nodename}"]
        words += ["--awaits-secret", *options.sending_words(self._arguments)]
        wanted = {
            "host": self._host.name,
            "name": self._user,
            "trust": self._trust.accepted,
            **self._secret(),
        }
        if self._arguments.has("storage"):
            wanted["storage"] = self._arguments.value("storage")
        return move.pull(self._service, self._host, wanted, words, line)

    def _secret(self) -> dict[str, object]:
        """What was asked for so far; our service tells the other one what that needs of it."""
        given = not self._credentials.is_empty
        return {"secret": json.loads(self._credentials.to_json())} if given else {}

    def _storage_words(self) -> list[str]:
        given = self._arguments.has("storage")
        return [f"--storage={self._arguments.value('storage')}"] if given else []

    def tell(self, answer: Answer) -> None:
        """One line that says where the home is, and how much has travelled."""
        user, host = self._user, self._host.name
        receiver = "here" if self._is_pull else f"on {host}"
        sender = f"on {host}" if self._is_pull else "here"
        if self._arguments.has("undo"):
            text = f"{user} is {sender} again"
        elif self._arguments.has("keep"):
            text = f"The copy {receiver} is as the home of {user} was a moment ago"
        else:
            text = f"{user} is {receiver} from here on"
        report_text.say(report_text.sentence(text, answer))
