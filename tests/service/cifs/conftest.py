"""The service on a kernel that mounts file servers, and a file server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import verifying
from tests.service import people
from tests.smb import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

collect_ignore_glob = verifying.IGNORED_WITHOUT_CIFS


@pytest.fixture(scope="package")
def server(ground: Path) -> Iterator[Server]:
    """A file server that lets one person in."""
    running = Server(ground / "smb")
    running.set_password("person", people.PASSWORD)
    yield running
    running.close()
