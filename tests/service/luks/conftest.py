"""The service on a kernel that makes encrypted devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import verifying

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.service.site import Service

collect_ignore_glob = verifying.IGNORED_WITHOUT_CRYPT


@pytest.fixture
def running(own_service: Service, disk: Path) -> Iterator[Service]:
    """A daemon that leaves no device."""
    yield own_service
    if own_service.is_running:
        own_service.call("DeactivateAllHomes")
        for name in own_service.states():
            own_service.call("RemoveHome", "s", name)
    own_service.close()
    # The libraries write there what nobody can make use of.
    assert "device-mapper:" not in own_service.site.log.read_text()
    verifying.wait_until_gone()
    verifying.wait_until_unused(disk)


@pytest.fixture(autouse=True)
def no_images_stay(tmp_path: Path) -> Iterator[None]:
    """Free the memory of the guest, where its files are: pytest would keep them to the end."""
    yield
    for path in tmp_path.iterdir():
        if path.is_file():
            path.unlink()
