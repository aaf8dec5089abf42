"""The service on a kernel that counts what projects take, and encrypts images."""

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
def encrypting(own_service: Service, disk: Path) -> Iterator[Service]:
    """A daemon for encrypted homes, which leaves no device."""
    yield own_service
    own_service.call("DeactivateAllHomes")
    for name in own_service.states():
        own_service.call("RemoveHome", "s", name)
    own_service.close()
    verifying.wait_until_gone()
    verifying.wait_until_unused(disk)
