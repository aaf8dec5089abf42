"""Whether udev would end a wait for it, by the rules it has."""

from __future__ import annotations

from pathlib import Path

import pytest

from homemgr.volume import udev

RULE = 'ENV{DM_COOKIE}=="?*", RUN+="/usr/sbin/dmsetup udevcomplete $env{DM_COOKIE}"\n'


def test_only_a_rule_that_counts_ends_a_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "etc", tmp_path / "usr"
    monkeypatch.setattr(udev, "_DIRECTORIES", (str(first), str(second)))
    assert not udev.answers()
    second.mkdir()
    (second / "60-other.rules").write_text('ACTION=="remove", GOTO="end"\n')
    (second / "95-dm-notify.rules.kept").write_text(RULE)
    assert not udev.answers()
    (second / "95-dm-notify.rules").write_text(RULE)
    assert udev.answers()
    # An administrator has it out of the way.
    first.mkdir()
    (first / "95-dm-notify.rules").symlink_to("/dev/null")
    assert not udev.answers()
    (first / "10-mine.rules").write_text(RULE)
    assert udev.answers()
