"""Where the next daemon finds extensions, and who is to have them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def make_store(ground: Path, tmp_path: Path, rules: str, patch: pytest.MonkeyPatch) -> Path:
    """An empty directory for extensions, with these rules for it."""
    directory = ground / "extensions"
    directory.mkdir(mode=0o755)
    conf = tmp_path / "extensions.conf"
    conf.write_text(rules, encoding="utf-8")
    patch.setenv("HOMEMGR_EXTENSION_PATH", str(directory))
    patch.setenv("HOMEMGR_EXTENSIONS_CONFIG", str(conf))
    return directory
