"""THE table of options that set fields of a user record: homectl's, and some of our own.

One row per option: names, value, field, converter, section. Help texts come from
the field table of room record. What rows do to a record is in `record_edit`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from homemgr.cli import convert
from homemgr.cli.arguments import Option
from homemgr.record.fields import (
    EXTENSION_MUTABILITY,
    FIELDS,
    HOME_MODE,
    IDMAP_POLICY,
    MUTABILITIES,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from homemgr.record.jsontext import Json

#: Where an option writes unless --match= says otherwise.
REGULAR, PRIVILEGED, THIS_MACHINE = "regular", "privileged", "this"


class Row(NamedTuple):
    """One option that sets one field to one value; an empty value unsets the field."""

    option: Option
    field: str
    convert: Callable[[str], Json]
    section: str = REGULAR


def _row(
    names: str,
    value: str,
    field: str,
    converter: Callable[[str], Json] = convert.text,
    section: str = REGULAR,
) -> Row:
    name, _, short = names.partition(" ")
    return Row(Option(name, short, value, FIELDS[field].doc.rstrip(".")), field, converter, section)


# What depends on the machine goes to the perMachine entry of this one (section THIS_MACHINE):
# paths, storage and memory of one machine make no sense on the next.
ROWS = (
    _row("real-name c", "NAME", "realName"),
    _row("realm", "REALM", "realm"),
    _row("email-address", "EMAIL", "emailAddress"),
    _row("location", "LOCATION", "location"),
    _row("birth-date", "DATE", "birthDate"),
    _row("icon-name", "NAME", "iconName"),
    _row("home-dir d", "DIR", "homeDirectory"),
    _row("uid u", "UID", "uid", convert.number),
    _row("skel k", "DIR", "skeletonDirectory", section=THIS_MACHINE),
    _row("shell s", "PATH", "shell"),
    _row("timezone", "TIMEZONE", "timeZone"),
    _row("default-area", "AREA", "defaultArea"),
    _row("session-launcher", "LAUNCHER", "preferredSessionLauncher"),
    _row("session-type", "TYPE", "preferredSessionType"),
    # Who may log in, and when.
    _row("locked", "BOOL", "locked", convert.boolean),
    _row("not-before", "TIMESTAMP", "notBeforeUSec", convert.moment),
    _row("not-after e", "TIMESTAMP", "notAfterUSec", convert.moment),
    _row("rate-limit-interval", "SECS", "rateLimitIntervalUSec", convert.span),
    _row("rate-limit-burst", "NUMBER", "rateLimitBurst", convert.number),
    _row("password-hint", "HINT", "passwordHint", section=PRIVILEGED),
    # Passwords: their quality and their age.
    _row("enforce-password-policy", "BOOL", "enforcePasswordPolicy", convert.boolean),
    _row("password-change-now", "BOOL", "passwordChangeNow", convert.boolean),
    _row("password-change-min", "TIME", "passwordChangeMinUSec", convert.span),
    _row("password-change-max", "TIME", "passwordChangeMaxUSec", convert.span),
    _row("password-change-warn", "TIME", "passwordChangeWarnUSec", convert.span),
    _row("password-change-inactive", "TIME", "passwordChangeInactiveUSec", convert.span),
    # Files and resources.
    _row("access-mode", "MODE", "accessMode", convert.mode),
    _row("umask", "MODE", "umask", convert.mode),
    _row("nice", "NICE", "niceLevel", convert.number),
    _row("tasks-max", "MAX", "tasksMax", convert.unlimited_number),
    _row("memory-high", "BYTES", "memoryHigh", convert.unlimited_size, THIS_MACHINE),
    _row("memory-max", "BYTES", "memoryMax", convert.unlimited_size, THIS_MACHINE),
    _row("cpu-weight", "WEIGHT", "cpuWeight", convert.number),
    _row("io-weight", "WEIGHT", "ioWeight", convert.number),
    _row("capability-bounding-set", "CAPS", "capabilityBoundingSet", convert.capabilities),
    _row("capability-ambient-set", "CAPS", "capabilityAmbientSet", convert.capabilities),
    _row("image-path", "PATH", "imagePath", section=THIS_MACHINE),
    # Ours; systemd-homed keeps it and passes it on, as it does with every unknown field.
    _row("idmap-policy", "POLICY", IDMAP_POLICY),
    _row("home-mode", "normal|ephemeral|read-only", HOME_MODE),
    _row("extension-mutability", "|".join(MUTABILITIES), EXTENSION_MUTABILITY),
    _row("drop-caches", "BOOL", "dropCaches", convert.boolean),
    # Of one storage each.
    _row("fs-type", "btrfs|ext4|xfs", "fileSystemType", section=THIS_MACHINE),
    _row("luks-discard", "BOOL", "luksDiscard", convert.boolean),
    _row("luks-offline-discard", "BOOL", "luksOfflineDiscard", convert.boolean),
    _row("luks-cipher", "CIPHER", "luksCipher"),
    _row("luks-cipher-mode", "MODE", "luksCipherMode"),
    _row("luks-volume-key-size", "BITS", "luksVolumeKeySize", convert.number),
    _row("luks-pbkdf-type", "TYPE", "luksPbkdfType"),
    _row("luks-pbkdf-hash-algorithm", "ALGORITHM", "luksPbkdfHashAlgorithm"),
    _row("luks-pbkdf-time-cost", "SECS", "luksPbkdfTimeCostUSec", convert.span),
    _row("luks-pbkdf-memory-cost", "BYTES", "luksPbkdfMemoryCost", convert.size, THIS_MACHINE),
    _row("luks-pbkdf-parallel-threads", "NUMBER", "luksPbkdfParallelThreads", convert.number),
    _row("luks-pbkdf-force-iterations", "NUMBER", "luksPbkdfForceIterations", convert.number),
    _row("luks-sector-size", "BYTES", "luksSectorSize", convert.size),
    _row("luks-extra-mount-options", "OPTIONS", "luksExtraMountOptions"),
    _row("auto-resize-mode", "off|grow|shrink-and-grow", "autoResizeMode"),
    _row("rebalance-weight", "WEIGHT", "rebalanceWeight", convert.weight),
    _row("nosuid", "BOOL", "mountNoSuid", convert.boolean),
    _row("nodev", "BOOL", "mountNoDevices", convert.boolean),
    _row("noexec", "BOOL", "mountNoExecute", convert.boolean),
    _row("cifs-domain", "DOMAIN", "cifsDomain"),
    _row("cifs-user-name", "USER", "cifsUserName"),
    _row("cifs-service", "SERVICE", "cifsService"),
    _row("cifs-extra-mount-options", "OPTIONS", "cifsExtraMountOptions"),
    # What happens around a session.
    _row("stop-delay", "SECS", "stopDelayUSec", convert.span),
    _row("kill-processes", "BOOL", "killProcesses", convert.boolean),
    _row("auto-login", "BOOL", "autoLogin", convert.boolean),
)

#: Options with rules of their own, by name: see `record_edit`.
SPECIAL = (
    Option("activate-without-secret", "", "BOOL", "Have root activate it without a secret here"),
    Option("alias", "", "NAMES", "Further names, with commas"),
    Option("member-of", "G", "GROUPS", "All groups, with commas; +GROUP and -GROUP change them"),
    Option("setenv", "", "NAME[=VALUE]", "Set an environment variable of sessions"),
    Option("extension", "", "[+]NAMES", "Merge extensions at login, with commas; + if required"),
    Option("language", "", "LOCALES", "Locale of sessions, and further ones, with commas"),
    Option("ssh-authorized-keys", "", "KEYS", "A key that sshd accepts, or @FILE with keys"),
    Option("", "P", "", "Same as --enforce-password-policy=no"),
    Option("storage", "", "luks|fscrypt|directory|subvolume|image|cifs", "How the home is stored"),
    Option("disk-size", "", "BYTES|PERCENT", "Most space of the home"),
    Option("rlimit", "", "LIMIT=VALUE[:VALUE]", "Set a resource limit"),
    Option("tmp-limit", "", "BYTES|PERCENT", "Most space in /tmp"),
    Option("dev-shm-limit", "", "BYTES|PERCENT", "Most space in /dev/shm"),
    Option("pkcs11-token-uri", "", "URI", "A PKCS#11 token that unlocks the home, auto or list"),
    Option("fido2-device", "", "PATH", "A FIDO2 token that unlocks the home, auto or list"),
    Option("fido2-credential-algorithm", "", "NAME", "es256, rs256 or eddsa (default: es256)"),
    Option("fido2-with-client-pin", "", "BOOL", "The token's PIN is needed (default: yes)"),
    Option("fido2-with-user-presence", "", "BOOL", "A touch is needed (default: yes)"),
    Option("fido2-with-user-verification", "", "BOOL", "It knows its user (default: no)"),
    Option("recovery-key", "", "BOOL", "Add a recovery key, and show it"),
    Option("match", "", "any|this|other|auto", "The machines that options which follow are for"),
    Option("", "A", "", "Same as --match=any"),
    Option("", "T", "", "Same as --match=this"),
    Option("", "N", "", "Same as --match=other"),
)

#: Options about where the record comes from, about blobs, and about where a new key goes.
SOURCES = (
    Option("identity", "Ii", "FILE", "Read the record from FILE, - for standard input"),
    Option("recovery-key-file", "", "FILE", "Write the new recovery key to a new file, unseen"),
    Option("blob", "b", "[NAME=]PATH", "A file, or the directory, of blobs; empty removes all"),
    Option("avatar", "", "PATH", "Picture of the user"),
    Option("login-background", "", "PATH", "Background picture of the user's login"),
)

BY_OPTION = {row.option: row for row in ROWS}
OPTIONS = (*(row.option for row in ROWS), *SPECIAL, *SOURCES)
