"""Fixtures of the record tests: one machine, one key pair, and a small whole record."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from record_samples import MACHINE_ID, RECORD

from homemgr.record.machine import Machine
from homemgr.record.model import UserRecord
from homemgr.record.signature import Keyring, PrivateKey

# The machine may be busy with other tests: no time limits on single examples.
settings.register_profile(
    "record", deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("record")


@pytest.fixture
def machine() -> Machine:
    return Machine(MACHINE_ID, "laptop")


@pytest.fixture
def record() -> UserRecord:
    return UserRecord(dict(RECORD))


@pytest.fixture(scope="session")
def private_key() -> PrivateKey:
    return PrivateKey.generate()


@pytest.fixture(scope="session")
def keyring(private_key: PrivateKey) -> Keyring:
    return Keyring({}, private_key)
