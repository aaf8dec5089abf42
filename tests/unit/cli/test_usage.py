"""`homemgr usage` against a scripted service: what it asks, prints and returns."""

from __future__ import annotations

import json

from .conftest import Service, error, homemgr

ANNA = {
    "user": "anna",
    "storage": "directory",
    "logical": None,
    "physical": 3 << 20,
    "reclaimable": 0,
    "counted_by": "quota",
}


def test_a_table_says_what_is_not_known(service: Service) -> None:
    service.start(GetHomeUsage=[[json.dumps(ANNA)]])
    done = homemgr("usage", "anna", service=service)
    assert done.stdout == (
        "USER\tSTORAGE\tLOGICAL\tPHYSICAL\tRECLAIMABLE\tCOUNTED BY\n"
        "anna\tdirectory\t-\t3.0M\t0B\tquota\n"
    )
    assert service.calls_of("GetHomeUsage") == [["anna", 0]]


def test_every_file_is_counted_on_request_and_json_is_what_the_service_gives(
    service: Service,
) -> None:
    service.start(GetHomeUsage=[[json.dumps(ANNA)]])
    done = homemgr("usage", "--count", "--json=short", "anna", service=service)
    assert json.loads(done.stdout) == [ANNA]
    assert service.calls_of("GetHomeUsage") == [["anna", 1]]


def test_one_that_cannot_be_asked_does_not_stop_the_others(service: Service) -> None:
    service.start(GetHomeUsage=[error("NoSuchHome", "No home bob."), [json.dumps(ANNA)]])
    done = homemgr("usage", "bob", "anna", service=service)
    assert done.returncode == 1
    assert "Cannot tell what home bob takes: No home bob." in done.stderr
    assert "anna" in done.stdout
