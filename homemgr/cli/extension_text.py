"""Answers about extensions as tables; the members are those of org.homemgr1.Manager.

On a terminal reasons stand below the table, where there is room for sentences; in a
pipe they are a column.
"""

from __future__ import annotations

from homemgr.cli.output import is_terminal, print_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    #: A JSON object of an answer, or a whole answer.
    Answer = Mapping[str, object]

_GREEN, _YELLOW, _RED = "\x1b[32m", "\x1b[33m", "\x1b[31m"
_COLOURS = {
    "merged": _GREEN,
    "applied": _GREEN,
    "deferred": _YELLOW,
    "skipped": _RED,
    "failed": _RED,
    "unusable": _RED,
}


def inventory(answer: Answer, *, legend: bool) -> None:
    """The extensions of this machine."""
    found = entries(answer, "extensions")
    rows = [
        (e["name"], e["version"], e["form"], "usable" if e["usable"] else "unusable", e["path"])
        for e in found
    ]
    columns = ("NAME", "VERSION", "FORM", "STATE", "PATH")
    _table(columns, rows, [texts(e, "reason") for e in found], legend=legend)
    _close(rows, "extensions listed", "No extensions on this machine.", legend=legend)


def status(answer: Answer, *, legend: bool) -> None:
    """The extensions of one user: what is merged, what is wanted, what he may choose."""
    found: dict[str, Answer] = {n: {"state": "offered"} for n in texts(answer, "offered")}
    found.update({name: {"state": "wanted"} for name in texts(answer, "wanted")})
    found.update({str(entry["name"]): entry for entry in entries(answer, "extensions")})
    rows = [
        (name, e.get("version", ""), e["state"], " ".join(texts(e, "hierarchies")))
        for name, e in found.items()
    ]
    reasons = [texts(e, "reasons") for e in found.values()]
    _table(("NAME", "VERSION", "STATE", "DIRECTORIES"), rows, reasons, legend=legend)
    if is_terminal():
        for problem in texts(answer, "problems"):
            print(_clean(problem))
        if (mode := str(answer.get("home_mode", "normal"))) != "normal":
            print(f"The home is {_clean(mode)} as a whole.")
    what = f"extensions of {answer['user']}"
    _close(rows, what, "No extensions, and none to choose.", legend=legend)


def changes(answer: Answer, *, legend: bool) -> None:
    """What became of a refresh, directory by directory."""
    found = entries(answer, "changes")
    rows = [(f"~/{e['hierarchy']}", e["state"], " ".join(texts(e, "holders"))) for e in found]
    reasons = [texts(e, "reason") for e in found]
    _table(("DIRECTORY", "STATE", "USED BY"), rows, reasons, legend=legend)
    _close(rows, "directories changed or waiting", "Nothing has changed.", legend=legend)


def step(name: object, subject: object, done: object, total: object) -> str:
    """One step of a refresh that begins."""
    words = {"open": "Opening {}", "merge": "Merging ~/{}"}.get(str(name), "{}")
    return f"{words.format(subject)} ({done} of {total} done)"


def has_failed(answer: Answer) -> bool:
    """Whether a refresh could not do what it should."""
    return any(entry.get("state") == "failed" for entry in entries(answer, "changes"))


def skipped(answer: Answer) -> list[str]:
    """Why extensions are not merged after a refresh."""
    report = answer.get("extensions")
    found = entries(report, "extensions") if isinstance(report, dict) else []
    return [reason for entry in found for reason in texts(entry, "reasons")]


def differences(answer: Answer, *, legend: bool) -> None:
    """How a home differs from what its extensions bring."""
    found = entries(answer, "differences")
    rows = [(e["kind"], f"{e['hierarchy']}/{e['path']}", e["extension"]) for e in found]
    _table(("KIND", "PATH", "EXTENSION"), rows, None, legend=legend)
    _close(rows, "differences", "No differences.", legend=legend)


def discarded(answer: Answer, *, legend: bool) -> None:
    """The paths that are the extension's again."""
    paths = texts(answer, "discarded")
    for path in paths:
        print(_clean(path))
    if legend and is_terminal() and not paths:
        print("Nothing to discard.")


def trusted(answer: Answer, *, legend: bool) -> None:
    """The images whose digests are stored now, as sha256sum(1) prints them; never a legend."""
    for entry in entries(answer, "trusted"):
        print(f"{entry['sha256']}  {_clean(str(entry['path']))}")


def distrusted(answer: Answer, *, legend: bool) -> None:
    """The images whose digests are forgotten; never a legend."""
    for path in texts(answer, "distrusted"):
        print(_clean(path))


def entries(answer: Answer, member: str) -> list[Answer]:
    """The objects in one member of an answer."""
    value = answer.get(member)
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def texts(answer: Answer, member: str) -> list[str]:
    """The texts in one member of an answer, also a single one; empty ones left out."""
    value = answer.get(member)
    found = value if isinstance(value, list) else [value]
    return [str(one) for one in found if one]


def _table(
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    reasons: Sequence[Sequence[str]] | None,
    *,
    legend: bool,
) -> None:
    """Rows with the reasons for each; None if there never are any."""
    cells = [[str(cell) or "-" for cell in row] for row in rows]
    if not is_terminal():
        if reasons is not None:
            columns = (*columns, "REASON")
            cells = [[*c, " ".join(r) or "-"] for c, r in zip(cells, reasons, strict=True)]
        print_table(columns, cells, legend=legend)
        return
    if rows:
        print_table(columns, cells, legend=legend, colours=_COLOURS)
    for line, told in zip(cells, reasons or [], strict=False):
        for reason in told:
            print(f"{_clean(line[0])}: {_clean(reason)}")


def _close(rows: Sequence[object], what: str, nothing: str, *, legend: bool) -> None:
    # The closing line is for readers; a program counts lines itself.
    if legend and is_terminal():
        print(f"\n{len(rows)} {what}." if rows else nothing)


def _clean(text: str) -> str:
    # Names come from users' homes: they must not steer the terminal.
    return "".join(c if c.isprintable() else " " for c in text)
