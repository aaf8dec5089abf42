"""Which user gets which extensions: the administrator's rules, the record, the user's own choice.

Reads ``homemgr/extensions.conf`` with its drop-ins; keeps users' choices as one
small file each. Opens no extension and mounts nothing: that is the worker's.
"""

from __future__ import annotations

import configparser
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from homemgr import errors, files
from homemgr.daemon.config import config_files
from homemgr.record.fields import EXTENSION_MUTABILITY, EXTENSIONS, MUTABILITIES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from homemgr.record.effective import EffectiveRecord

CONFIG = "homemgr/extensions.conf"
DIRECTORIES = tuple(
    f"{root}/homemgr/extensions" for root in ("/etc", "/run", "/var/lib", "/usr/lib")
)

_SECTION = "Extension "
_GENERAL = "Extensions"
_MAX_CHOICES_BYTES = 64 * 1024


class Wanted(NamedTuple):
    """One extension a user shall have."""

    name: str
    #: True if a login without it has to be refused.
    is_required: bool


@dataclass(frozen=True)
class Rule:
    """What the administrator says about one extension."""

    #: User names, ``@group`` for a group of the record, ``*`` for everybody: who has it.
    users: tuple[str, ...] = ()
    #: The same: who may choose it.
    optional: tuple[str, ...] = ()
    is_required: bool = False


@dataclass(frozen=True)
class Rules:
    """The administrator's rules, fixed at the service's start."""

    extensions: Mapping[str, Rule]
    mutability: str = "yes"
    #: Where extensions are looked for; a name in an earlier one masks later ones.
    directories: tuple[str, ...] = DIRECTORIES
    #: Whether files of root in read-only images may be shown as the user's.
    maps_root: bool = True
    #: Whether an image with a signature this kernel cannot check is refused.
    needs_signature: bool = True


class Choices:
    """What users chose for themselves, on disk below one root-owned directory."""

    def __init__(self, directory: str) -> None:
        """Keep choices in ``directory``, which is made when needed."""
        self._directory = directory

    def of(self, user: str) -> tuple[str, ...]:
        """The names ``user`` chose; an unreadable file counts as none."""
        try:
            text = files.read_bounded(self._directory, f"{user}.json", _MAX_CHOICES_BYTES)
            names = json.loads(text)
        except (FileNotFoundError, ValueError):
            return ()
        return tuple(str(name) for name in names) if isinstance(names, list) else ()

    def store(self, user: str, names: Iterable[str]) -> None:
        """Remember the choices of ``user``; raises NoDiskSpace and SystemFailure."""
        os.makedirs(self._directory, 0o700, exist_ok=True)
        text = json.dumps(sorted(set(names))).encode() + b"\n"
        try:
            files.write_atomically(self._directory, f"{user}.json", text, 0o600)
        except OSError as error:
            raise errors.from_os_error(error, f"Saving the extensions {user} chose") from error

    def forget(self, user: str) -> None:
        """Drop the choices of ``user``: who has the name next has not chosen anything."""
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(self._directory, f"{user}.json"))


def load(environment: Mapping[str, str]) -> Rules:
    """The rules in the configuration files; raises InvalidArgs naming file and option."""
    extensions: dict[str, Rule] = {}
    general: dict[str, str] = {}
    for path in config_files(CONFIG, environment.get("HOMEMGR_EXTENSIONS_CONFIG")):
        for section, options in _sections(path):
            if section == _GENERAL:
                general.update(options)
            elif section.startswith(_SECTION):
                extensions[section.removeprefix(_SECTION).strip()] = _rule(path, section, options)
            else:
                raise errors.InvalidArgs(
                    f"{path}: unknown section [{section}]; expected [{_GENERAL}] or"
                    f" [{_SECTION}NAME]."
                )
    mutability = general.get("mutable", "yes")
    if mutability not in MUTABILITIES:
        raise errors.InvalidArgs(
            f"Mutable={mutability}: expected one of {', '.join(MUTABILITIES)}."
        )
    return Rules(
        extensions,
        mutability,
        tuple(environment.get("HOMEMGR_EXTENSION_PATH", ":".join(DIRECTORIES)).split(":")),
        _boolean("MapRoot", general.get("maproot", "yes")),
        _boolean("RequireSignature", general.get("requiresignature", "yes")),
    )


def wanted(rules: Rules, effective: EffectiveRecord, chosen: Iterable[str]) -> list[Wanted]:
    """What this user gets, in order: the administrator's, the record's, the user's own."""
    found: dict[str, bool] = {}
    for name, rule in sorted(rules.extensions.items()):
        if _applies(rule.users, effective):
            found[name] = rule.is_required
    for entry in _texts(effective.get(EXTENSIONS)):
        name = entry.removeprefix("+")
        found[name] = found.get(name, False) or entry.startswith("+")
    for name in chosen:
        if may_choose(rules, effective, name):
            found.setdefault(name, False)
    return [Wanted(name, is_required) for name, is_required in found.items()]


def may_choose(rules: Rules, effective: EffectiveRecord, name: str) -> bool:
    """True if the administrator lets this user choose ``name``."""
    rule = rules.extensions.get(name)
    return rule is not None and _applies(rule.optional, effective)


def mutability(rules: Rules, effective: EffectiveRecord) -> str:
    """How merged directories take writes: the record's word, or the administrator's."""
    asked = effective.get(EXTENSION_MUTABILITY)
    return asked if isinstance(asked, str) else rules.mutability


def _applies(users: tuple[str, ...], effective: EffectiveRecord) -> bool:
    groups = {f"@{group}" for group in (*effective.member_of, effective.name)}
    return any(word in ("*", effective.name) or word in groups for word in users)


def _texts(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, (list, tuple)) else []


def _sections(path: str) -> list[tuple[str, dict[str, str]]]:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(Path(path).read_text(encoding="utf-8"), source=path)
    except FileNotFoundError:
        return []
    except (configparser.Error, UnicodeDecodeError) as error:
        raise errors.InvalidArgs(f"{path}: {error}") from error
    return [(name, dict(parser.items(name))) for name in parser.sections()]


def _rule(path: str, section: str, options: Mapping[str, str]) -> Rule:
    unknown = set(options) - {"users", "optional", "required"}
    if unknown:
        raise errors.InvalidArgs(
            f"{path}: [{section}] has unknown options {', '.join(sorted(unknown))};"
            " expected Users=, Optional=, Required=."
        )
    return Rule(
        tuple(options.get("users", "").split()),
        tuple(options.get("optional", "").split()),
        _boolean(f"{path}: [{section}] Required", options.get("required", "no")),
    )


def _boolean(name: str, text: str) -> bool:
    if text.lower() in ("1", "yes", "true", "on"):
        return True
    if text.lower() in ("0", "no", "false", "off"):
        return False
    raise errors.InvalidArgs(f"{name}={text}: expected yes or no.")
