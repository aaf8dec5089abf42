"""Where on a file server a home is, as its record says."""

from __future__ import annotations

import pytest
from record_samples import MACHINE_ID

from homemgr.errors import InvalidRecord
from homemgr.record.effective import EffectiveRecord
from homemgr.record.jsontext import Json
from homemgr.record.machine import Machine
from homemgr.record.model import UserRecord
from homemgr.record.share import share_of


def effective(**members: Json) -> EffectiveRecord:
    record = UserRecord({"userName": "alice", "storage": "cifs", **members})
    return record.on(Machine(MACHINE_ID, "laptop", "/srv/home"))


@pytest.mark.parametrize(
    ("service", "host", "name", "directory"),
    [
        ("//files/homes", "files", "homes", ""),
        ("//files/homes/alice", "files", "homes", "alice"),
        ("//files.example.com/homes/of/alice", "files.example.com", "homes", "of/alice"),
        ("//192.0.2.7/h/a", "192.0.2.7", "h", "a"),
        ("//2001:db8::7/h", "2001:db8::7", "h", ""),
    ],
)
def test_a_service_has_its_parts(service: str, host: str, name: str, directory: str) -> None:
    share = share_of(effective(cifsService=service))
    assert (share.host, share.name, share.directory) == (host, name, directory)
    assert share.unc == f"//{host}/{name}"
    assert share.service == service
    assert (share.user, share.domain, share.mount_options) == ("alice", None, ())


@pytest.mark.parametrize(
    "service",
    ["", "files", "/files/homes", "//files", "//files/", "///homes", "//files/homes/",
     "//files/homes/..", "//files/homes/a//b", "//files/../homes", "//files/homes\\a", "///a/b"],
)  # fmt: skip
def test_what_cannot_be_found_is_refused(service: str) -> None:
    with pytest.raises(InvalidRecord, match=r"^\.cifsService: expected //host/share"):
        share_of(effective(cifsService=service))


def test_without_a_service_there_is_no_home() -> None:
    with pytest.raises(InvalidRecord, match="needs the share it lies on"):
        share_of(effective())


def test_who_asks_the_server_and_how() -> None:
    given: dict[str, Json] = {
        "cifsUserName": "al",
        "cifsDomain": "EXAMPLE",
        "cifsExtraMountOptions": "actimeo=0,seal,",
    }
    share = share_of(effective(cifsService="//files/homes", **given))
    assert (share.user, share.domain) == ("al", "EXAMPLE")
    assert share.mount_options == ("actimeo=0", "seal")


def test_the_share_is_in_the_place_of_a_path() -> None:
    assert effective(cifsService="//files/homes/a").image_path == "//files/homes/a"
    # Never a path of this machine, whatever the record says.
    assert effective(cifsService="/etc").image_path == "//etc"
    assert effective(imagePath="/etc/x").image_path == "//"
