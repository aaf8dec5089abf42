"""Progress of a job to one line of text: a bar, and as many figures as there is room for.

Progress is what org.homemgr1.Job tells: phase, files, total_files, bytes, total_bytes,
rate (bytes per second) and left_s (seconds), each of which may be missing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_GAP = "  "
#: The bar in characters; with less room than the first number figures are left out.
_SHORTEST, _LONGEST = 10, 30
_UNITS = "KMGTPE"
_STEP = 1024
#: More of anything is no figure but a mistake.
_MOST = 1 << 63


def line(progress: Mapping[str, object], room: int) -> str:
    """The line, at most ``room`` characters long; of the figures the last ones go first."""
    phase = str(progress.get("phase") or "")
    figures = [text for text in _figures(progress) if text]
    share = _share(progress)
    if share is None:
        return _fitted([phase, *figures], room)
    percent = f"{int(share * 100):3}%"
    while figures:
        needed = len(_GAP.join([phase, percent, *figures])) + len(_GAP) + _SHORTEST + 2
        if needed <= room:
            break
        figures.pop()
    left = room - len(_GAP.join([phase, percent, *figures])) - len(_GAP) - 2
    if left < _SHORTEST:
        return _fitted([phase, percent], room)
    bar = _bar(share, min(left, _LONGEST))
    return _GAP.join(part for part in (phase, bar, percent, *figures) if part)


def size(number: int) -> str:
    """A number of bytes as people read it."""
    value, unit = float(number), ""
    for larger in _UNITS:
        if value < _STEP:
            break
        value, unit = value / _STEP, larger
    return f"{value:.1f} {unit}iB" if unit else f"{number} B"


def _figures(progress: Mapping[str, object]) -> list[str]:
    """In order of how much people want to know them."""
    left, rate = _number(progress, "left_s"), _number(progress, "rate")
    return [
        f"{_span(left)} left" if left is not None else "",
        _of(progress, "bytes", size),
        f"{size(rate)}/s" if rate else "",
        _of(progress, "files", lambda number: f"{number:,}", " files"),
    ]


def _of(
    progress: Mapping[str, object], name: str, shown: Callable[[int], str], what: str = ""
) -> str:
    done, total = _number(progress, name), _number(progress, f"total_{name}")
    if done is None:
        return ""
    return f"{shown(done)} of {shown(total)}{what}" if total else f"{shown(done)}{what}"


def _share(progress: Mapping[str, object]) -> float | None:
    """How much is done, from 0 to 1: of the bytes, or of the files if all are empty."""
    for name in ("bytes", "files"):
        done, total = _number(progress, name), _number(progress, f"total_{name}")
        if done is not None and total:
            return min(1.0, done / total)
    return None


def _number(progress: Mapping[str, object], name: str) -> int | None:
    value = progress.get(name)
    return int(value) if isinstance(value, int | float) and 0 <= value < _MOST else None


def _span(seconds: int) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _bar(share: float, length: int) -> str:
    done = int(share * length)
    head = ">" if done < length else ""
    return f"[{'=' * done}{head}{' ' * (length - done - len(head))}]"


def _fitted(parts: list[str], room: int) -> str:
    while len(parts) > 1 and len(_GAP.join(parts)) > room:
        parts = parts[:-1]
    return _GAP.join(part for part in parts if part)[:room]
