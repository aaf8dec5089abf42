"""homemgrd(8): the service, where it keeps things, and all failures it may answer with."""

from __future__ import annotations

from homemgr.cli.manual.roff import Page
from homemgr.errors import BY_BUS_NAME

_VARIABLES = {
    "SYSTEMD_HOME_ROOT": "Where homes are shown, if not in /home; they lie in .homemgr below it.",
    "SYSTEMD_HOME_RECORD_DIR": "Where records and keys are, if not in /var/lib/systemd/home.",
    "SYSTEMD_HOME_SYSTEM_BLOB_DIR": "Where public files of users are, if not in"
    " /var/cache/systemd/home.",
    "SYSTEMD_CRYPT_PREFIX": "How new passwords are hashed, as in **crypt**(5).",
    "HOMEMGR_CONFIG": "One file in the place of homemgr.conf and homed.conf.",
    "HOMEMGR_EXTENSIONS_CONFIG": "One file in the place of extensions.conf.",
    "HOMEMGR_EXTENSION_PATH": "Directories with extensions, with colons, in the place of the usual"
    " ones.",
    "HOMEMGR_RUNTIME_DIR": "Where references and the user database are, if not in /run/systemd.",
    "HOMEMGR_LOG_LEVEL": "DEBUG, INFO (default), WARNING or ERROR.",
}


def page() -> str:
    """The page."""
    made = Page("homemgrd", 8, "home area manager")
    made.heading("SYNOPSIS")
    made.paragraph("homemgrd.service")
    made.paragraph("**homemgrd**")
    made.heading("DESCRIPTION")
    made.paragraph(
        "**homemgrd** makes home areas, shows them at logins and takes them away afterwards. It"
        " owns the bus name org.freedesktop.home1 in the place of **systemd-homed**(8), so that"
        " **pam_systemd_home**(8), **homectl**(1) and **userdbctl**(1) work with it, answers"
        " the user database as io.systemd.Home, and has org.homemgr1 for all else. It is"
        " put in place by `homemgr setup` and taken away by `homemgr unsetup`."
    )
    made.paragraph(
        "Stopping or restarting it leaves homes that are in use as they are. At shutdown"
        " homemgr-activate.service deactivates them. SIGHUP, which `systemctl reload homemgrd`"
        " sends, has extensions.conf read again. At the first boot of a machine"
        " homemgr-firstboot.service runs `homemgr firstboot`."
    )
    made.heading("CREDENTIALS")
    made.paragraph("Taken by `homemgr firstboot` from the unit's and from the machine's own.")
    made.item(
        ["home.create.USER"],
        "A user record in JSON for which a home is created. Its password is in it as it is, in"
        " secret.password, and may have its hash beside it.",
    )
    made.item(["home.register.USER"], "A user record in JSON that is registered without files.")
    made.item(
        ["home.add-signing-key.NAME"],
        "A public key in PEM form; records that are signed with it count from then on.",
    )
    made.heading("ENVIRONMENT")
    for name, text in _VARIABLES.items():
        made.item([name], text)
    made.heading("ERRORS")
    made.paragraph("What the service may answer with on the bus, by the name of the error.")
    for name, failure in sorted(BY_BUS_NAME.items()):
        what = (failure.__doc__ or "").partition("\n")[0]
        made.item([name], f"{what} {failure.hint}")
    made.heading("SEE ALSO")
    made.paragraph(
        "**homemgr**(1), **homemgr.conf**(5), **homemgr-extensions.conf**(5),"
        " **systemd-homed**(8), **org.freedesktop.home1**(5)"
    )
    return made.text
