"""`homemgr convert --classic`: have it done, undone or confirmed, and tell what became of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homemgr.cli import report_text, transfer_text
from homemgr.cli.arguments import UsageError
from homemgr.cli.complain import Reported, complain
from homemgr.cli.home1 import Homemgr1, with_agent
from homemgr.cli.jobs import Job
from homemgr.cli.output import json_format, print_json
from homemgr.cli.progress import ProgressLine
from homemgr.errors import TransferInterrupted

if TYPE_CHECKING:
    from homemgr.cli.arguments import Arguments
    from homemgr.cli.jobs import Answer

_DRY_RUN = 1


def run(arguments: Arguments) -> int:
    """One of the three; without a USER, what can be undone."""
    for name in ("storage", "to", "disk-size", "force"):
        if arguments.has(name):
            raise UsageError(f"--{name}: the account becomes a directory, where it lies.")
    asked = [name for name in ("undo", "confirm", "dry-run") if arguments.has(name)]
    if len(asked) > 1:
        raise UsageError(f"--{asked[0]} and --{asked[1]}: only one of them can be meant.")
    service = Homemgr1(arguments)
    if not arguments.words:
        if asked:
            raise UsageError(f"--{asked[0]}: expected a USER as well.")
        return transfer_text.listed(
            service, arguments, "ListAccountConversions", transfer_text.accounts
        )
    (user,) = arguments.words
    with_agent(service)
    if arguments.has("confirm"):
        service.call("ConfirmAccountConversion", "s", user)
        answer: Answer = {"user": user}
    elif arguments.has("undo"):
        answer = _wait(service, arguments, user, "UndoAccountConversion", "s", user)
    else:
        flags = _DRY_RUN if arguments.has("dry-run") else 0
        answer = _wait(service, arguments, user, "ConvertAccount", "st", user, flags)
    form = json_format(arguments)
    if form:
        print_json(answer, form)
    elif not arguments.has("quiet"):
        _tell(answer, arguments)
    return 0


def _wait(
    service: Homemgr1, arguments: Arguments, user: str, member: str, kinds: str, *body: object
) -> Answer:
    path = str(service.call(member, kinds, *body).body[0])
    with ProgressLine(is_wanted=not arguments.has("quiet")) as line:
        try:
            return Job(service, path, line).wait()
        except TransferInterrupted as error:
            complain(
                f"{error.message} What it had begun with {user} is finished, or taken back, when"
                " it starts again.",
                "Run the same command again to see which.",
            )
            raise Reported from error


def _tell(answer: Answer, arguments: Arguments) -> None:
    user, legend = str(answer["user"]), not arguments.has("no-legend")
    if arguments.has("confirm"):
        report_text.say(f"{user} stays a home area: its conversion can no longer be undone.")
        return
    if arguments.has("undo"):
        report_text.say(f"{user} is a classic account again, with the files in {answer['home']}.")
        for group in _texts(answer, "lost_groups"):
            report_text.say(f"Group {group} is gone, so {user} is not in it again.")
    elif arguments.has("dry-run"):
        report_text.say(report_text.sentence(f"{user} can become a home area", answer))
        _plan(answer)
    else:
        report_text.say(report_text.sentence(f"{user} is a home area from here on", answer))
        _plan(answer)
    report_text.notes(answer, legend=legend)
    if not (arguments.has("undo") or arguments.has("dry-run")):
        report_text.say(f"For 30 days, `homemgr convert --classic --undo {user}` takes it back.")


def _plan(answer: Answer) -> None:
    report_text.say(
        f"Uid {answer['uid']} and the password stay; the files lie at {answer['imagePath']}."
    )
    groups = _texts(answer, "memberOf")
    if groups:
        report_text.say(f"Groups from the record: {', '.join(groups)}.")


def _texts(answer: Answer, name: str) -> list[str]:
    found = answer.get(name)
    return [str(item) for item in found] if isinstance(found, list) else []
