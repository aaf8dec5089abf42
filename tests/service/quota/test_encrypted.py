"""Encrypted directories held to a size by project quota: their names are no hindrance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.service.people import PASSWORD, secret
from tests.service.quota.test_quota import MAKE, running_on
from tests.service.site import Service, Site
from tests.service.sizes import MIB, SIZE, figures, take, take_up_to_the_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def both(new_site: Callable[..., Site], tmp_path: Path) -> Iterator[Service]:
    """A service whose homes lie on an ext4 that encrypts, and counts what projects take."""
    make = [*MAKE["ext4"], "-b", "4096", "-O", "encrypt"]
    with running_on(new_site(), tmp_path / "image", 64 * MIB, make) as service:
        yield service


def test_one_that_was_there_before_is_counted_whole_and_kept_to_its_size(both: Service) -> None:
    both.create("anna", storage="fscrypt")
    both.activate("anna")
    assert take(both, "anna", 3 * MIB) == 0
    both.deactivate("anna")
    both.call("ResizeHome", "sts", "anna", SIZE, secret(PASSWORD))
    assert figures(both, "anna")["diskUsage"] >= 3 * MIB
    both.activate("anna")
    take_up_to_the_limit(both, "anna", SIZE)
