"""homemgr(1): every verb with its options, out of the tables that the command line runs by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homemgr.cli.manual.roff import Page
from homemgr.cli.record_options import OPTIONS as RECORD_OPTIONS
from homemgr.cli.verb_table import COMMON, VERBS, options_of
from homemgr.record.findings import CODES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from homemgr.cli.arguments import Option

_ENVIRONMENT = {
    "PASSWORD, NEWPASSWORD, PIN": "The password that unlocks the home, the new one, and the PIN of"
    " a security token. They are taken out of the environment at once. Else the credentials"
    " home.password, home.new-password, home.token-pin and home.recovery-key of a service"
    " manager are used, see **systemd.exec**(5); else they are asked for on the terminal.",
    "HOMEMGR_SSH": "The ssh program with its options, for `homemgr migrate`.",
    "HOMEMGR_DEBUG": "1: a failure of the program itself shows where it happened.",
    "SYSTEMD_HOME_DRY_RUN": "1: the same as --dry-run, for `create` and `update`.",
    "SYSTEMD_HOME_FIRSTBOOT_OVERRIDE": "For `firstboot`: 1 asks for a user although there is one,"
    " 0 never asks.",
    "SYSTEMD_HOME_SYSTEM_BLOB_DIR": "Where the public files of users are, if not in"
    " /var/cache/systemd/home.",
    "SYSTEMD_HOME_DEBUG_SUFFIX": "Speak to a second service, whose bus name ends like this.",
    "SYSTEMD_PLEASE_SUSPEND_HOME": "1: the home may be locked while `homemgr with` uses it.",
    "SYSTEMD_CRYPT_PREFIX": "How new passwords are hashed, as in **crypt**(5).",
    "DBUS_SYSTEM_BUS_ADDRESS": "The bus to speak to, if not the system's.",
    "NO_COLOR, SYSTEMD_COLORS": "Tables have no colours if the first is set, or the second is 0.",
}

_EXIT_STATUS = {
    "0": "Everything asked for was done, or nothing had to be.",
    "1": "Something failed, and a line on standard error says what; or the command line made no"
    " sense to a verb that **homectl**(1) has as well. `check` found something wrong.",
    "2": "The command line made no sense to a verb of homemgr's own. `check` could not find out.",
    "130": "Interrupted.",
    "141": "The reader of the output was gone.",
    "255": "For `migrate`: ssh did not get through.",
}

_FILES = {
    "/etc/homemgr/homemgr.conf": "Settings, see **homemgr.conf**(5).",
    "/etc/homemgr/extensions.conf": "Who gets which extensions, see"
    " **homemgr-extensions.conf**(5).",
    "/home/.homemgr/USER.homedir": "The files of a home, owned by nobody.",
    "/var/lib/systemd/home": "User records and signing keys, as **systemd-homed**(8) has them.",
    "/var/cache/systemd/home": "Pictures and other public files of users.",
}


def page() -> str:
    """The page."""
    made = Page("homemgr", 1, "make, change, use and move home areas that nobody owns on disk")
    made.heading("SYNOPSIS")
    made.paragraph("**homemgr** [OPTIONS...] VERB [ARGUMENTS...]")
    made.heading("DESCRIPTION")
    made.paragraph(
        "A home area holds the files, the settings and the signed user record of one person. On"
        " disk its files belong to nobody; while the user is logged in they are shown as his own."
        " **homemgr** asks the service **homemgrd**(8) for all it does, with the words, options,"
        " environment and exit codes of **homectl**(1). Without a verb it lists the home areas."
    )
    made.paragraph(
        "Options may stand before, between and after words, and be cut short while it is clear"
        " which is meant. An empty value takes a field out of the record."
    )
    _verbs(made)
    made.heading("OPTIONS OF EVERY VERB")
    _options(made, COMMON)
    made.heading("OPTIONS OF USER RECORDS")
    made.paragraph("For the verbs `create` and `update`.")
    _options(made, RECORD_OPTIONS)
    made.heading("FINDINGS")
    made.paragraph("What `check` may find, by its code, and what can be done about it.")
    for code, kind in CODES.items():
        repair = f" `repair` {kind.repair}." if kind.repair else ""
        made.item([code], f"{kind.what} {kind.advice}{repair}")
    for name, table in (
        ("ENVIRONMENT", _ENVIRONMENT), ("EXIT STATUS", _EXIT_STATUS), ("FILES", _FILES)
    ):  # fmt: skip
        made.heading(name)
        for tag, text in table.items():
            made.item(tag.split(", "), text)
    made.heading("SEE ALSO")
    made.paragraph(
        "**homemgrd**(8), **homemgr.conf**(5), **homemgr-extensions.conf**(5), **homectl**(1),"
        " **userdbctl**(1), **systemd-homed**(8), **systemd.system-credentials**(7)"
    )
    return made.text


def _verbs(made: Page) -> None:
    made.heading("VERBS")
    for name, verb in VERBS.items():
        made.subheading(f"{name} {verb.usage}".rstrip())
        own = [option for option in options_of(verb) if option not in RECORD_OPTIONS]
        takes_record = len(own) < len(options_of(verb))
        made.paragraph(f"{verb.help}." + (" Takes the options of user records." * takes_record))
        _options(made, own)


def _options(made: Page, options: Iterable[Option]) -> None:
    for option in options:
        made.item(_spellings(option), f"{option.help}.")


def _spellings(option: Option) -> list[str]:
    """All ways to write it, with the name of its value."""
    letters = [f"-{letter}" for letter in option.short]
    if option.may_lack_value:
        return [*letters, f"--{option.name}{option.value}"]
    long = f"--{option.name}={option.value}" if option.value else f"--{option.name}"
    return [*(f"{text} {option.value}".rstrip() for text in letters), *([long] * bool(option.name))]
