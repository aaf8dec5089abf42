"""What record options do to a user record: fields set and unset, section by section.

Pure: machine id, environment and files come in from outside. Same results as
homectl's for the same options (the tests compare with its real output).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from homemgr.cli import convert
from homemgr.cli.arguments import UsageError, is_utf8
from homemgr.cli.membership import GroupChanges
from homemgr.cli.record_changes import OTHER_MACHINES, FieldChanges
from homemgr.cli.record_options import BY_OPTION, PRIVILEGED, REGULAR, THIS_MACHINE
from homemgr.cli.token_wishes import Wishes
from homemgr.cli.without_secret import WithoutSecret
from homemgr.errors import InvalidRecord
from homemgr.record import storages
from homemgr.record.fields import EXTENSIONS, FIELDS, OWN_STORAGE, OWN_STORAGES, STORAGES
from homemgr.record.names import is_acceptable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from homemgr.cli.arguments import Arguments, Option
    from homemgr.record.jsontext import Json, JsonObject

_MATCHES = {"any": REGULAR, "this": THIS_MACHINE, "other": OTHER_MACHINES, "auto": ""}
_WEIGHT = "rebalanceWeight"


class Edit:
    """The changes that one command line asks for; `apply` makes them."""

    def __init__(self, environment: Mapping[str, str], read_file: Callable[[str], str]) -> None:
        """``read_file`` gives the text of a file named on the command line."""
        self._environment = environment
        self._read_file = read_file
        self._fields = fields = FieldChanges()
        self._sections, self._unset = fields.sections, fields.unset
        self._limits, self._unset_limits = fields.limits, fields.unset_limits
        self._match = ""
        self._groups = GroupChanges()
        self._without_secret = WithoutSecret()
        #: Whether a size was given, which the service has to be told separately.
        self.has_size = False
        self.wants_recovery_key = False
        self.tokens = Wishes()
        self._special: dict[str, Callable[[str], None]] = {
            "P": lambda _: self._set("enforcePasswordPolicy", convert.boolean("no")),
            "A": lambda _: self._choose_match("any"),
            "T": lambda _: self._choose_match("this"),
            "N": lambda _: self._choose_match("other"),
            "match": self._choose_match,
            "alias": lambda text: self._add_names("aliases", text),
            "member-of": self._add_groups,
            "extension": self._add_extensions,
            "activate-without-secret": self._without_secret.take,
            "setenv": self._set_variable,
            "language": self._set_languages,
            "ssh-authorized-keys": self._add_keys,
            "storage": self._set_storage,
            "disk-size": self._set_disk_size,
            "rlimit": self._set_limit,
            "tmp-limit": lambda text: self._set_limit_or_share("tmpLimit", text),
            "dev-shm-limit": lambda text: self._set_limit_or_share("devShmLimit", text),
            "recovery-key": self._want_recovery_key,
            "pkcs11-token-uri": self._take_pkcs11,
            "fido2-device": self._take_fido2,
            "fido2-credential-algorithm": self.tokens.take_algorithm,
            "fido2-with-client-pin": partial(self.tokens.take_switch, "with_pin"),
            "fido2-with-user-presence": partial(self.tokens.take_switch, "with_presence"),
            "fido2-with-user-verification": partial(self.tokens.take_switch, "with_verification"),
        }

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be changed."""
        others = self._groups, self._without_secret, self.wants_recovery_key, self.tokens
        return not self._fields and not any(others)

    def take(self, arguments: Arguments) -> None:
        """Understand all record options of a command line; raises UsageError for a bad value."""
        # In the order given: --match= is for what follows it, and a later value wins.
        for option, text in arguments.given:
            try:
                self._take(option, text)
            except ValueError as error:
                raise UsageError(f"{option.shown}={text}: expected {error}.") from error
            except InvalidRecord as error:
                reason = error.message.partition(": ")[2]
                raise UsageError(f"{option.shown}={text}: {reason}") from error

    def _take(self, option: Option, text: str) -> None:
        row = BY_OPTION.get(option)
        special = self._special.get(option.name or option.short)
        # Names of files may be any bytes, what a record holds may not.
        if (row or special) and not text.startswith("@") and not is_utf8(text):
            raise ValueError("text in UTF-8")
        if row is None:
            if special:
                special(text)
        elif text == "":
            self._drop(row.field)
        else:
            if row.field == _WEIGHT:
                # That which a size sets for this machine would win over it.
                self._drop(_WEIGHT)
            self._set(row.field, row.convert(text), row.section)

    # --- one field -----------------------------------------------------------------

    def _set(self, field: str, value: Json, section: str = REGULAR) -> None:
        # Checked here to name the option; the service checks the record again.
        rule = FIELDS[field]
        rule.rule.read(value, f".{field}")
        # Redirected only where the field may stand: names and secrets are for all machines.
        if self._match and section != PRIVILEGED and "M" in rule.sections:
            section = self._match
        self._sections[section][field] = value

    def _drop(self, *fields: str) -> None:
        # Both: an earlier option of this command line, and what the record holds.
        for field in fields:
            for section in self._sections.values():
                section.pop(field, None)
            self._unset.add(field)

    def _so_far(self, field: str, section: str = REGULAR) -> list[str]:
        target = self._match if self._match and section != PRIVILEGED else section
        value = self._sections[target].get(field)
        return [str(item) for item in value] if isinstance(value, list) else []

    # --- options with rules of their own ----------------------------------------------

    def _choose_match(self, word: str) -> None:
        if word not in _MATCHES:
            raise ValueError("any, this, other or auto")
        self._match = _MATCHES[word]

    def _add_names(self, field: str, text: str) -> None:
        if not text:
            self._drop(field)
            return
        names = convert.words(text)
        if not all(is_acceptable(name) for name in names):
            raise ValueError("names with commas")
        merged: list[Json] = [*sorted({*self._so_far(field), *names})]
        self._set(field, merged)

    def _add_groups(self, text: str) -> None:
        is_for_all = self._match not in (THIS_MACHINE, OTHER_MACHINES)
        if not self._groups.take(convert.words(text), is_for_all=is_for_all):
            self._add_names("memberOf", text)

    def _add_extensions(self, text: str) -> None:
        if not text:
            self._drop(EXTENSIONS)
            return
        # In the order given: extensions that come first lie on top.
        names = [*self._so_far(EXTENSIONS), *convert.words(text)]
        if not all(name.removeprefix("+") for name in names):
            raise ValueError("names of extensions with commas")
        merged: list[Json] = [*dict.fromkeys(names)]
        self._set(EXTENSIONS, merged)

    def _set_variable(self, text: str) -> None:
        if not text:
            self._drop("environment")
            return
        name, equals, _ = text.partition("=")
        if not equals:
            # As with env(1) for services: the name alone passes our own value on.
            if name not in self._environment:
                return
            text = f"{name}={self._environment[name]}"
        others = [item for item in self._so_far("environment") if item.partition("=")[0] != name]
        merged: list[Json] = [*sorted([*others, text])]
        self._set("environment", merged)

    def _set_languages(self, text: str) -> None:
        if not text:
            self._drop("preferredLanguage", "additionalLanguages")
            return
        given = [str(item) for item in text.replace(":", ",").split(",") if item]
        first = self._sections[REGULAR].get("preferredLanguage")
        known = [str(first)] if first else []
        known += self._so_far("additionalLanguages")
        languages = list(dict.fromkeys([*known, *given]))
        self._set("preferredLanguage", languages[0])
        if languages[1:]:
            more: list[Json] = [*languages[1:]]
            self._set("additionalLanguages", more)
        else:
            self._drop("additionalLanguages")

    def _add_keys(self, text: str) -> None:
        if not text:
            self._drop("sshAuthorizedKeys")
            return
        lines = self._read_file(text[1:]).splitlines() if text.startswith("@") else [text]
        keys = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        known = self._so_far("sshAuthorizedKeys", PRIVILEGED)
        merged: list[Json] = [*dict.fromkeys([*known, *keys])]
        self._set("sshAuthorizedKeys", merged, PRIVILEGED)

    def _set_storage(self, text: str) -> None:
        self._drop("storage", OWN_STORAGE)
        if text not in ("", *STORAGES, *OWN_STORAGES):
            raise ValueError(f"one of {', '.join((*STORAGES, *OWN_STORAGES))}")
        if text in OWN_STORAGES:
            # For all machines: where clients of systemd-homed do not warn of it.
            self._set(OWN_STORAGE, text)
            self._set("storage", str(storages.members(text)["storage"]))
        elif text:
            self._set("storage", text, THIS_MACHINE)

    def _set_disk_size(self, text: str) -> None:
        self._drop("diskSize", "diskSizeRelative")
        self.has_size = bool(text)
        if not text:
            self._drop(_WEIGHT)
        else:
            if convert.is_share(text):
                self._set("diskSizeRelative", convert.share(text), THIS_MACHINE)
            else:
                # Whole blocks, as homectl rounds.
                self._set("diskSize", convert.size(text) & ~0xFFF, THIS_MACHINE)
            # Who names a size does not want it changed behind his back.
            self._set(_WEIGHT, 0, THIS_MACHINE)

    def _set_limit_or_share(self, field: str, text: str) -> None:
        self._drop(field, f"{field}Scale")
        if text and convert.is_share(text):
            self._set(f"{field}Scale", convert.share(text))
        elif text:
            self._set(field, convert.size(text))

    def _set_limit(self, text: str) -> None:
        if not text:
            self._drop("resourceLimits")
            self._limits.clear()
            return
        # `--rlimit=NAME=` takes one limit back, `--rlimit=` all of them.
        if text.endswith("="):
            name = convert.limit(f"{text}0")[0]
            self._limits.pop(name, None)
            self._unset_limits.add(name)
            return
        name, value = convert.limit(text)
        self._limits[name] = value

    def _want_recovery_key(self, text: str) -> None:
        self.wants_recovery_key = bool(convert.boolean(text))
        self._drop("recoveryKey", "recoveryKeyType")

    def _take_pkcs11(self, text: str) -> None:
        if not text:
            self._drop("pkcs11TokenUri", "pkcs11EncryptedKey")
        self.tokens.take_uri(text)

    def _take_fido2(self, text: str) -> None:
        if not text:
            self._drop("fido2HmacCredential", "fido2HmacSalt")
        self.tokens.take_device(text)

    # --- making the changes ---------------------------------------------------------------

    def apply(self, record: JsonObject, machine_id: str) -> JsonObject:
        """A copy of ``record`` with the changes made."""
        result = self._fields.applied_to(record, machine_id)
        result = self._without_secret.applied_to(self._groups.applied_to(result), machine_id)
        return {k: v for k, v in result.items() if k != "privileged" or v}
