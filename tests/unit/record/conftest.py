"""A small whole record."""

from __future__ import annotations

import pytest
from record_samples import RECORD

from homemgr.record.model import UserRecord


@pytest.fixture
def record() -> UserRecord:
    return UserRecord(dict(RECORD))
