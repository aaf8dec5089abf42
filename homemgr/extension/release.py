"""What an extension was made for, and whether that is this machine: os-release(5).

The rules are those of systemd-sysext(8). Reads the host's os-release, otherwise pure.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from homemgr.files import Fd, read_limited

#: Where the description of an extension is inside it.
DIRECTORY = "usr/lib/extension-release.d"
#: An extension-release file of more than that is none.
LIMIT = 64 << 10

#: What os-release(5) of this host may be, the first that exists.
_HOST_FILES = ("etc/os-release", "usr/lib/os-release")

#: The word for a home in SYSEXT_SCOPE=, beside systemd's system, initrd and portable.
SCOPE = "home"

_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)")

#: In double quotes, in single quotes, or without any: then nothing a shell would act on.
_VALUE = re.compile(
    r"""
    " (?P<escaped> (?: [^"\\] | \\. )* ) "
    | ' (?P<literal> [^']* ) '
    | (?P<plain> [^\s"'$`\\]* )
    """,
    re.VERBOSE,
)
_ESCAPE = re.compile(r"""\\(["$`\\])""")

#: machine of uname(2) -> systemd's word, where they differ.
_ARCHITECTURES = {
    "x86_64": "x86-64",
    "i386": "x86",
    "i486": "x86",
    "i586": "x86",
    "i686": "x86",
    "aarch64": "arm64",
    "aarch64_be": "arm64-be",
    "armv6l": "arm",
    "armv7l": "arm",
    "armv8l": "arm",
    "ppc64le": "ppc64-le",
    "ppcle": "ppc-le",
}
#: Words that may end a file name NAME_VERSION_ARCHITECTURE.
KNOWN_ARCHITECTURES = frozenset(_ARCHITECTURES.values()) | {
    "alpha",
    "arm-be",
    "ia64",
    "loongarch64",
    "m68k",
    "mips",
    "mips-le",
    "mips64",
    "mips64-le",
    "parisc",
    "parisc64",
    "ppc",
    "ppc64",
    "riscv32",
    "riscv64",
    "s390",
    "s390x",
    "sparc",
    "sparc64",
}


class Host(NamedTuple):
    """This machine as far as extensions ask: fields of os-release(5), and the architecture."""

    id: str
    version_id: str
    sysext_level: str
    architecture: str


def read_host() -> Host:
    """The running system, with the defaults of os-release(5) if it does not say what it is."""
    for path in _HOST_FILES:
        try:
            # By tradition a symbolic link, and only root can change where it leads.
            file = Fd.open(f"/{path}", os.O_RDONLY | os.O_NONBLOCK)
        except FileNotFoundError:
            continue
        with file:
            text = read_limited(file.fileno(), LIMIT, path).decode("utf-8", "replace")
        return host(parse(text), os.uname().machine)
    return host({}, os.uname().machine)


def host(fields: dict[str, str], machine: str) -> Host:
    """The host with these os-release fields; the default ID is that of the specification."""
    return Host(
        fields.get("ID", "linux"),
        fields.get("VERSION_ID", ""),
        fields.get("SYSEXT_LEVEL", ""),
        _ARCHITECTURES.get(machine, machine),
    )


def parse(text: str) -> dict[str, str]:
    """The assignments in ``text``; what is none is passed over, as every reader of it does."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        match = _ASSIGNMENT.fullmatch(line.strip())
        value = _unquoted(match[2]) if match else None
        if match and value is not None:
            fields[match[1]] = value
    return fields


def _unquoted(value: str) -> str | None:
    match = _VALUE.fullmatch(value)
    if match is None:
        return None
    if match["escaped"] is not None:
        return _ESCAPE.sub(r"\1", match["escaped"])
    return match["literal"] if match["literal"] is not None else match["plain"]


def file_names(name: str) -> tuple[str, ...]:
    """What the description of extension ``name`` may be called, best first."""
    plain, _, version = name.partition("_")
    return tuple(f"extension-release.{n}" for n in ((name, plain) if version else (name,)))


def misfit(fields: dict[str, str], machine: Host) -> str:
    """Why an extension with these fields cannot be used on ``machine``; empty if it can."""
    scope = fields.get("SYSEXT_SCOPE", "").split()
    if scope and SCOPE not in scope:
        return f"SYSEXT_SCOPE={' '.join(scope)} does not include {SCOPE!r}"
    architecture = fields.get("ARCHITECTURE", "")
    if architecture not in ("", "_any", machine.architecture):
        return f"ARCHITECTURE={architecture}, but this machine is {machine.architecture}"
    identifier = fields.get("ID", "")
    if not identifier:
        return "it does not say ID=, the system it was made for"
    if identifier == "_any":
        return ""
    if identifier != machine.id:
        return f"ID={identifier}, but this system has ID={machine.id}"
    return _version_misfit(fields, machine)


def _version_misfit(fields: dict[str, str], machine: Host) -> str:
    level, version = fields.get("SYSEXT_LEVEL", ""), fields.get("VERSION_ID", "")
    if level and machine.sysext_level:
        # A level promises more than a version and replaces it.
        if level == machine.sysext_level:
            return ""
        return f"SYSEXT_LEVEL={level}, but this system has SYSEXT_LEVEL={machine.sysext_level}"
    # A rolling release has no version that could differ.
    if not machine.version_id or version == machine.version_id:
        return ""
    said = f"VERSION_ID={version}" if version else "no VERSION_ID="
    return f"{said}, but this system has VERSION_ID={machine.version_id}"
