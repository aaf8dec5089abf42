"""homemgr.conf(5) and homemgr-extensions.conf(5): the files that an administrator writes."""

from __future__ import annotations

from homemgr.cli.manual.roff import Page
from homemgr.record.fields import MUTABILITIES
from homemgr.record.uids import DEFAULT_RANGE

_PLACES = ("/etc", "/run", "/usr/local/lib", "/usr/lib")


def homemgr_conf() -> str:
    """What homes are like unless their records say otherwise."""
    made = Page("homemgr.conf", 5, "settings of the home area manager")
    _synopsis(made, "homemgr/homemgr.conf")
    made.heading("DESCRIPTION")
    made.paragraph(
        "Read when **homemgrd**(8) starts, after systemd/homed.conf of **homed.conf**(5), whose"
        " options it shares. Of the main file the first one found counts; drop-ins of all"
        " directories come after it in the order of their names, and later settings win."
    )
    made.heading("OPTIONS")
    made.paragraph("All in the section [Home].")
    made.item(
        ["DefaultStorage="], "The storage of homes whose records name none. By default: directory."
    )
    made.item(
        ["UIDRange="],
        "The first and the last uid for new homes, with a hyphen between them. By default:"
        f" {DEFAULT_RANGE.first}-{DEFAULT_RANGE.last}.",
    )
    made.item(
        ["GraceSec="],
        "How many seconds a home stays after its last user vanished without a word. By default: 3.",
    )
    made.heading("SEE ALSO")
    made.paragraph("**homemgrd**(8), **homemgr**(1), **homed.conf**(5)")
    return made.text


def extensions_conf() -> str:
    """Who gets which extensions."""
    made = Page("homemgr-extensions.conf", 5, "who gets which extensions merged into his home")
    _synopsis(made, "homemgr/extensions.conf")
    made.heading("DESCRIPTION")
    made.paragraph(
        "Says which trees and images of homemgr/extensions, below /etc, /run, /var/lib and"
        " /usr/lib, are merged into the homes of which users at login. Read when **homemgrd**(8)"
        " starts, and again after `systemctl reload homemgrd`."
    )
    made.heading("[EXTENSIONS] SECTION")
    made.item(
        ["Mutable="],
        f"What becomes of writes to merged directories: {', '.join(MUTABILITIES)}, as in"
        " **systemd-sysext**(8). By default: yes.",
    )
    made.item(
        ["RequireSignature="],
        "Whether a disk image that carries a signature is refused where it cannot be verified. With"
        " no, a stored digest is enough. By default: yes.",
    )
    made.item(
        ["MapRoot="],
        "Whether files of root in an extension are shown as the user's own, as files of nobody"
        " are. By default: yes.",
    )
    made.heading("[EXTENSION NAME] SECTION")
    made.paragraph("One for each extension. Users are given by name, as @GROUP, or all as *.")
    made.item(["Users="], "Who has it.")
    made.item(["Optional="], "Who may choose it with `homemgr extension enable`.")
    made.item(["Required="], "Whether a login without it is refused. By default: no.")
    made.heading("EXAMPLE")
    made.code(
        "[Extensions]\nMutable=ephemeral\n\n[Extension tools]\nUsers=alice @staff\n\n"
        "[Extension editor]\nOptional=*"
    )
    made.heading("SEE ALSO")
    made.paragraph("**homemgrd**(8), **homemgr**(1), **systemd-sysext**(8)")
    return made.text


def _synopsis(made: Page, name: str) -> None:
    made.heading("SYNOPSIS")
    for place in _PLACES:
        made.paragraph(f"{place}/{name}")
        made.paragraph(f"{place}/{name}.d/*.conf")
