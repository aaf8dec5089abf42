"""User records as a client brings them: one password for everybody, hashed once."""

from __future__ import annotations

import json
import time
from functools import lru_cache
from typing import TYPE_CHECKING, cast

from homemgr import crypt

if TYPE_CHECKING:
    from homemgr.record.jsontext import JsonObject

PASSWORD = "correct horse battery"
OTHER_PASSWORD = "staple of nine lives"
WRONG_PASSWORD = "never was the one"


@lru_cache
def hashed(password: str = PASSWORD) -> str:
    """A hash that is quick to check."""
    return crypt.hash_password(password, "$6$")


def record(name: str, **fields: object) -> JsonObject:
    """What homectl would send to create ``name``; a field of None is left out."""
    now_usec = time.time_ns() // 1000
    made: dict[str, object] = {
        "userName": name,
        "disposition": "regular",
        "lastChangeUSec": now_usec,
        "lastPasswordChangeUSec": now_usec,
        "privileged": {"hashedPassword": [hashed()]},
        "secret": {"password": [PASSWORD]},
        **fields,
    }
    return cast("JsonObject", {key: value for key, value in made.items() if value is not None})


def text(of: JsonObject) -> str:
    """As it travels."""
    return json.dumps(of)


def parse(of: str) -> JsonObject:
    """As it arrives."""
    return cast("JsonObject", json.loads(of))


def secret(*passwords: str) -> str:
    """A secret argument."""
    return json.dumps({"password": list(passwords)} if passwords else {})
