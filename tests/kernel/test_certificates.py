"""Which certificates count: those that only root could have put into verity.d."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from homemgr.extension import certificates
from tests.signed_images import Maker

ONE, OTHER = Maker.new("one"), Maker.new("other")


def put(directory: Path, name: str, maker: Maker) -> Path:
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_bytes(maker.pem)
    path.chmod(0o644)
    return path


def found(area: Path) -> list[Maker]:
    known = {maker.certificate.serial_number: maker for maker in (ONE, OTHER)}
    directories = [str(area / name) for name in ("etc", "missing", "usr")]
    return [known[certificate.serial] for certificate in certificates.trusted(directories)]


def test_all_of_them_are_found(area: Path) -> None:
    put(area / "etc", "a.crt", ONE)
    put(area / "usr", "b.crt", OTHER)
    put(area / "usr", "c.pem", OTHER)
    assert found(area) == [ONE, OTHER]


def test_the_administrators_hides_what_came_with_the_system(area: Path) -> None:
    put(area / "usr", "a.crt", ONE)
    put(area / "etc", "a.crt", OTHER)
    assert found(area) == [OTHER]
    (area / "etc/a.crt").unlink()
    (area / "etc/a.crt").symlink_to("/dev/null")
    assert found(area) == []


@pytest.mark.parametrize("how", ["owner", "mode", "text", "device"])
def test_what_cannot_be_trusted_is_told_and_left_out(
    area: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    put(area / "etc", "good.crt", ONE)
    bad = put(area / "etc", "bad.crt", OTHER)
    if how == "owner":
        os.chown(bad, 1000, 1000)
    elif how == "mode":
        bad.chmod(0o666)
    elif how == "text":
        bad.write_text("-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----\n")
    else:
        bad.unlink()
        bad.symlink_to("/dev/zero")
    assert found(area) == [ONE]
    assert f"{bad} is not used" in caplog.text
