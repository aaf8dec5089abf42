"""Boxes of a kernel that has what storages need; tests/world/test_verity.py boots it."""

from __future__ import annotations

from tests import verifying

#: A kernel with which file servers are mounted makes encrypted devices as well.
collect_ignore_glob = verifying.IGNORED_WITHOUT_CIFS
