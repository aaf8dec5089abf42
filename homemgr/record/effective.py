"""What a record comes to on one machine: every field's effective value, typed.

Knows the merge order (regular, matching perMachine entries, binding, status) and
the defaults of the table; decides nothing. Values that cannot be read are passed
over, as homed does for records that exist already.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, cast

from homemgr.errors import InvalidRecord
from homemgr.record import names
from homemgr.record.fields import FIELDS, HOME_MODE, IDMAP_POLICY, OWN_STORAGES, UNASKED_ON, UNITED
from homemgr.record.storages import named_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from homemgr.record.fields import Field
    from homemgr.record.jsontext import Json, JsonObject
    from homemgr.record.machine import Machine

# What a line of /etc/passwd cannot hold.
_NOT_IN_GECOS = re.compile(r"[\x00-\x1f\x7f:]")
_UNSET: Final = object()


class EffectiveRecord:
    """A record seen from one machine. Reads on demand, keeps what it has read."""

    __slots__ = ("_data", "_entries", "_values", "machine")

    def __init__(self, data: JsonObject, machine: Machine) -> None:
        """View ``data``, whose sections have their shape (UserRecord sees to that)."""
        self.machine: Final = machine
        self._data = data
        self._values: dict[str, object] = {}
        entries = data.get("perMachine")
        listed = entries if isinstance(entries, list) else []
        self._entries = [e for e in listed if isinstance(e, dict) and machine.matches(e)]

    def get(self, name: str) -> Json:
        """The effective value of any field of the table, or its default."""
        # Read when first asked for: most fields of most records never are.
        value = self._values.get(name, _UNSET)
        if value is _UNSET:
            value = self._values[name] = self._read(FIELDS[name])
        return cast("Json", value)

    def is_set(self, name: str) -> bool:
        """Whether the record gives the field a value; a later null takes it back."""
        last: Json = None
        for value in self._given(FIELDS[name]):
            last = value
        return last is not None

    def _read(self, field: Field) -> Json:
        result: Json = None
        for value in self._given(field):
            if field.name in UNITED and isinstance(value, list) and isinstance(result, list):
                result = [*result, *(item for item in value if item not in result)]
            else:
                result = value
        return field.default if result is None else result

    def _given(self, field: Field) -> Iterator[Json]:
        """Values of a field in the order in which they replace each other."""
        for section in self._sections(field):
            if field.name == "storage" and named_in(section) in OWN_STORAGES:
                yield named_in(section)
            elif field.name in section:
                value = section[field.name]
                try:
                    yield None if value is None else field.rule.read(value, "")
                except InvalidRecord:
                    continue  # read as homed does: what it cannot read is not there

    def _sections(self, field: Field) -> Iterator[Mapping[str, Json]]:
        letters = field.sections
        if "R" in letters:
            yield self._data
        if "P" in letters:
            yield self._object("privileged")
        if "M" in letters:
            yield from self._entries
        if "B" in letters:
            yield self._local("binding")
        if "S" in letters:
            yield self._local("status")

    def _object(self, name: str) -> Mapping[str, Json]:
        value = self._data.get(name)
        return value if isinstance(value, dict) else {}

    def _local(self, name: str) -> Mapping[str, Json]:
        value = self._object(name).get(self.machine.id)
        return value if isinstance(value, dict) else {}

    # --- typed reading -----------------------------------------------------------
    # The rules of the table have settled the types; these only tell the checker.

    def _number(self, name: str) -> int | None:
        return cast("int | None", self.get(name))

    def _certain_number(self, name: str) -> int:
        return cast("int", self.get(name))

    def _text(self, name: str) -> str | None:
        return cast("str | None", self.get(name))

    def _certain_text(self, name: str) -> str:
        return cast("str", self.get(name))

    def _flag(self, name: str) -> bool:
        return bool(self.get(name))

    def _texts(self, name: str) -> tuple[str, ...]:
        return tuple(cast("list[str]", self.get(name)))

    # --- identity --------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The primary user name."""
        return self._certain_text("userName")

    @property
    def realm(self) -> str | None:
        """The realm, or None."""
        return self._text("realm")

    @property
    def user_and_realm(self) -> str:
        """``user@realm``, or the plain name without a realm."""
        return names.with_realm(self.name, self.realm)

    @property
    def uid(self) -> int | None:
        """The user's id on this machine; None while there is none."""
        return self._number("uid")

    @property
    def gid(self) -> int | None:
        """The group's id: the uid unless the record says otherwise."""
        # The defaults of the two are one: homes have no group but their own.
        gid = self._number("gid")
        return self.uid if gid is None else gid

    @property
    def real_name(self) -> str:
        """The name for people, with what /etc/passwd cannot hold made blank."""
        return _NOT_IN_GECOS.sub(" ", self._text("realName") or self.name)

    @property
    def member_of(self) -> tuple[str, ...]:
        """Names of further groups."""
        return self._texts("memberOf")

    @property
    def aliases(self) -> tuple[str, ...]:
        """Further names of the user."""
        return self._texts("aliases")

    @property
    def lookup_names(self) -> tuple[str, ...]:
        """Every name the user is found under: primary and aliases, plain and with realm."""
        plain = dict.fromkeys((self.name, *self.aliases))
        realm = self.realm
        return (*plain, *(names.with_realm(n, realm) for n in plain)) if realm else tuple(plain)

    @property
    def shell(self) -> str:
        """The login shell, also while a fallback holds."""
        return self._certain_text("shell")

    @property
    def service(self) -> str | None:
        """The service that answers for the user."""
        return self._text("service")

    @property
    def disposition(self) -> str | None:
        """What kind of user it is."""
        return self._text("disposition")

    # --- credentials and access --------------------------------------------------------

    @property
    def hashed_passwords(self) -> tuple[str, ...]:
        """crypt(3) hashes."""
        return self._texts("hashedPassword")

    @property
    def recovery_key_hashes(self) -> tuple[str, ...]:
        """crypt(3) hashes of recovery keys of the one kind there is."""
        return self._hashes_of("recoveryKey")

    @property
    def token_hashes(self) -> tuple[str, ...]:
        """crypt(3) hashes of what security tokens decrypt to."""
        return (*self._hashes_of("pkcs11EncryptedKey"), *self._hashes_of("fido2HmacSalt"))

    @property
    def pkcs11_keys(self) -> list[dict[str, str]]:
        """Keys that PKCS#11 tokens decrypt: uri, data in base64, hashedPassword, maybe padding."""
        return cast("list[dict[str, str]]", self.get("pkcs11EncryptedKey"))

    @property
    def fido2_salts(self) -> list[dict[str, str | bool]]:
        """What FIDO2 tokens make secrets of: credential and salt in base64, how to ask, hash."""
        return cast("list[dict[str, str | bool]]", self.get("fido2HmacSalt"))

    def _hashes_of(self, name: str) -> tuple[str, ...]:
        entries = cast("list[dict[str, str]]", self.get(name))
        return tuple(entry["hashedPassword"] for entry in entries)

    @property
    def ssh_authorized_keys(self) -> tuple[str, ...]:
        """Keys sshd accepts."""
        return self._texts("sshAuthorizedKeys")

    @property
    def password_hint(self) -> str | None:
        """What is to remind the user of his password."""
        return self._text("passwordHint")

    @property
    def enforce_password_policy(self) -> bool:
        """Whether weak passwords are refused."""
        return self._flag("enforcePasswordPolicy")

    @property
    def auto_login(self) -> bool:
        """Whether the user is logged in at boot."""
        return self._flag("autoLogin")

    @property
    def locked(self) -> bool:
        """Whether the account is closed; the login stack enforces it, not the service."""
        return self._flag("locked")

    @property
    def not_before_usec(self) -> int | None:
        """When logging in begins to be allowed."""
        return self._number("notBeforeUSec")

    @property
    def not_after_usec(self) -> int | None:
        """When logging in ends to be allowed."""
        return self._number("notAfterUSec")

    @property
    def last_password_change_usec(self) -> int | None:
        """When the password was changed last."""
        return self._number("lastPasswordChangeUSec")

    @property
    def password_change_min_usec(self) -> int | None:
        """Least time between two password changes."""
        return self._number("passwordChangeMinUSec")

    @property
    def password_change_max_usec(self) -> int | None:
        """Longest life of a password."""
        return self._number("passwordChangeMaxUSec")

    @property
    def password_change_warn_usec(self) -> int | None:
        """How long before its end users are warned."""
        return self._number("passwordChangeWarnUSec")

    @property
    def password_change_inactive_usec(self) -> int | None:
        """How long after its end a change is still possible."""
        return self._number("passwordChangeInactiveUSec")

    @property
    def password_change_now(self) -> bool:
        """Whether a change is asked for at the next login."""
        return self._flag("passwordChangeNow")

    @property
    def rate_limit_interval_usec(self) -> int:
        """Window of the login limit."""
        return self._certain_number("rateLimitIntervalUSec")

    @property
    def rate_limit_burst(self) -> int:
        """Attempts in one window."""
        return self._certain_number("rateLimitBurst")

    @property
    def rate_limit_begin_usec(self) -> int | None:
        """When the current window began."""
        return self._number("rateLimitBeginUSec")

    @property
    def rate_limit_count(self) -> int:
        """Attempts counted in the current window."""
        return self._certain_number("rateLimitCount")

    @property
    def good_authentication_counter(self) -> int:
        """Authentications that worked."""
        return self._certain_number("goodAuthenticationCounter")

    @property
    def last_good_authentication_usec(self) -> int | None:
        """When one worked last."""
        return self._number("lastGoodAuthenticationUSec")

    @property
    def bad_authentication_counter(self) -> int:
        """Authentications that failed."""
        return self._certain_number("badAuthenticationCounter")

    @property
    def self_modifiable_fields(self) -> tuple[str, ...]:
        """Regular fields the user may change."""
        return self._texts("selfModifiableFields")

    @property
    def self_modifiable_blobs(self) -> tuple[str, ...]:
        """Blobs the user may change."""
        return self._texts("selfModifiableBlobs")

    @property
    def self_modifiable_privileged(self) -> tuple[str, ...]:
        """Privileged fields the user may change."""
        return self._texts("selfModifiablePrivileged")

    # --- the home ------------------------------------------------------------------------

    @property
    def home_directory(self) -> str:
        """Where the home is mounted."""
        # Under the home root of this machine, which need not be /home.
        return self._text("homeDirectory") or f"{self.machine.home_root}/{self.name}"

    # No default here: where new homes lie is the service's choice, not the record's.

    @property
    def image_path(self) -> str | None:
        """Where the home is stored; None if the record does not say.

        On a file server that begins with two slashes, which no path here does.
        """
        if self.storage == "cifs":
            return f"//{(self._text('cifsService') or '').lstrip('/')}"
        return self._text("imagePath")

    @property
    def storage(self) -> str | None:
        """How the home is stored; None if the record does not say."""
        return self._text("storage")

    @property
    def idmap_policy(self) -> str:
        """ "strict": only the user maps; "homed": the wider ranges of systemd-homed."""
        return self._certain_text(IDMAP_POLICY)

    @property
    def home_mode(self) -> str:
        """ "normal"; "ephemeral": what is written is gone at logout; "read-only"."""
        return self._certain_text(HOME_MODE)

    @property
    def without_secret(self) -> bool:
        """Whether this machine is one where root may have the home without a secret."""
        return self.machine.id in self._texts(UNASKED_ON)

    @property
    def access_mode(self) -> int:
        """Mode of the top directory."""
        return self._certain_number("accessMode")

    @property
    def skeleton_directory(self) -> str:
        """What a new home starts with."""
        return self._certain_text("skeletonDirectory")

    @property
    def mount_nosuid(self) -> bool:
        """Whether set-user-id programs of the home are ineffective."""
        return self._flag("mountNoSuid")

    @property
    def mount_nodev(self) -> bool:
        """Whether device nodes in the home are ineffective."""
        return self._flag("mountNoDevices")

    @property
    def mount_noexec(self) -> bool:
        """Whether programs in the home cannot be run."""
        return self._flag("mountNoExecute")

    @property
    def disk_size(self) -> int | None:
        """Most bytes of the home."""
        return self._number("diskSize")

    @property
    def blob_directory(self) -> str | None:
        """The host's copy of pictures and the like."""
        return self._text("blobDirectory")

    @property
    def blob_manifest(self) -> dict[str, str] | None:
        """SHA-256 of each blob by file name; None if the record has no manifest."""
        if not self.is_set("blobManifest"):
            return None
        return dict(cast("dict[str, str]", self.get("blobManifest")))
