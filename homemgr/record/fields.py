"""THE table of user record fields: one row per field, everything else is driven by it.

Adding a field is adding a row. Knows names, sections, types and defaults; what a
field means is its user's business. Implements systemd.io/USER_RECORD as of 262,
and the few fields of our own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from homemgr.record import rules
from homemgr.record.jsontext import share_keys
from homemgr.record.rules import Rule, choice, number, octal

if TYPE_CHECKING:
    from homemgr.record.jsontext import Json

MIB: Final = 1 << 20
MIN_DISK_SIZE: Final = 5 * MIB
MAX_DISK_SIZE: Final = 5 << 40
SERVICE: Final = "io.systemd.Home"
STORAGES: Final = ("luks", "directory", "subvolume", "fscrypt", "cifs")
#: Storages of ours, which systemd-homed has no name for; beside `storage`, see `storages`.
OWN_STORAGE: Final = "org.homemgr.storage"
OWN_STORAGES: Final = ("image",)
#: How wide a home's idmap is: "strict" maps its user alone, "homed" what systemd-homed maps.
IDMAP_POLICY: Final = "org.homemgr.idmapPolicy"
#: Names of extensions merged into the home at login; "+NAME" is required.
EXTENSIONS: Final = "org.homemgr.extensions"
#: How merged directories take writes, as in systemd-sysext(8).
EXTENSION_MUTABILITY: Final = "org.homemgr.extensionMutability"
MUTABILITIES: Final = ("no", "yes", "ephemeral", "import", "ephemeral-import")
#: Whether the home is shown as it is, or as a whole through an overlay.
HOME_MODE: Final = "org.homemgr.homeMode"
#: Machines, by their id, on which the home is activated without a secret; see `unasked`.
UNASKED_ON: Final = "org.homemgr.activateWithoutSecretOn"
HOME_MODES: Final = ("normal", "ephemeral", "read-only")
#: Names that people gave to what unlocks the home: name -> hash. See `slots`.
SLOT_NAMES: Final = "org.homemgr.slots"

#: Where each letter of a field's sections is found: regular member, privileged, matching
#: perMachine entry, this machine's binding, this machine's status, secret.
SECTION_LETTERS: Final = "RPMBSX"


class Field(NamedTuple):
    """One field: where it may stand, what it may be, what holds if it is unset."""

    name: str
    sections: str
    rule: Rule
    default: Json = None
    doc: str = ""


_ON: Final = True
_OFF: Final = False
_DIRECTORY = rules.PATH
_SIZE = number(MIN_DISK_SIZE, MAX_DISK_SIZE)
_USEC = rules.UNSIGNED
_DEFAULT_SELF_FIELDS: list[Json] = [
    "realName", "emailAddress", "iconName", "location", "shell", "umask", "environment",
    "timeZone", "preferredLanguage", "additionalLanguages", "preferredSessionLauncher",
    "preferredSessionType", "defaultArea", "pkcs11TokenUri", "fido2HmacCredential",
    "recoveryKeyType", "lastChangeUSec", "lastPasswordChangeUSec",
]  # fmt: skip
_DEFAULT_SELF_BLOBS: list[Json] = ["avatar", "login-background"]
_DEFAULT_SELF_PRIVILEGED: list[Json] = [
    "passwordHint", "hashedPassword", "pkcs11EncryptedKey", "fido2HmacSalt", "recoveryKey",
    "sshAuthorizedKeys",
]  # fmt: skip

_IDENTITY = (
    Field("userName", "R", rules.USER_NAME, None, "Name of the user."),
    Field("realm", "R", rules.REALM, None, "DNS name of the organisation the user belongs to."),
    Field("aliases", "RS", rules.USER_NAMES, [], "Further names the user is found under."),
    Field("uuid", "R", rules.UUID, None, "UUID of the user."),
    Field(
        "disposition", "R",
        choice("intrinsic", "system", "dynamic", "regular", "container", "foreign", "reserved"),
        None, "What kind of user it is.",
    ),
    Field("realName", "R", rules.TEXT, None, "Name as written for people."),
    Field("emailAddress", "R", rules.LINE, None, "Mail address."),
    Field("birthDate", "R", rules.DATE, None, "Date of birth."),
    Field("iconName", "RM", rules.TEXT, None, "Icon of the user."),
    Field("location", "RM", rules.TEXT, None, "Where the user is found."),
    Field("lastChangeUSec", "R", _USEC, None, "When the record was changed last."),
    Field("lastPasswordChangeUSec", "R", _USEC, None, "When the password was changed last."),
    Field("service", "RS", rules.TEXT, None, "Service that answers for the user."),
    Field("uid", "RMB", rules.UID, None, "Numeric user id."),
    Field("gid", "RMB", rules.UID, None, "Numeric group id, equal to the user id."),
    Field("memberOf", "RM", rules.GROUP_NAMES, [], "Further groups of the user."),
)  # fmt: skip

# For logind and the session; this service hands them through.
_SESSION = (
    Field("shell", "RM", rules.SHELL, "/bin/bash", "Login shell."),
    Field("umask", "RM", octal(0o777), None, "File mode creation mask."),
    Field("environment", "RM", rules.ENVIRONMENT, [], "Environment variables of sessions."),
    Field("timeZone", "RM", rules.TEXT, None, "Time zone."),
    Field("preferredLanguage", "RM", rules.TEXT, None, "Locale of sessions."),
    Field("additionalLanguages", "RM", rules.TEXTS, [], "Further locales to be made."),
    Field("niceLevel", "RM", number(-20, 19), None, "Nice level of sessions."),
    Field("resourceLimits", "RM", rules.RESOURCE_LIMITS, {}, "Limits as of setrlimit(2)."),
    Field("tasksMax", "RM", number(1), None, "Most tasks at a time."),
    Field("memoryHigh", "RM", number(1), None, "Memory from which on the user is slowed down."),
    Field("memoryMax", "RM", number(1), None, "Most memory."),
    Field("cpuWeight", "RM", number(1, 10000), None, "Share of processor time."),
    Field("ioWeight", "RM", number(1, 10000), None, "Share of disk bandwidth."),
    Field("capabilityBoundingSet", "RM", rules.TEXTS, None, "Most capabilities of sessions."),
    Field("capabilityAmbientSet", "RM", rules.TEXTS, None, "Capabilities given to sessions."),
    Field("preferredSessionType", "RM", rules.TEXT, None, "Session type: x11, wayland."),
    Field("preferredSessionLauncher", "RM", rules.TEXT, None, "Desktop session."),
    Field("defaultArea", "RMS", rules.FILE_NAME, None, "Area used when none is named."),
    Field("tmpLimit", "RM", rules.UNSIGNED, None, "Bytes the user may use in /tmp."),
    Field("devShmLimit", "RM", rules.UNSIGNED, None, "Bytes the user may use in /dev/shm."),
    Field("tmpLimitScale", "RM", rules.SCALE, None, "The same for /tmp, 2^32-1 is all."),
    Field("devShmLimitScale", "RM", rules.SCALE, None, "The same for /dev/shm."),
    Field("stopDelayUSec", "RM", _USEC, None, "How long services outlive the last session."),
    Field("killProcesses", "RM", rules.BOOLEAN, None, "End all processes with the session."),
    Field("autoLogin", "RM", rules.BOOLEAN, _OFF, "Log in at boot without asking."),
)  # fmt: skip

# Enforced by the login stack, except the rate limit and the self service.
_ACCESS = (
    Field("locked", "RM", rules.BOOLEAN, _OFF, "No login at all."),
    Field("notBeforeUSec", "RM", _USEC, None, "No login before."),
    Field("notAfterUSec", "RM", _USEC, None, "No login after."),
    Field("passwordChangeMinUSec", "RM", _USEC, None, "Least time between password changes."),
    Field("passwordChangeMaxUSec", "RM", _USEC, None, "Longest life of a password."),
    Field("passwordChangeWarnUSec", "RM", _USEC, None, "Warn this long before it ends."),
    Field("passwordChangeInactiveUSec", "RM", _USEC, None, "Change still possible for so long."),
    Field("passwordChangeNow", "RM", rules.BOOLEAN, _OFF, "Change asked for at next login."),
    Field("enforcePasswordPolicy", "RM", rules.BOOLEAN, _ON, "Refuse weak passwords."),
    Field("rateLimitIntervalUSec", "RM", _USEC, 60_000_000, "Window of the login limit."),
    Field("rateLimitBurst", "RM", _USEC, 30, "Attempts in one window."),
    Field("selfModifiableFields", "RM", rules.TEXTS, _DEFAULT_SELF_FIELDS,
          "Fields the user may change."),
    Field("selfModifiableBlobs", "RM", rules.TEXTS, _DEFAULT_SELF_BLOBS,
          "Blobs the user may change."),
    Field("selfModifiablePrivileged", "RM", rules.TEXTS, _DEFAULT_SELF_PRIVILEGED,
          "Privileged fields the user may change."),
    Field("pkcs11TokenUri", "RM", rules.TEXT_OR_TEXTS, [], "Security tokens of the user."),
    Field("fido2HmacCredential", "RM", rules.ListOf(rules.BASE64), [], "FIDO2 tokens."),
    Field("recoveryKeyType", "R", rules.TEXT_OR_TEXTS, [], "Kinds of recovery keys there are."),
)  # fmt: skip

# What storage and mount need; the luks and cifs ones as far as homed knows them.
_HOME = (
    Field("storage", "RMB", choice(*STORAGES), None, "How the home is stored."),
    Field(OWN_STORAGE, "RM", choice(*OWN_STORAGES), None, "The same where it has no such name."),
    Field("homeDirectory", "RB", rules.HOME_PATH, None, "Where the home is mounted."),
    Field("imagePath", "RMB", rules.IMAGE_PATH, None, "Where the home is stored."),
    Field("blobDirectory", "RMB", _DIRECTORY, None, "Host copy of pictures and the like."),
    Field("blobManifest", "RM", rules.BLOB_MANIFEST, {}, "SHA-256 of each blob."),
    Field("skeletonDirectory", "RM", _DIRECTORY, "/etc/skel", "Files a new home starts with."),
    Field("accessMode", "RMS", octal(0o7777), 0o700, "Mode of the top directory."),
    Field("mountNoSuid", "RM", rules.BOOLEAN, _ON, "Mount nosuid."),
    Field("mountNoDevices", "RM", rules.BOOLEAN, _ON, "Mount nodev."),
    Field("mountNoExecute", "RM", rules.BOOLEAN, _OFF, "Mount noexec."),
    Field(IDMAP_POLICY, "RB", choice("strict", "homed"), "homed", "Ids other than the user's."),
    Field(EXTENSIONS, "R", rules.TEXT_OR_TEXTS, [], "Extensions merged at login, +NAME required."),
    Field(
        EXTENSION_MUTABILITY,
        "R",
        choice(*MUTABILITIES),
        None,
        "How directories with extensions take writes.",
    ),
    Field(HOME_MODE, "RM", choice(*HOME_MODES), "normal", "What becomes of all that is written."),
    Field(
        UNASKED_ON,
        "R",
        rules.TEXT_OR_TEXTS,
        [],
        "Machines on which root activates the home without a secret.",
    ),
    Field("diskSize", "RMS", _SIZE, None, "Most space of the home."),
    Field("diskSizeRelative", "RM", rules.SCALE, None, "The same as share of free space."),
    Field("dropCaches", "RM", rules.BOOLEAN, None, "Drop caches at logout."),
    Field("autoResizeMode", "RM", rules.RESIZE_MODE, None, "Grow and shrink at login and logout."),
    Field("rebalanceWeight", "RM", rules.WEIGHT, 100, "Share of the common pool."),
    Field("fileSystemType", "RMBS", rules.TEXT, None, "File system inside the image."),
    Field("partitionUuid", "RMB", rules.UUID, None, "Partition of the image."),
    Field("luksUuid", "RMB", rules.UUID, None, "LUKS volume of the image."),
    Field("fileSystemUuid", "RMB", rules.UUID, None, "File system of the image."),
    Field("luksCipher", "RMB", rules.TEXT, "aes", "LUKS cipher."),
    Field("luksCipherMode", "RMB", rules.TEXT, "xts-plain64", "LUKS cipher mode."),
    Field("luksVolumeKeySize", "RMB", rules.UNSIGNED, 32, "LUKS key size in bytes."),
    Field("luksPbkdfType", "RM", rules.TEXT, "argon2id", "LUKS key derivation."),
    Field("luksPbkdfHashAlgorithm", "RM", rules.TEXT, "sha512", "Hash of pbkdf2."),
    Field("luksPbkdfTimeCostUSec", "RM", _USEC, 500_000, "Time one unlocking takes."),
    Field("luksPbkdfMemoryCost", "RM", rules.UNSIGNED, 64 * MIB, "Memory one unlocking takes."),
    Field("luksPbkdfParallelThreads", "RM", rules.UNSIGNED, 1, "Threads of one unlocking."),
    Field("luksPbkdfForceIterations", "RM", rules.UNSIGNED, None, "Iterations, not measured."),
    Field("luksSectorSize", "RM", rules.UNSIGNED, None, "Sector size of the LUKS volume."),
    Field("luksDiscard", "RM", rules.SWITCH, None, "Discard while active."),
    Field("luksOfflineDiscard", "RM", rules.SWITCH, None, "Discard at logout."),
    Field("luksExtraMountOptions", "RM", rules.TEXT, None, "Further mount options."),
    Field("cifsExtraMountOptions", "RM", rules.TEXT, None, "Further mount options."),
    Field("cifsService", "RM", rules.TEXT, None, "Share the home lies on."),
    Field("cifsUserName", "RM", rules.TEXT, None, "User name at the file server."),
    Field("cifsDomain", "RM", rules.TEXT, None, "Domain at the file server."),
)

# Shown to root and the owner only.
_PRIVILEGED = (
    Field("passwordHint", "P", rules.TEXT, None, "Hint shown to the user."),
    Field("hashedPassword", "P", rules.TEXT_OR_TEXTS, [], "crypt(3) hashes."),
    Field("sshAuthorizedKeys", "P", rules.TEXT_OR_TEXTS, [], "Keys sshd accepts."),
    Field("pkcs11EncryptedKey", "P", rules.PKCS11_KEYS, [], "Keys locked by security tokens."),
    Field("fido2HmacSalt", "P", rules.FIDO2_SALTS, [], "Salts for FIDO2 tokens."),
    Field("recoveryKey", "P", rules.RECOVERY_KEYS, [], "Hashes of recovery keys."),
    Field(SLOT_NAMES, "P", rules.SLOT_NAMES, {}, "Names of passwords, keys and tokens."),
)

# Never shown, never stored: they come with a call and go with it.
_SECRET = (
    Field("password", "X", rules.TEXT_OR_TEXTS, [], "Passwords and recovery keys."),
    Field("tokenPin", "X", rules.TEXT_OR_TEXTS, [], "PINs of security tokens."),
    Field("pkcs11Pin", "X", rules.TEXT_OR_TEXTS, [], "Old name of tokenPin."),
    Field("pkcs11ProtectedAuthenticationPathPermitted", "X", rules.BOOLEAN, None,
          "The user knows of the PIN pad."),
    Field("fido2UserPresencePermitted", "X", rules.BOOLEAN, None, "The user will touch the token."),
    Field("fido2UserVerificationPermitted", "X", rules.BOOLEAN, None,
          "The user will identify to the token."),
)  # fmt: skip

# Of this machine and this moment; homed stores the counters and makes up the rest.
_STATUS = (
    Field("state", "S", rules.TEXT, None, "State of the home."),
    Field("useFallback", "S", rules.BOOLEAN, _OFF, "The fallback shell holds."),
    Field("fallbackShell", "S", rules.SHELL, None, "Shell while the home is not active."),
    Field("fallbackHomeDirectory", "S", rules.PATH, None, "Home while it is not active."),
    Field("diskUsage", "S", rules.UNSIGNED, None, "Bytes in use."),
    Field("diskFree", "S", rules.UNSIGNED, None, "Bytes free."),
    Field("diskCeiling", "S", rules.UNSIGNED, None, "Largest size possible now."),
    Field("diskFloor", "S", rules.UNSIGNED, None, "Smallest size possible now."),
    Field("signedLocally", "S", rules.BOOLEAN, None, "Signed by this machine alone."),
    Field("removable", "S", rules.BOOLEAN, None, "On a removable disk."),
    Field("goodAuthenticationCounter", "S", rules.UNSIGNED, 0, "Logins that worked."),
    Field("badAuthenticationCounter", "S", rules.UNSIGNED, 0, "Logins that failed."),
    Field("lastGoodAuthenticationUSec", "S", _USEC, None, "When one worked last."),
    Field("lastBadAuthenticationUSec", "S", _USEC, None, "When one failed last."),
    Field("rateLimitBeginUSec", "S", _USEC, None, "Begin of the window of the login limit."),
    Field("rateLimitCount", "S", rules.UNSIGNED, 0, "Attempts in that window."),
)

#: Every field by name.
FIELDS: Final[dict[str, Field]] = {
    field.name: field
    for field in (*_IDENTITY, *_SESSION, *_ACCESS, *_HOME, *_PRIVILEGED, *_SECRET, *_STATUS)
}

#: Lists that are united over all sections, where other fields are replaced.
UNITED: Final = frozenset({"aliases", "memberOf"})

#: Members of a perMachine entry that say which machines it is for.
MATCH_MEMBERS: Final = ("matchMachineId", "matchNotMachineId", "matchHostname", "matchNotHostname")

#: Members that are sections of their own.
SECTIONS: Final = ("privileged", "perMachine", "binding", "status", "signature", "secret")

share_keys((*FIELDS, *MATCH_MEMBERS, *SECTIONS, "data", "key"))
