"""What the configuration files and the environment can say, and how wrong values are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from homemgr import errors
from homemgr.daemon import config


def load(tmp_path: Path, text: str) -> config.Config:
    """The configuration that one file with ``text`` gives."""
    path = tmp_path / "homemgr.conf"
    path.write_text(text, encoding="utf-8")
    return config.load({"HOMEMGR_CONFIG": str(path)})


def test_defaults_are_those_of_systemd_homed(tmp_path: Path) -> None:
    loaded = load(tmp_path, "")
    assert loaded.uid_range == (60001, 60513)
    assert loaded.record_directory == "/var/lib/systemd/home"
    assert loaded.userdb_socket == "/run/systemd/userdb/io.systemd.Home"
    assert loaded.base_directory == "/home/.homemgr"


def test_options_are_read(tmp_path: Path) -> None:
    loaded = load(tmp_path, "[Home]\nUIDRange=70000-79999\nGraceSec=1.5s\n")
    assert loaded.uid_range == (70000, 79999)
    assert loaded.grace_s == 1.5


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("UIDRange=7", "FIRST-LAST"),
        ("UIDRange=9-5", "1000 <= FIRST"),
        ("UIDRange=1-70000", "1000 <= FIRST"),
        ("UIDRange=a-b", "FIRST-LAST"),
        ("GraceSec=soon", "expected seconds"),
        ("GraceSec=-1", "0 to 3600"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(
    tmp_path: Path, line: str, complaint: str
) -> None:
    with pytest.raises(errors.InvalidArgs, match=complaint) as refused:
        load(tmp_path, f"[Home]\n{line}\n")
    assert line.split("=")[0] in refused.value.message


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidArgs, match=r"homemgr\.conf"):
        load(tmp_path, "no section\n")


def test_the_environment_moves_everything(tmp_path: Path) -> None:
    loaded = config.load(
        {
            "HOMEMGR_CONFIG": str(tmp_path / "none"),
            "SYSTEMD_HOME_ROOT": "/h",
            "SYSTEMD_HOME_RECORD_DIR": "/r",
            "SYSTEMD_HOME_SYSTEM_BLOB_DIR": "/b",
            "HOMEMGR_RUNTIME_DIR": "/x",
        }
    )
    assert loaded.base_directory == "/h/.homemgr"
    assert loaded.key_directories == ("/r",)
    assert loaded.reference_directory == "/x/home"
