"""`homemgr convert [USER]`: give a home another storage or place, confirm that, or undo it.

The service makes the new home beside the old one, compares both and has them change places;
the old one is kept until it is confirmed. Without USER: what is kept of whom. With --classic
USER is an account of /etc/passwd that becomes a home area: see `homemgr.cli.classic`.
"""

from __future__ import annotations

import json

from homemgr.cli import convert, options, report_text, transfer_text
from homemgr.cli.arguments import Option, UsageError
from homemgr.cli.complain import Reported, complain
from homemgr.cli.credentials import Credentials, unlock
from homemgr.cli.home1 import Homemgr1, with_agent
from homemgr.cli.jobs import Job
from homemgr.cli.output import json_format, print_json
from homemgr.cli.progress import ProgressLine
from homemgr.errors import TransferInterrupted
from homemgr.record.storages import ABILITIES, abilities_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from homemgr.cli.arguments import Arguments
    from homemgr.cli.jobs import Answer

OPTIONS = (
    Option("storage", "", "STORAGE", f"What it is to be: {', '.join(ABILITIES)}"),
    Option("to", "", "PATH", "Where it is to lie"),
    Option("disk-size", "", "BYTES", "How large a new image file is, or the home may become"),
    Option("confirm", "", "", "Delete the home as it was before, which was kept"),
    Option("undo", "", "", "Have the home as it was before"),
    Option("force", "", "", "undo: also if what was changed since then is lost"),
    Option("classic", "", "", "USER is an account of /etc/passwd: make it a home area in place"),
    Option("dry-run", "", "", "classic: only show what would become of the account"),
    options.QUIET,
)

_MAKING = ("storage", "to", "disk-size")
_KEPT = "kept"


def run(arguments: Arguments) -> int:
    """Do what the options say."""
    if arguments.has("classic"):
        from homemgr.cli import classic

        return classic.run(arguments)
    if arguments.has("dry-run"):
        raise UsageError("--dry-run means something with --classic only.")
    if not arguments.words:
        return transfer_text.listed(
            Homemgr1(arguments), arguments, "ListConversions", transfer_text.conversions
        )
    wanted = [name for name in (*_MAKING, "confirm", "undo") if arguments.has(name)]
    if "confirm" in wanted or "undo" in wanted:
        if len(wanted) > 1:
            raise UsageError(f"--{wanted[0]} and --{wanted[-1]} exclude each other.")
    elif not wanted or wanted == ["disk-size"]:
        raise UsageError("Expected --storage=STORAGE, --to=PATH, --confirm or --undo.")
    if arguments.has("force") and not arguments.has("undo"):
        raise UsageError("--force means something with --undo only.")
    service = Homemgr1(arguments)
    with_agent(service)
    (user,) = arguments.words
    if arguments.has("confirm"):
        service.call("ConfirmConversion", "s", user)
    elif arguments.has("undo"):
        service.call("UndoConversion", "ss", user, json.dumps({"force": arguments.has("force")}))
    else:
        _convert(service, user, arguments)
    return 0


def _convert(service: Homemgr1, user: str, arguments: Arguments) -> None:
    wanted = json.dumps(_options(arguments), ensure_ascii=False)
    credentials = Credentials.from_environment()
    doing = f"Cannot convert home {user}"

    def call() -> Answer:
        path = service.call("ConvertHome", "sss", user, wanted, credentials.to_json()).body[0]
        with ProgressLine(is_wanted=not arguments.has("quiet")) as line:
            return Job(service, str(path), line).wait()

    try:
        answer = unlock(user, credentials, call, doing, may_ask=service.may_ask)
    except TransferInterrupted as error:
        complain(f"{user} was not converted: {error.message}", "Run the same command again.")
        raise Reported from error
    form = json_format(arguments)
    if form:
        print_json(answer, form)
    elif not arguments.has("quiet"):
        _tell(user, answer, legend=not arguments.has("no-legend"))


def _options(arguments: Arguments) -> dict[str, object]:
    found: dict[str, object] = {
        name: arguments.value(name) for name in ("storage", "to") if arguments.has(name)
    }
    if arguments.has("disk-size"):
        text = arguments.value("disk-size")
        try:
            found["disk_size"] = convert.size(text)
        except ValueError as error:
            raise UsageError(f"--disk-size={text}: expected {error}.") from error
    return found


def _tell(user: str, answer: Answer, *, legend: bool) -> None:
    storage = str(answer.get("storage", ""))
    if not storage:
        report_text.say(f"What was left to do of the conversion of {user} is done.")
        return
    text = f"{user} has storage {storage} now, in {answer.get('image_path')}"
    report_text.say(report_text.sentence(text, answer))
    report_text.notes(answer, legend=legend)
    if answer.get("phase") == _KEPT:
        if not abilities_of(storage).has_key:
            report_text.say("It is not encrypted.")
        confirmed = f"`homemgr convert --confirm {user}`"
        if stays_at := answer.get("stays_at"):
            report_text.say(
                f"The home as it was before stays on {stays_at}, also after {confirmed}; until"
                " then `--undo` brings it back."
            )
            return
        report_text.say(
            f"The home as it was before is kept, in full, until you say {confirmed}; `--undo`"
            " brings it back."
        )
