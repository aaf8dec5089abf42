"""Verb classic-account: take a classic account out of the account files, or put it back.

Both may be done again: what is as it should be is left alone. The line in passwd is the first
to go and the last to come back: while it is there, nothing is missing.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, cast

from homemgr import errors
from homemgr.record import account_lines, classic
from homemgr.record.account_lines import Excerpt
from homemgr.work import account_files

if TYPE_CHECKING:
    from homemgr.record.account_lines import Texts
    from homemgr.work.task import Task


def take_out(task: Task) -> dict[str, object]:
    """The user ``user`` out of the files, if they still say what was surveyed.

    Gives a ``refusal`` if they do not, or are in use: nothing was written then. After whatever
    is raised something may be, but only if the daemon was asked ``begin`` before: it then has on
    disk that it is us who take the account away, and no ``userdel``.
    """
    expected = Excerpt.from_json(dict(task.object("excerpt")))
    own_group = task.argument("own_group")
    own_group = own_group if isinstance(own_group, str) else None
    directory = task.text("account_directory")
    with ExitStack() as held:
        try:
            held.enter_context(account_files.locked(directory, task.channel.require_wanted))
        except errors.HomeBusy as error:
            return {"refusal": str(error)}
        texts = account_files.read(directory)
        if account_lines.excerpt(texts, expected.user, own_group) != expected:
            what = "has just been changed by somebody else; try again."
            return {"refusal": f"The account of {expected.user} {what}"}
        new = account_lines.take_out(texts, expected.user, own_group)
        task.channel.ask("begin", {})
        account_files.write(directory, texts, new)
    return {}


def put_back(task: Task) -> dict[str, object]:
    """The user into the files again; as the home area had him last, if there was one.

    With ``only_if_gone`` nothing is written if he is there.
    """
    out = Excerpt.from_json(dict(task.object("excerpt")))
    if task.argument("record") is not None:
        groups = cast("list[str]", task.argument("groups"))
        out = _with_password(out, task).in_groups(groups)
    directory = task.text("account_directory")
    with account_files.locked(directory, task.channel.require_wanted):
        texts = account_files.read(directory)
        if task.argument("only_if_gone") and account_lines.has_account(texts, out.user):
            return {"lost_groups": []}
        _require_free(texts, out)
        new = account_lines.put_back(texts, out)
        account_files.write(directory, texts, dict(reversed(new.items())))
    return {"lost_groups": account_lines.lost_groups(texts, out)}


def _require_free(texts: Texts, out: Excerpt) -> None:
    """Raise UIDInUse if another account has got the uid meanwhile."""
    uid = out.fields("passwd")[2]
    for line in texts["passwd"].split("\n"):
        fields = line.split(":")
        if len(fields) > 2 and fields[2] == uid and fields[0] != out.user:
            raise errors.UIDInUse(
                f"Account {fields[0]} has the uid {uid} of {out.user} by now; remove it first."
            )


def _with_password(out: Excerpt, task: Task) -> Excerpt:
    """The password, and whether the account is locked, as of the record of now."""
    file = "shadow" if out.fields("passwd")[1] == "x" else "passwd"
    is_locked = task.argument("locked") is True
    line = classic.with_password(out.fields(file), file, task.record, is_locked=is_locked)
    return out.with_line(file, line)
