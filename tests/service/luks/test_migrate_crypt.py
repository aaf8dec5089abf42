"""Homes come to machines that keep them in encrypted images, and leave those again."""

from __future__ import annotations

from pathlib import Path

from tests import verifying
from tests.service.converting import (
    call,
    convert,
    diary,
    differences,
    logged_in,
    settle,
    storage_of,
    write,
)
from tests.service.moving import Line
from tests.service.people import PASSWORD
from tests.service.site import Service
from tests.service.test_migrate_encrypted import move

FIELDS = {
    "luksDiscard": True,
    "luksPbkdfType": "pbkdf2",
    "luksPbkdfForceIterations": 1000,
    "rateLimitBurst": 1000,
    "diskSize": 96 << 20,
}


def test_an_encrypted_image_is_made_where_that_is_asked_for(
    here: Service, there: Service, line: Line, tmp_path: Path
) -> None:
    back = Line(there, here, tmp_path)
    settle(here, "anna", **FIELDS)
    elsewhere = here.site.home_root / "elsewhere"
    elsewhere.mkdir(0o700)
    convert(here, "anna", to=str(elsewhere / "anna.homedir"))
    convert(here, "anna", PASSWORD, storage="luks", to=str(here.site.base / "anna.home"))
    (room,) = elsewhere.glob(".#homemgr-room-*")
    reference = here.site.home_root / "anna.reference"
    (room / "anna.homedir").rename(reference)
    call(here, "ConfirmConversion", "s", "anna")
    # Read through its use, beside its user, whose it stays.
    with logged_in(here, "anna"):
        code, said = move(line, here, "anna", "--storage=directory", "--keep")
        assert (code, here.state("anna")) == (0, "active"), said
    verifying.wait_until_gone()
    # One kernel plays both machines, and has one device for one name.
    code, said = move(line, here, "anna", "--storage=directory")
    assert code == 0, said
    assert storage_of(there, "anna") == "directory"
    assert differences(reference, there.site.base / "anna.homedir") == []
    with logged_in(there, "anna"):
        write(there, "anna", "there")
    code, said = move(back, there, "anna", "--storage=luks")
    assert code == 0, said
    assert storage_of(here, "anna") == "luks"
    verifying.wait_until_gone()
    with logged_in(here, "anna"):
        assert diary(here, "anna") == ["there"]
    verifying.wait_until_gone()
    here.call("RemoveHome", "s", "anna")
    assert PASSWORD not in here.site.log.read_text() + there.site.log.read_text()
