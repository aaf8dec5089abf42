"""Reading a command line: options before, between and after words, as getopt_long(3) does.

Driven by rows of `Option`; knows nothing of verbs. argparse would cost more time
than `homemgr list` has, so nothing is imported here.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class UsageError(Exception):
    """The command line makes no sense; the message says which part."""


class UnknownOption(UsageError):
    """No such option here; ``option`` is how it was written."""

    def __init__(self, option: str) -> None:
        """Name the culprit."""
        super().__init__(f"Unknown option {option}.")
        self.option = option


class Option:
    """One option: long name, letter, name of its value (empty: takes none), help line.

    A value named like ``[=NAME]`` may be left out; it is given with an equals sign only.
    Of several letters the first is shown; the others are what older versions called it.
    """

    __slots__ = ("help", "name", "short", "value")

    def __init__(self, name: str, short: str = "", value: str = "", text: str = "") -> None:
        """``name`` or ``short`` may be empty, not both."""
        self.name = name
        self.short = short
        self.value = value
        self.help = text

    @property
    def may_lack_value(self) -> bool:
        """Whether the value may be left out; it is empty then."""
        return self.value.startswith("[=")

    @property
    def shown(self) -> str:
        """How messages name it."""
        return f"--{self.name}" if self.name else f"-{self.short}"

    def is_called(self, name: str) -> bool:
        """Whether this is its long name, or one of its letters."""
        return name == self.name or (len(name) == 1 and name in self.short)


class Arguments:
    """What was given: words in order, and options in order with their values."""

    __slots__ = ("given", "words")

    def __init__(self) -> None:
        """Nothing yet."""
        self.words: list[str] = []
        self.given: list[tuple[Option, str]] = []

    def has(self, name: str) -> bool:
        """Whether the option with this long name (or letter) was given."""
        return any(option.is_called(name) for option, _ in self.given)

    def count(self, name: str) -> int:
        """How often it was given."""
        return sum(option.is_called(name) for option, _ in self.given)

    def value(self, name: str, default: str = "") -> str:
        """Its value; the last one wins."""
        for option, value in reversed(self.given):
            if option.is_called(name):
                return value
        return default


def is_utf8(text: str) -> bool:
    """Whether an argument was UTF-8; Python keeps other bytes of it as lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def parse(argv: Sequence[str], options: Iterable[Option], most_words: int = 1 << 20) -> Arguments:
    """Sort ``argv`` into words and options; after ``most_words`` words all the rest are words."""
    rows = list(options)
    found = Arguments()
    rest = list(argv)
    while rest:
        text = rest.pop(0)
        # Beyond the last word of its own, a line belongs to the command that it runs.
        if text == "--" or (len(found.words) >= most_words and not text.startswith("-")):
            found.words += rest if text == "--" else [text, *rest]
            break
        if text.startswith("--"):
            _long(text, rest, rows, found)
        elif text.startswith("-") and text != "-":
            _cluster(text, rest, rows, found)
        else:
            found.words.append(text)
    return found


def _long(text: str, rest: list[str], rows: list[Option], found: Arguments) -> None:
    name, equals, value = text[2:].partition("=")
    option = _match(name, rows)
    if not option.value:
        # Refused, not ignored: `--offline=no` would do the opposite of what it says.
        if equals:
            raise UsageError(f"Option --{option.name} takes no value.")
        found.given.append((option, ""))
        return
    if option.may_lack_value:
        # Left out is one thing; an empty variable behind the equals sign another.
        if equals and not value:
            raise UsageError(f"Option {option.shown}= needs a value, or no equals sign.")
    elif not equals:
        value = _next(option, rest)
    found.given.append((option, value))


def _match(name: str, rows: list[Option]) -> Option:
    near = []
    for option in rows:
        if name and option.name == name:
            return option
        if name and option.name.startswith(name):
            near.append(option)
    # An abbreviation is as good as the name while it is unambiguous.
    if len(near) == 1:
        return near[0]
    if near:
        names = ", ".join(f"--{option.name}" for option in near)
        raise UsageError(f"Option --{name} is ambiguous: {names}.")
    raise UnknownOption(f"--{name}")


def _cluster(text: str, rest: list[str], rows: list[Option], found: Arguments) -> None:
    """Letters behind one dash: each an option, the last one perhaps with its value attached."""
    letters = text[1:]
    while letters:
        letter, letters = letters[0], letters[1:]
        option = next((row for row in rows if letter in row.short), None)
        if option is None:
            raise UnknownOption(f"-{letter}")
        if option.value:
            found.given.append((option, letters or _next(option, rest)))
            return
        found.given.append((option, ""))


def _next(option: Option, rest: list[str]) -> str:
    if not rest:
        raise UsageError(f"Option {option.shown} needs a value ({option.value}).")
    return rest.pop(0)
