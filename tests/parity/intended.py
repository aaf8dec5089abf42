"""The differences that are meant: where, what each service has there, and why ours is another."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .compare import Difference

HOME1, DBUS = "org.freedesktop.home1.", "org.freedesktop.DBus.Error."
#: Where a record has what it has for one machine; `compare` writes the machine's id so.
BINDING, STATUS = r"(.*\.)?binding\.MACHINE\.", r"(.*\.)?status\.MACHINE\."


class Intended(NamedTuple):
    """Regular expressions that match the whole of a step, a member and both values."""

    step: str
    member: str
    homed: str
    ours: str
    why: str

    def fits(self, difference: Difference) -> bool:
        """Whether this is the difference that is meant."""
        return all(
            re.fullmatch(pattern, str(value), re.DOTALL)
            for pattern, value in zip(self[:4], difference, strict=True)
        )


def _refused(step: str, name: str, why: str) -> Intended:
    """A call that systemd-homed takes, and our error name."""
    return Intended(step, "body|error", r"\[\]|None", f"None|{name}", why)


def _accepted(step: str, name: str, why: str) -> Intended:
    """A call that we take, and systemd-homed's error name."""
    return Intended(step, "body|error", f"None|{name}", r"\[\]|None", why)


INTENDED = (
    Intended(
        ".*",
        rf"{BINDING}imagePath",
        r"/home/(\w+)(@[\w.]+)?\.homedir",
        r"/home/\.homemgr/(\w+)(@[\w.]+)?\.homedir",
        "Files of nobody lie below a directory that only root can enter.",
    ),
    Intended(
        ".*",
        r"stdout\[ *Image Path: .*",
        "1|None",
        "1|None",
        "The same, as homectl and userdbctl show it.",
    ),
    Intended(
        ".*",
        rf"{STATUS}fallbackHomeDirectory",
        "/",
        "/home/.*",
        "Nobody shall take the fallback path for the home; only the shell is replaced.",
    ),
    Intended(
        ".*",
        r"stdout\[( *Directory: .* \(fallback\)|\w+:x:\d+:\d+:[^:]*:[^:]*:.*fallback-shell)\]",
        "1|None",
        "1|None",
        "The same, as userdbctl and getent show it.",
    ),
    Intended(
        ".*",
        r"stdout\[0\]",
        r"\w+:x:\d+:\d+:[^:]*:/:/usr/bin/systemd-home-fallback-shell",
        r"\w+:x:\d+:\d+:[^:]*:/home/\w+:/usr/bin/systemd-home-fallback-shell",
        "The same, as getent shows it.",
    ),
    Intended(
        ".*",
        rf"({STATUS}(disk\w+|fileSystemType)|{BINDING}fileSystemType)",
        "<disk.*>|0|5242880|ext4",
        "None",
        "Look-ups are answered from memory: none waits for a disk that others use as well.",
    ),
    Intended(
        ".*",
        r"stdout\[ *Disk \w+: .*",
        "1",
        "None",
        "The same, as homectl and userdbctl show it.",
    ),
    Intended(
        ".*",
        r"(.*\.)?org\.homemgr\.idmapPolicy",
        "None",
        "strict",
        "The record says which ids a home shows; systemd-homed keeps members it does not know.",
    ),
    Intended(
        ".*",
        rf"{BINDING}homeDirectory",
        "None",
        "/home/.*",
        "Written when a home is made; systemd-homed writes it when it is first used.",
    ),
    # Records that are made, registered, found
    Intended(
        "(create by homectl|update by record|passwords): .*inside.*",
        "uid",
        "60111",
        "65534",
        "On disk the files belong to nobody.",
    ),
    Intended(
        "create by homectl: files",
        r"\[\.identity-blob\]",
        "1",
        "None",
        "A home without blobs has no directory for them.",
    ),
    Intended(
        "(foreign records|register): .*",
        rf"{BINDING}(blobDirectory|uid|gid)",
        "None",
        "/var/cache/systemd/home/.*|60400|60111",
        "An explicit uid is bound at once: no later change of the record can move it.",
    ),
    _accepted(
        "refuse records: CreateHome: uid as text",
        f"{DBUS}InvalidArgs",
        "A number may be a string of digits, here as everywhere in records.",
    ),
    _refused(
        "refuse records: RegisterHome: (disposition|storage) unknown",
        f"{DBUS}InvalidArgs",
        "A home like that could never be used.",
    ),
    Intended(
        "refuse (records|names): .*uid of (root|nobody|a service)",
        "error",
        f"{HOME1}UIDInUse",
        f"{DBUS}BadAddress",
        "It is nobody's to have, taken or not.",
    ),
    Intended(
        "refuse (records|names): .*('root'|'nobody'|'nogroup'|alias is root).*",
        "error",
        f"{HOME1}UserNameExists",
        f"{DBUS}InvalidArgs",
        "It is nobody's to have, taken or not.",
    ),
    Intended(
        "refuse records: .*",
        "error",
        f"System.Error.(EMEDIUMTYPE|ENOTUNIQ)|{HOME1}(HomeExists|NoSuchHome)",
        f"{DBUS}InvalidArgs",
        "The record is wrong, and the answer says where.",
    ),
    Intended(
        "refuse records: CreateHome: no secret",
        "error",
        "System.Error.ENOKEY",
        f"{HOME1}BadPassword",
        "The name by which clients ask for a password.",
    ),
    _refused(
        "(refuse records: CreateHome: weak password|passwords: weak)",
        f"{HOME1}LowPasswordQuality",
        "There is a least quality even where no library judges it.",
    ),
    Intended(
        "register: luks: record",
        rf"{STATUS}diskFloor",
        "268435456",
        "None",
        "Look-ups are answered from memory.",
    ),
    _refused(
        "adopt: adopt berta.homedir",
        f"{HOME1}UnrecognizedHomeFormat",
        "A symbolic link is no home.",
    ),
    Intended("adopt: removed", r"\[berta\.homedir\]", "None", "1", "So it stays where it is."),
    # Changes
    _refused(
        "update by record: (home directory|another (uid|uid and gid|storage|place))",
        f"{DBUS}NotSupported",
        "It would be accepted and ignored; refused with the reason instead.",
    ),
    Intended(
        "update by homectl: --(storage|uid|image-path)=.*",
        "code",
        "0",
        "1",
        "The same, by homectl.",
    ),
    Intended(
        "update by (record|homectl): .*(home directory|another|storage|uid|image-path).*: record",
        r".*\.(homeDirectory|uid|gid|storage|imagePath|matchMachineId)",
        ".*",
        "/home/anna|60111|directory|None",
        "What was refused is not in the record.",
    ),
    Intended(
        "update by (record|homectl): .*alias.*|update by homectl: .*",
        r"(.*\.)?aliases\[0\]",
        "None",
        "annie",
        "systemd-homed says it did, and changes the copy in the home alone.",
    ),
    _refused(
        "update by record: an alias that is taken",
        f"{DBUS}InvalidArgs",
        "The same: it would be accepted and ignored.",
    ),
    Intended(
        "update by record: signature",
        "error",
        "System.Error.ENOKEY",
        f"{HOME1}BadSignature",
        "The name that says so.",
    ),
    Intended(
        "((update )?by .*|passwords|sizes and locks|foreign records): .*",
        rf"{STATUS}((good|bad)AuthenticationCounter|last(Good|Bad)AuthenticationUSec|rateLimit\w+)",
        r"\d+|<.*>",
        r"\d+|None",
        "Attempts with a credential count: not what is refused before, nor asking what is needed.",
    ),
    _accepted(
        "blobs: update without",
        "System.Error.EPROTO",
        "Who gives no files keeps those there are.",
    ),
    Intended(
        "blobs: (name .*|write only)",
        "error",
        "System.Error.(EPROTO|EBADF)",
        f"{DBUS}InvalidArgs",
        "The answer says which file is wrong.",
    ),
    _accepted(
        "blobs: append",
        f"{DBUS}InvalidArgs",
        "It can be read, which is all that is done with it.",
    ),
    Intended(
        r"blobs: (stored|manifest) \((brought along|still there)\)",
        r"((avatar|x)(\[[012]\])?)?",
        r"\{\}|None",
        "None|0o100644|0|a picture|[0-9a-f]{64}",
        "A picture comes back with its home, or the next update would delete it there.",
    ),
    # Passwords
    Intended(
        "passwords: numbers?|passwords: a numbers?",
        "error",
        f"{HOME1}BadPassword",
        f"{DBUS}InvalidArgs",
        "It is no password.",
    ),
    _refused(
        "passwords: wrong: change",
        f"{HOME1}BadPassword",
        "Knowing the new password is no right to change the old one.",
    ),
    Intended(
        "passwords: own name",
        "error",
        f"{HOME1}BadPassword",
        f"{HOME1}LowPasswordQuality",
        "There is a least quality; systemd-homed took 1234 a step before.",
    ),
    _refused(
        "passwords: to an empty one",
        f"{DBUS}InvalidArgs",
        "Nobody has an empty password.",
    ),
    Intended(
        "permissions: (AdoptHome|RemoveSigningKey) by owner",
        "error",
        f"{DBUS}(AccessDenied|InvalidArgs)",
        f"{DBUS}InteractiveAuthorizationRequired",
        "polkit is asked, and before anything is told.",
    ),
    # States
    Intended(
        "operations: AuthenticateHome of unfixated: then",
        "",
        "inactive",
        "unfixated",
        "A check of the password changes nothing.",
    ),
    Intended(
        "operations: ChangePasswordHome of unfixated|foreign records: change the password",
        "error",
        f"{HOME1}RecordSigned",
        f"{HOME1}(HomeUnfixated|HomeAbsent)",
        "There is no home yet whose password could be changed, whoever signed.",
    ),
    _accepted(
        "foreign records: newer offline",
        f"{DBUS}NotSupported",
        "An accepted key signed it, and no files are needed to keep it.",
    ),
    Intended(
        "foreign records: (record then|host copy)",
        r"(body\[0\]|record)\.realName",
        "None",
        "Newer",
        "So it is kept.",
    ),
    Intended(
        "signals: .*",
        r'/org/freedesktop/home1 PropertiesChanged .*"AutoLogin".*',
        "True",
        "None",
        "Told when it changes, not with every change of a record.",
    ),
    Intended(
        "signals: .*",
        r".*/anna PropertiesChanged .*Home\", \[\"(State\", \")?UID.*",
        "True|None",
        "True|None",
        "The state is signalled as well; systemd-homed's clients have to ask again and again.",
    ),
    # Interfaces
    Intended(
        "signing keys: (add (again|under another name)|remove (again|'friend.public'))",
        "error",
        f"{DBUS}InvalidArgs",
        f"System.Error.EEXIST|{HOME1}NoSuchKey",
        "The name says what is wrong.",
    ),
    Intended(
        "(interfaces|auto login): (wrong interface|unknown interface|its own name)",
        "error",
        f"{DBUS}Unknown(Property|Method)",
        f"{DBUS}UnknownInterface",
        "The name that says which part is unknown.",
    ),
    Intended(
        "user database: no such interface",
        r"answers\[0\].*",
        ".*",
        ".*InterfaceNotFound|None|org.example",
        "The same, for varlink.",
    ),
    Intended(
        "user database: GetInfo",
        r"answers\[0\]\.parameters\.(vendor|product|version|url|interfaces\[io\.systemd\])",
        ".*",
        "homemgr|None|",
        "Who answers; errors of systemd itself are not among ours.",
    ),
    Intended(
        "clients of the user database: userdbctl( user( .*)?)?( as a stranger)?",
        r"stdout\[ +anna +regular +60111 60111 Anna A +(/|/home/anna) .*",
        "1|None",
        "1|None",
        "The directory of an inactive home, as above.",
    ),
    # Logins
    Intended(
        "by login programs: su, wrong first",
        "code|asked",
        "7|2",
        "1",
        "One question is one attempt; the PAM module would ask five times in one login.",
    ),
    Intended(
        "pam: (not yet|change now|limited): .*",
        "code",
        "0",
        "1",
        "A refusal by the home service is final: there is no session without a home.",
    ),
)


#: More of it where the reference is systemd-homed 252: what later releases brought.
SINCE_252 = (
    Intended(
        ".*",
        rf"{BINDING}blobDirectory|{STATUS}useFallback",
        "None",
        "/var/cache/systemd/home/.*|True|False",
        "Blobs and the fallback shell came with 255 and 256; clients of 252 pass over them.",
    ),
    Intended(
        "(create by homectl|clients of the user database|dry run): .*",
        r"stdout\[((anna|berta):x:\d+:(anna|berta)?|\d memberships listed\.| +(anna|berta|zoe)"
        r"|(anna|berta) +(anna|berta)|USER GROUP| Aux. Groups: dry| +Members: zoe|)\]",
        "1|None",
        "1|None",
        "Users are members of their own group since 254, and every list of members says so.",
    ),
    Intended(
        "(create by homectl|clients of the user database): .*(getent|users-in-group).*",
        r"stdout\[0\]",
        r"(\w+):x:\d+:|No memberships\.|zoe +29 60",
        r"(\w+):x:\d+:\w+|None|zoe +29 60 60111",
        "The same.",
    ),
    Intended(
        "create by homectl: userdbctl groups-of-user -j zoe .*",
        r"stdout\[2\]\.(user|group)",
        "None",
        "zoe",
        "The same.",
    ),
    Intended(
        "clients of the user database: userdbctl users-in-group anna.*",
        r"stdout\[1 memberships listed\.\]",
        "None",
        "1",
        "The same.",
    ),
    Intended(
        "pam: (long )?aged: .*",
        "code",
        "0",
        "1",
        "As with the other refusals; sid's PAM module knows what an old password means.",
    ),
)


def unexplained(found: list[Difference], meant: tuple[Intended, ...]) -> list[Difference]:
    """The differences that nobody meant."""
    return [one for one in found if not any(row.fits(one) for row in meant)]


def unused(found: list[Difference], meant: tuple[Intended, ...]) -> list[Intended]:
    """What is not different any more."""
    return [row for row in meant if not any(row.fits(one) for one in found)]
