"""What a command line says about security tokens; how they get into a record is in `tokens`."""

from __future__ import annotations

from dataclasses import dataclass, field

from homemgr.cli import convert

#: The one token that is there.
AUTO = "auto"
_ALGORITHMS = ("es256", "rs256", "eddsa")


@dataclass
class Wishes:
    """The tokens that one command line names, and how they are to be used; homectl's defaults."""

    uris: list[str] = field(default_factory=list)
    devices: list[str] = field(default_factory=list)
    algorithm: str = "es256"
    with_pin: bool = True
    with_presence: bool = True
    with_verification: bool = False

    def __bool__(self) -> bool:
        """Whether any token is named."""
        return bool(self.uris or self.devices)

    def take_uri(self, text: str) -> None:
        """A PKCS#11 token by its URI; empty forgets those before. ValueError if it is none."""
        if not text:
            self.uris.clear()
        elif text != AUTO and not text.startswith("pkcs11:"):
            raise ValueError("a PKCS#11 URI, auto or list")
        else:
            self.uris.append(text)

    def take_device(self, text: str) -> None:
        """A FIDO2 token by its device; empty forgets those before. ValueError if it is no path."""
        if not text:
            self.devices.clear()
        elif text != AUTO and not text.startswith("/"):
            raise ValueError("the path of a device, auto or list")
        else:
            self.devices.append(text)

    def take_algorithm(self, text: str) -> None:
        """What FIDO2 credentials sign with; ValueError if it is unknown."""
        if text not in _ALGORITHMS:
            raise ValueError(f"one of {', '.join(_ALGORITHMS)}")
        self.algorithm = text

    def take_switch(self, name: str, text: str) -> None:
        """One of what using a FIDO2 token takes; ValueError if it is neither yes nor no."""
        setattr(self, name, bool(convert.boolean(text)))
