"""The users of the load: their records and the one password that opens all of them."""

from __future__ import annotations

import json
import time
from functools import lru_cache

from homemgr import crypt

PASSWORD = "correct horse battery"
SECRET = json.dumps({"password": [PASSWORD]})


@lru_cache
def hashed() -> str:
    """A hash that is quick to check: what is tried here is not the hash."""
    return crypt.hash_password(PASSWORD, "$6$")


def name_of(number: int) -> str:
    """The name of a user."""
    return f"user{number}"


def record(name: str) -> dict[str, object]:
    """What creates a home; nobody is kept out for trying often."""
    now = time.time_ns() // 1000
    return {
        "userName": name,
        "disposition": "regular",
        "storage": "directory",
        "realName": f"Real Name of {name}",
        "lastChangeUSec": now,
        "lastPasswordChangeUSec": now,
        "enforcePasswordPolicy": False,
        "rateLimitIntervalUSec": 1_000_000,
        "rateLimitBurst": 1_000_000,
        "environment": ["LOAD=yes"],
        "memberOf": ["games"],
        "resourceLimits": {"RLIMIT_NOFILE": {"cur": 512, "max": 1024}},
        "perMachine": [{"matchMachineId": "0" * 32, "location": "elsewhere"}],
        "privileged": {"hashedPassword": [hashed()], "sshAuthorizedKeys": ["ssh-ed25519 AAAA x"]},
        "secret": {"password": [PASSWORD]},
    }
