"""Where the service keeps things and which choices the administrator made.

Reads ``homemgr.conf`` and, for the options it shares with systemd-homed,
``systemd/homed.conf`` with their drop-ins; environment variables of
systemd-homed are honoured. Knows no home area.
"""

from __future__ import annotations

import configparser
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.record.uids import DEFAULT_RANGE, UidRange

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: Earlier directories mask later ones by file name (systemd.unit(5) order).
CONFIG_ROOTS = ("/etc", "/run", "/usr/local/lib", "/usr/lib")

#: What systemd takes for no.
_NO = ("0", "no", "n", "false", "f", "off")


@dataclass(frozen=True)
class Config:
    """Settings of one daemon, fixed at its start."""

    home_root: str = "/home"
    record_directory: str = "/var/lib/systemd/home"
    blob_root: str = "/var/cache/systemd/home"
    runtime_directory: str = "/run/systemd"
    #: Where passwd, shadow, group and gshadow are.
    account_directory: str = "/etc"
    uid_range: UidRange = DEFAULT_RANGE
    default_storage: str = "directory"
    #: Seconds a home stays mounted after its last reference vanished without a word.
    grace_s: float = 3.0
    fallback_shell: str | None = None
    #: Whether the programs of a user are held still while his home is locked.
    freezes_sessions: bool = True

    @property
    def base_directory(self) -> str:
        """Where new home areas lie: root:root 0700, so that nobody-owned data is out of reach."""
        return os.path.join(self.home_root, ".homemgr")

    @property
    def usual_directories(self) -> tuple[str, str]:
        """Where home areas are looked for that no record describes."""
        return self.base_directory, self.home_root

    def is_usual(self, image_path: str) -> bool:
        """Whether an image of this path lies where images are looked for."""
        return not image_path or os.path.dirname(image_path) in self.usual_directories

    @property
    def reference_directory(self) -> str:
        """Where the reference FIFOs are."""
        return os.path.join(self.runtime_directory, "home")

    @property
    def lock_file(self) -> str:
        """Where a worker locks the home that it works on, see ``work.exclusion``."""
        return os.path.join(self.reference_directory, "homemgr-workers.lock")

    @property
    def choice_directory(self) -> str:
        """Where users' own choices of extensions are kept."""
        if self.record_directory == Config.record_directory:
            return "/var/lib/homemgr/extension-choices"
        return os.path.join(self.record_directory, "extension-choices")

    @property
    def transfer_directory(self) -> str:
        """How far homes are on their way between machines."""
        if self.record_directory == Config.record_directory:
            return "/var/lib/homemgr/transfers"
        return os.path.join(self.record_directory, "transfers")

    @property
    def classic_directory(self) -> str:
        """How far classic accounts are on their way to home areas, and what undoes it."""
        if self.record_directory == Config.record_directory:
            return "/var/lib/homemgr/classic"
        return os.path.join(self.record_directory, "classic")

    @property
    def origin_directory(self) -> str:
        """The machines that homes are accepted from."""
        if self.record_directory == Config.record_directory:
            return "/var/lib/homemgr/origins"
        return os.path.join(self.record_directory, "origins")

    @property
    def stamp_directory(self) -> str:
        """When host copies were changed last, see ``stamps``."""
        if self.record_directory == Config.record_directory:
            return "/var/lib/homemgr/record-stamps"
        return os.path.join(self.record_directory, "record-stamps")

    @property
    def written_directories(self) -> tuple[str, ...]:
        """Where the daemon keeps files that are each written in one step."""
        return (
            self.record_directory,
            self.stamp_directory,
            self.choice_directory,
            self.origin_directory,
            self.classic_directory,
            self.transfer_directory,
            os.path.join(self.transfer_directory, "left"),
        )

    @property
    def userdb_socket(self) -> str:
        """The socket of ``io.systemd.UserDatabase``; its base name is the service name."""
        return os.path.join(self.runtime_directory, "userdb", "io.systemd.Home")

    @property
    def key_directories(self) -> tuple[str, ...]:
        """Where signing keys are looked for; a name in an earlier one masks later ones."""
        if self.record_directory != Config.record_directory:
            return (self.record_directory,)
        return (
            "/etc/systemd/home",
            "/run/systemd/home",
            self.record_directory,
            "/usr/local/lib/systemd/home",
            "/usr/lib/systemd/home",
        )


#: The shell that asks for the password of a home a key-only login found inactive.
FALLBACK_SHELL = "/usr/bin/systemd-home-fallback-shell"


def load(environment: Mapping[str, str]) -> Config:
    """The configuration this environment and the files on disk ask for.

    Raises InvalidArgs with file, option and expectation if a value is wrong.
    """
    options = _read_options(environment)
    return Config(
        home_root=environment.get("SYSTEMD_HOME_ROOT", Config.home_root),
        record_directory=environment.get("SYSTEMD_HOME_RECORD_DIR", Config.record_directory),
        blob_root=environment.get("SYSTEMD_HOME_SYSTEM_BLOB_DIR", Config.blob_root),
        runtime_directory=environment.get("HOMEMGR_RUNTIME_DIR", Config.runtime_directory),
        account_directory=environment.get("HOMEMGR_ACCOUNT_DIR", Config.account_directory),
        uid_range=_uid_range(options.get("uidrange")),
        default_storage=options.get("defaultstorage") or Config.default_storage,
        grace_s=_seconds(options.get("gracesec")),
        freezes_sessions=environment.get("SYSTEMD_HOME_LOCK_FREEZE_SESSION") not in _NO,
        fallback_shell=FALLBACK_SHELL if os.access(FALLBACK_SHELL, os.X_OK) else None,
    )


def _read_options(environment: Mapping[str, str]) -> dict[str, str]:
    """All options of section [Home], later files win."""
    explicit = environment.get("HOMEMGR_CONFIG")
    files = (
        [explicit]
        if explicit
        else [*config_files("systemd/homed.conf"), *config_files("homemgr/homemgr.conf")]
    )
    options: dict[str, str] = {}
    for path in files:
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        try:
            text = Path(path).read_text(encoding="utf-8")
            parser.read_string(text, source=path)
        except FileNotFoundError:
            continue
        except (configparser.Error, UnicodeDecodeError) as error:
            raise errors.InvalidArgs(f"{path}: {error}") from error
        if parser.has_section("Home"):
            options.update(parser.items("Home"))
    return options


def config_files(name: str, explicit: str | None = None) -> Iterator[str]:
    """The main file and then the drop-ins, in the order in which they apply.

    ``explicit`` is one file to be read in place of all.
    """
    if explicit:
        yield explicit
        return
    for root in CONFIG_ROOTS:
        if os.path.exists(path := f"{root}/{name}"):
            yield path
            break
    drop_ins: dict[str, str] = {}
    for root in reversed(CONFIG_ROOTS):
        directory = f"{root}/{name}.d"
        if os.path.isdir(directory):
            drop_ins.update(
                (entry, f"{directory}/{entry}")
                for entry in os.listdir(directory)
                if entry.endswith(".conf")
            )
    yield from (drop_ins[entry] for entry in sorted(drop_ins))


def _uid_range(text: str | None) -> UidRange:
    if not text:
        return DEFAULT_RANGE
    first, dash, last = text.partition("-")
    if not (dash and first.strip().isdecimal() and last.strip().isdecimal()):
        raise errors.InvalidArgs(f"UIDRange={text}: expected FIRST-LAST, for example 60001-60513.")
    low, high = int(first), int(last)
    if not 1000 <= low <= high < 2**31 - 1:
        raise errors.InvalidArgs(f"UIDRange={text}: expected 1000 <= FIRST <= LAST < 2147483647.")
    return UidRange(low, high)


def _seconds(text: str | None) -> float:
    if not text:
        return Config.grace_s
    try:
        seconds = float(text.removesuffix("s"))
    except ValueError as error:
        raise errors.InvalidArgs(f"GraceSec={text}: expected seconds, for example 3.") from error
    if not 0 <= seconds <= 3600:
        raise errors.InvalidArgs(f"GraceSec={text}: expected 0 to 3600 seconds.")
    return seconds
