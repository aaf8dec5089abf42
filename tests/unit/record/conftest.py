"""Settings of the record tests, and a small whole record."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from record_samples import RECORD

from homemgr.record.model import UserRecord

# The machine may be busy with other tests: no time limits on single examples.
settings.register_profile(
    "record", deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("record")


@pytest.fixture
def record() -> UserRecord:
    return UserRecord(dict(RECORD))
