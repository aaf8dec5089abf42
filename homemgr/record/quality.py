"""The floor under new passwords: what is refused on every machine.

Pure and built in: the same on every machine, also where nobody installed pwquality or
passwdqc. systemd-homed asks those, and without them takes anything. They are not asked
here: a site that wants more has their PAM modules in its stack for that, and a parser
written in C would read what anybody types with the rights of the service. Not a measure
of strength. A refusal says what to do better and never repeats the password.
"""

from __future__ import annotations

import itertools
import string
from typing import TYPE_CHECKING, Final

from homemgr.errors import LowPasswordQuality

if TYPE_CHECKING:
    from collections.abc import Iterable

    from homemgr.record.effective import EffectiveRecord

MIN_LENGTH: Final = 8
MIN_DIFFERENT: Final = 4
#: Fewer edits than these from an old password are a guess for who knows that one.
MIN_EDITS: Final = 3
#: What has to remain when the user name, or a common word, is taken out.
MIN_REMAINDER: Final = 6
# What differs only after this many characters is not compared.
_LONGEST_COMPARED: Final = 128

# Stems of the passwords that lead every published list of stolen ones.
_COMMON: Final = frozenset(
    """
    password passwort passw0rd letmein welcome monkey dragon master sunshine princess football
    baseball superman batman trustno iloveyou starwars whatever computer internet changeme
    qwerty qwertz qwertyuiop asdfgh asdfghjkl zxcvbn zxcvbnm qazwsx abcdef abcdefgh admin
    administrator root login guest secret shadow michael jordan access hello freedom charlie
    test default system linux debian ubuntu homectl
    """.split()  # noqa: SIM905 (a hundred quotes and commas would hide the words)
)
_ROWS: Final = ("qwertyuiop", "asdfghjkl", "zxcvbnm", "qwertzuiop", "yxcvbnm", "1234567890")
# What people put around a word to please a rule.
_DECORATION: Final = string.digits + " .,;:!?*#+-_$%&/()="
_LEET: Final = str.maketrans("013457@$!", "oieastasi")


def check_quality(password: str, old_passwords: Iterable[str], about: EffectiveRecord) -> None:
    """Return if a new password is acceptable; else raise LowPasswordQuality with the reason.

    ``about`` is the user's record: who knows him guesses his names and his hint first.
    """
    problem = (
        _too_simple(password)
        or _too_well_known(password)
        or _too_personal(password, about)
        or _too_similar(password, tuple(old_passwords))
    )
    if problem:
        raise LowPasswordQuality(f"The password is too weak: {problem}.")


def _too_simple(password: str) -> str:
    if len(password) < MIN_LENGTH:
        return f"it has {len(password)} characters, at least {MIN_LENGTH} are needed"
    if len(set(password.lower())) < MIN_DIFFERENT:
        return f"it repeats itself, at least {MIN_DIFFERENT} different characters are needed"
    steps = {ord(b) - ord(a) for a, b in itertools.pairwise(password)}
    if steps <= {1} or steps <= {-1} or _is_along_a_row(password.lower()):
        return "it is a run of neighbouring characters"
    return ""


def _is_along_a_row(password: str) -> bool:
    return any(password in row or password in row[::-1] for row in _ROWS)


def _too_well_known(password: str) -> str:
    lowered = password.lower()
    # The word inside the digits and signs that people put around it.
    stem = lowered.strip(_DECORATION)
    if not stem and len(lowered) < 2 * MIN_LENGTH:
        return "it consists of digits and punctuation only, add letters or make it longer"
    is_common = stem in _COMMON or stem.translate(_LEET) in _COMMON
    if is_common and len(lowered) - len(stem) < MIN_REMAINDER:
        return "it is one of the most common passwords with little added"
    return ""


def _too_personal(password: str, about: EffectiveRecord) -> str:
    lowered = password.lower()
    real_name = about.real_name.lower()
    names = {"user name": [about.name.lower()], "real name": [real_name, *real_name.split()]}
    for what, words in names.items():
        for word in words:
            # A name of one letter is in too many good passwords.
            if len(word) > 1 and _is_little_more_than(lowered, (word, word[::-1])):
                return f"it is little more than the {what}"
    # Whole, not word by word: hints speak of what is in the password.
    if lowered in (about.password_hint or "").lower():
        return "it stands in the password hint"
    return ""


def _is_little_more_than(lowered: str, words: Iterable[str]) -> bool:
    return any(word in lowered and len(lowered) - len(word) < MIN_REMAINDER for word in words)


def _too_similar(password: str, old_passwords: tuple[str, ...]) -> str:
    new = password.lower()[:_LONGEST_COMPARED]
    for old_password in old_passwords:
        old = old_password.lower()[:_LONGEST_COMPARED]
        if new in (old, old[::-1]) or _edits(old, new) < MIN_EDITS:
            return "it is too similar to the old one"
    return ""


def _edits(a: str, b: str) -> int:
    """Insertions, deletions and replacements between two texts (Levenshtein), at most MIN_EDITS."""
    if abs(len(a) - len(b)) >= MIN_EDITS:
        return MIN_EDITS  # far enough, whatever is in between
    # Only the band around the diagonal can stay below the limit: callers choose the texts,
    # and the square of their lengths would hold up the service.
    row = {j: j for j in range(MIN_EDITS)}
    for i, letter in enumerate(a, 1):
        above, row = row, {}
        for j in range(max(0, i - MIN_EDITS), min(len(b), i + MIN_EDITS) + 1):
            if j == 0:
                row[0] = i
                continue
            replaced = above.get(j - 1, MIN_EDITS) + (letter != b[j - 1])
            row[j] = min(replaced, above.get(j, MIN_EDITS) + 1, row.get(j - 1, MIN_EDITS) + 1)
    return min(row[len(b)], MIN_EDITS)
