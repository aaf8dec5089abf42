"""Values to text: a table on a terminal, tab-separated lines in a pipe, JSON on request.

Knows columns and widths, not what they mean. Colours only on a terminal, and
not if NO_COLOR or SYSTEMD_COLORS=0 says so.
"""

from __future__ import annotations

import os
import sys

from homemgr.cli.arguments import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from homemgr.cli.arguments import Arguments

_GAP = "  "
_ELLIPSIS = "…"
_RESET = "\x1b[0m"


def is_terminal() -> bool:
    """Whether people read standard output."""
    return sys.stdout is not None and sys.stdout.isatty()


def json_format(arguments: Arguments) -> str:
    """``pretty``, ``short``, or empty for no JSON at all; the last option wins."""
    chosen = ""
    for option, value in arguments.given:
        if option.name == "json":
            if value not in ("pretty", "short", "off"):
                raise UsageError(f"--json={value}: expected pretty, short or off.")
            chosen = "" if value == "off" else value
        # -E asks for JSON too, but leaves an explicit format alone, as with homectl.
        elif option.short == "j" or (option.short == "E" and not chosen):
            chosen = "pretty" if is_terminal() else "short"
    return chosen


def size_text(value: int) -> str:
    """Bytes for people, with a unit."""
    size, unit = float(value), "B"
    for larger in "KMGTPE":
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.1f}{unit}" if unit != "B" else f"{value}B"


def print_json(value: object, form: str) -> None:
    """One JSON value; ``form`` as of `json_format`."""
    from json import dumps

    if form == "pretty":
        text = dumps(value, ensure_ascii=False, indent="\t", separators=(",", " : "))
    else:
        text = dumps(value, ensure_ascii=False, separators=(",", ":"))
    print(json_for_reader(text))


def json_for_reader(text: str) -> str:
    """JSON with what could steer a terminal written as \\uXXXX, if it goes to one.

    JSON itself escapes only the oldest of these; programs get every character as it is,
    except for lone surrogates: bytes of a file's name that no encoding can write.
    """
    if text.isascii() and not is_terminal():
        return text
    from json import dumps

    if is_terminal():
        return "".join(c if c.isprintable() or c in "\n\t" else dumps(c)[1:-1] for c in text)
    return "".join(dumps(c)[1:-1] if "\ud800" <= c <= "\udfff" else c for c in text)


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    legend: bool,
    colours: Mapping[str, str] | None = None,
) -> None:
    """Rows under their column names; ``colours`` paints cells that hold one of its keys."""
    clean = [[_printable(cell) for cell in row] for row in rows]
    heading = [list(columns)] if legend else []
    if not is_terminal():
        # Tabs, because cells may hold spaces: each line splits into the same columns.
        print("".join("\t".join(row) + "\n" for row in heading + clean), end="")
        return
    painted = colours if colours and _wants_colour() else {}
    for line in _layout(heading + clean, _terminal_width(), painted):
        print(line)


def _layout(rows: Sequence[Sequence[str]], width: int, colours: Mapping[str, str]) -> list[str]:
    """Lines with aligned columns, the widest shortened until they fit."""
    if not rows:
        return []
    # Characters, not columns of the terminal: wide ones are rare in names and only misalign.
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    while sum(widths) + len(_GAP) * (len(widths) - 1) > width and max(widths) > 8:
        widths[widths.index(max(widths))] -= 1
    lines = []
    for row in rows:
        cells = []
        for cell, size in zip(row, widths, strict=True):
            text = cell if len(cell) <= size else cell[: size - 1] + _ELLIPSIS
            paint = colours.get(cell, "")
            # Padded inside the colour: escape sequences have no width of their own.
            cells.append(f"{paint}{text:{size}}{_RESET}" if paint else f"{text:{size}}")
        lines.append(_GAP.join(cells).rstrip())
    return lines


def _printable(cell: str) -> str:
    # A real name is the user's own text: it must neither steer the terminal nor break lines.
    return cell if cell.isprintable() else "".join(c if c.isprintable() else " " for c in cell)


def _terminal_width() -> int:
    columns = os.environ.get("COLUMNS", "")
    if columns.isdigit() and int(columns):
        return int(columns)
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or 80
    except OSError:
        return 80


def _wants_colour() -> bool:
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return os.environ.get("SYSTEMD_COLORS", "1") not in ("0", "no", "false", "off")
