"""The rules of the house that a machine can check: style, types, dead code, who imports whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "homemgr"

#: Room -> rooms it may import. Imports point downwards only.
MAY_IMPORT = {
    "errors": set(),
    "files": set(),
    "crypt": set(),
    "qrencode": set(),
    "job": {"errors", "files"},
    "record": {"errors"},
    "library": {"errors"},
    "token": {"errors", "library"},
    "kernel": {"files"},
    "transfer": {"errors"},
    "volume": {"errors", "files", "kernel", "library"},
    "storage": {"errors", "files", "record", "kernel", "transfer", "volume"},
    "extension": {"errors", "files", "record", "kernel", "volume"},
    "work": {
        "errors",
        "job",
        "files",
        "crypt",
        "record",
        "kernel",
        "storage",
        "extension",
        "transfer",
        "token",
    },
    "wire": {"errors", "files"},
    "daemon": {"errors", "job", "files", "record", "wire"},
    "bus": {"errors", "files", "record", "wire", "daemon"},
    "offline": {
        "errors",
        "job",
        "files",
        "crypt",
        "record",
        "kernel",
        "storage",
        "wire",
        "daemon",
        "bus",
        "work",
    },
    "cli": {"errors", "files", "crypt", "qrencode", "record", "wire", "token"},
}

#: Outside module -> the rooms that may use it.
KEPT_TO = {
    "ctypes": {"kernel", "library", "crypt", "qrencode", "token", "volume"},
    "subprocess": {"cli", "volume"},
    "dbus_next": {"wire"},
    "pyudev": {"storage"},
    "blake3": {"transfer"},
    "argparse": {"cli"},
    "asyncio": {"wire", "daemon", "bus", "offline", "entry"},
}


def modules() -> list[Path]:
    """Every module of the product."""
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    """The package or module directly below homemgr/."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """All modules a file imports, wherever in it, type checking included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            assert node.module is not None
            found.add(node.module)
            if node.module == "homemgr":
                found.update(f"homemgr.{alias.name}" for alias in node.names)
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_downwards(path: Path) -> None:
    room = room_of(path)
    if room in ("entry", "__init__"):
        return
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "homemgr" and len(parts) > 1:
            allowed = MAY_IMPORT[room] | {room}
            assert parts[1] in allowed, f"{room} must not import {name}"
        if parts[0] in KEPT_TO:
            assert room in KEPT_TO[parts[0]], f"{room} must not import {name}"


def test_every_module_says_what_it_is_for() -> None:
    silent = [p for p in modules() if not ast.get_docstring(ast.parse(p.read_text("utf-8")))]
    assert not silent


def run(*argv: str) -> None:
    """A checker from this environment must have nothing to say."""
    done = subprocess.run(
        [sys.executable, "-m", *argv], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_finds_nothing() -> None:
    run("ruff", "check", "homemgr", "tests")


def test_code_is_formatted() -> None:
    run("ruff", "format", "--check", "homemgr", "tests")


@pytest.mark.timeout(300)
def test_types_are_strict() -> None:
    run("mypy", "--no-incremental")


def test_no_code_is_dead() -> None:
    run("vulture", "homemgr", "tests")
