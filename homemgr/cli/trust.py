"""Whether a machine that a home comes from is trusted: --trust, or a question on the terminal.

The service says which fingerprints it does not know yet: the SHA-256 of a public key in DER
form, 64 hexadecimal digits, first that of the machine, then that of the record's signer
if it is another one.
"""

from __future__ import annotations

import re

from homemgr.cli.arguments import Option, UsageError
from homemgr.cli.complain import Reported, complain
from homemgr.cli.home1 import BusError
from homemgr.errors import UntrustedOrigin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from homemgr.cli.arguments import Arguments
    from homemgr.cli.home1 import Home1

OPTION = Option(
    "trust", "", "[=FINGERPRINT]", "Trust the machine that sends, or only if its key is this one"
)

_FINGERPRINT = re.compile(r"\b[0-9a-f]{64}\b")
#: What two fingerprints are; one may be either.
_WHOSE = ("its key", "the key that signed the record")
_EITHER = ("its key, or that of who signed the record",)
_LIST = "homemgr list-signing-keys"
#: The name of the key that a machine signs with.
OWN_KEY = "local.public"


class Trust:
    """What was accepted for one command: by option before it, or by an answer during it."""

    def __init__(self, arguments: Arguments) -> None:
        """As the options say; UsageError if a fingerprint is none."""
        given = [value for option, value in arguments.given if option is OPTION]
        self._accepts_any = "" in given
        self.accepted = [normal(value) for value in given if value]
        self._is_strict = bool(self.accepted) and not self._accepts_any
        self._may_ask = not arguments.has("no-ask-password")
        self._was_asked = False

    def expect(self, home1: Home1) -> None:
        """Accept this machine's own key beforehand, if it sends and any would be accepted.

        Else the receiver has to refuse it once to say what it is called, which takes a
        connection and a look at the home more. Another signer of the record is still asked about.
        """
        if not self._accepts_any or self.accepted:
            return
        try:
            key = str(home1.call("GetSigningKey", "s", OWN_KEY).body[0])
        except BusError:
            return
        from homemgr.cli.pem import fingerprint

        own = fingerprint(key)
        self.accepted += [own] if own else []

    def accept(self, error: BusError, receiver: str, sender: str) -> None:
        """Accept what ``error`` names, so that it is worth trying again; raises Reported if not.

        ``receiver`` and ``sender`` are how people call the machines; ``receiver`` is to trust.
        """
        found = fingerprints(error.message)
        unknown = [one for one in found if one not in self.accepted]
        if not unknown or self._was_asked:
            raise error
        self._was_asked = True
        if self._accepts_any:
            self.accepted += unknown
            return
        whose = _WHOSE if len(found) > 1 else _EITHER
        shown = list(zip(found, whose, strict=False))
        if self._is_strict or not self._may_ask:
            is_accepted = None
        else:
            is_accepted = self._ask(shown, receiver, sender)
        if is_accepted is None:
            told = "; ".join(f"{what}: {fingerprint}" for fingerprint, what in shown)
            complain(f"{receiver} does not trust {sender} yet; {told}.", _advice(unknown))
        if not is_accepted:
            raise Reported
        self.accepted += unknown

    def _ask(self, shown: list[tuple[str, str]], receiver: str, sender: str) -> bool | None:
        from homemgr.cli.prompt import confirm

        lines = [f"{receiver} does not trust {sender} yet."]
        lines += [f"The administrator of {sender} should see with `{_LIST}`:"]
        lines += [f"    {fingerprint}  ({what})" for fingerprint, what in shown]
        return confirm("\n".join([*lines, "Trust it from here on?"]))


def is_untrusted(error: BaseException) -> bool:
    """Whether the failure is one that trust would mend."""
    return isinstance(error, BusError) and error.name == UntrustedOrigin.bus_name


def fingerprints(text: str) -> list[str]:
    """All fingerprints in ``text``, each once, in order."""
    return list(dict.fromkeys(_FINGERPRINT.findall(text)))


def normal(value: str) -> str:
    """A fingerprint as the service writes it: colons and capital letters are left out."""
    text = value.replace(":", "").lower()
    if not _FINGERPRINT.fullmatch(text):
        raise UsageError(f"{value}: expected a fingerprint of 64 hexadecimal digits.")
    return text


def _advice(unknown: list[str]) -> str:
    options = " ".join(f"--trust={fingerprint}" for fingerprint in unknown)
    return f"Compare with `{_LIST}` there, then add {options}"
