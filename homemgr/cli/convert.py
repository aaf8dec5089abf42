"""Texts of the command line to values of user records: sizes, times, modes, lists.

Pure functions, spelled as systemd spells them (systemd.time(7), systemd.syntax(7)).
A text that is none raises ValueError whose message completes "expected ...".
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from homemgr.record.jsontext import Json

#: "No limit" for times and counters: what systemd calls infinity.
INFINITY: Final = (1 << 64) - 1
#: Shares of free space are stored as fractions of this.
FULL_SCALE: Final = 0xFFFFFFFF

_SIZE = re.compile(r"([0-9]+)(?:\.([0-9]+))?\s*([BKMGTPE]?)(?:i?B)?\Z", re.IGNORECASE)
_SIZE_UNITS = "BKMGTPE"
_PERCENT = re.compile(r"([0-9]+)(?:\.([0-9]{1,2}))?\s*%\Z")

_USEC_PER_S: Final = 1_000_000
_UNITS: Final = {
    "us": 1, "usec": 1, "µs": 1, "ms": 1000, "msec": 1000,
    "": _USEC_PER_S, "s": _USEC_PER_S, "sec": _USEC_PER_S,
    "second": _USEC_PER_S, "seconds": _USEC_PER_S,
    "m": 60 * _USEC_PER_S, "min": 60 * _USEC_PER_S,
    "minute": 60 * _USEC_PER_S, "minutes": 60 * _USEC_PER_S,
    "h": 3600 * _USEC_PER_S, "hr": 3600 * _USEC_PER_S,
    "hour": 3600 * _USEC_PER_S, "hours": 3600 * _USEC_PER_S,
    "d": 86400 * _USEC_PER_S, "day": 86400 * _USEC_PER_S, "days": 86400 * _USEC_PER_S,
    "w": 604800 * _USEC_PER_S, "week": 604800 * _USEC_PER_S, "weeks": 604800 * _USEC_PER_S,
    "M": 2629800 * _USEC_PER_S, "month": 2629800 * _USEC_PER_S, "months": 2629800 * _USEC_PER_S,
    "y": 31557600 * _USEC_PER_S, "year": 31557600 * _USEC_PER_S, "years": 31557600 * _USEC_PER_S,
}  # fmt: skip
_SPAN = re.compile(r"\s*([0-9]+)(?:\.([0-9]+))?\s*([A-Za-zµ]*)")
_DATE_FORMATS = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d")

_TRUE = frozenset({"1", "yes", "y", "true", "t", "on"})
_FALSE = frozenset({"0", "no", "n", "false", "f", "off"})
_CAPABILITY = re.compile(r"cap_[a-z_]+\Z", re.IGNORECASE)


def text(value: str) -> Json:
    """The text itself."""
    return value


def boolean(value: str) -> Json:
    """yes or no in any of the usual spellings."""
    word = value.lower()
    if word not in _TRUE | _FALSE:
        raise ValueError("yes or no")
    return word in _TRUE


def number(value: str) -> Json:
    """A decimal integer that may be negative."""
    try:
        return int(value)
    except ValueError as error:
        raise ValueError("a number") from error


def unlimited_number(value: str) -> Json:
    """A count, or ``infinity``."""
    return INFINITY if value == "infinity" else number(value)


def mode(value: str) -> Json:
    """A file mode in octal digits."""
    try:
        return int(value, 8)
    except ValueError as error:
        raise ValueError("a mode in octal digits") from error


def size(value: str) -> int:
    """Bytes, with the suffixes K M G T P E to the base of 1024."""
    found = _SIZE.match(value.strip())
    if not found:
        raise ValueError("a size such as 500M or 20G")
    whole, fraction, unit = found.groups()
    factor: int = 1 << (10 * _SIZE_UNITS.index(unit.upper() or "B"))
    # Integers only: a float would round what somebody typed.
    part = int(fraction or 0) * factor // int("1" + "0" * len(fraction or ""))
    return int(whole) * factor + part


def unlimited_size(value: str) -> Json:
    """A size, or ``infinity``."""
    return INFINITY if value == "infinity" else size(value)


def is_share(value: str) -> bool:
    """Whether the text is a percentage."""
    return value.strip().endswith("%")


def share(value: str) -> int:
    """A percentage of 0 to 100 as fraction of `FULL_SCALE`, rounded as systemd rounds."""
    found = _PERCENT.match(value.strip())
    # In hundredths of a percent, as systemd counts.
    permyriad = int(found[1]) * 100 + int((found[2] or "").ljust(2, "0")) if found else -1
    if not 0 <= permyriad <= 10_000:
        raise ValueError("a percentage of 0% to 100%")
    return (permyriad * FULL_SCALE + 5_000) // 10_000


def span(value: str) -> Json:
    """A time span in microseconds: ``90``, ``1min 30s``, ``2weeks``, ``infinity``."""
    rest = value.strip()
    if rest == "infinity":
        return INFINITY
    total = 0
    while rest:
        found = _SPAN.match(rest)
        unit = _UNITS.get(found[3]) if found else None
        if found is None or unit is None:
            break
        fraction = found[2] or ""
        total += int(found[1]) * unit + int(fraction or 0) * unit // int("1" + "0" * len(fraction))
        rest = rest[found.end() :]
    if rest or not value.strip():
        raise ValueError("a time span such as 30s, 10min or 2weeks")
    return total


def moment(value: str) -> Json:
    """A point in time in microseconds: a date, ``@SECONDS``, ``now``, ``today``, ``+SPAN``."""
    value = value.strip()
    if value.startswith("@"):
        seconds = span(value[1:])
        assert isinstance(seconds, int)
        return seconds
    now = datetime.now(tz=UTC).astimezone()
    if value.startswith("+"):
        ahead = span(value[1:])
        assert isinstance(ahead, int)
        return _usec(now) + ahead
    days = {"now": None, "today": 0, "yesterday": -1, "tomorrow": 1}
    if value in days:
        shift = days[value]
        if shift is None:
            return _usec(now)
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        return _usec(midnight + timedelta(days=shift))
    utc = value.endswith(" UTC")
    for form in _DATE_FORMATS:
        try:
            # Without a zone it is the local time of whoever types it, as in systemd.
            found = datetime.strptime(value.removesuffix(" UTC"), form)  # noqa: DTZ007
        except ValueError:
            continue
        return _usec(found.replace(tzinfo=UTC) if utc else found.astimezone())
    raise ValueError("a date such as 2027-12-31, 2027-12-31 18:00, @SECONDS, today or +2weeks")


def _usec(when: datetime) -> int:
    return int(when.timestamp()) * _USEC_PER_S + when.microsecond


def words(value: str) -> list[str]:
    """A list with commas."""
    return [word for word in re.split(r"[,\s]+", value) if word]


def capabilities(value: str) -> Json:
    """Capability names, as systemd writes them."""
    found = words(value)
    if not all(_CAPABILITY.match(word) for word in found):
        raise ValueError("a list of capabilities such as CAP_NET_RAW,CAP_KILL")
    return [*sorted({word.lower() for word in found})]


def weight(value: str) -> Json:
    """A share of a common pool, or ``off``."""
    return 0 if value == "off" else number(value)


def limit(value: str) -> tuple[str, Json]:
    """``NAME=SOFT[:HARD]`` as the name and the object of the field resourceLimits."""
    name, equals, rest = value.partition("=")
    name = name.upper()
    # Both spellings, as in homectl's examples and in setrlimit(2).
    name = name if name.startswith("RLIMIT_") else f"RLIMIT_{name}"
    soft, colon, hard = rest.partition(":")
    if not equals or not name[7:].isalnum():
        raise ValueError("LIMIT=VALUE[:VALUE], such as NOFILE=1024:4096")
    current = _limit_value(soft)
    return name, {"cur": current, "max": _limit_value(hard) if colon else current}


def _limit_value(value: str) -> Json:
    if value == "infinity":
        return None
    try:
        return size(value)
    except ValueError as error:
        raise ValueError("LIMIT=VALUE[:VALUE], such as NOFILE=1024:4096") from error
