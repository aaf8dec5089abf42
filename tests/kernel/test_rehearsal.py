"""A worker that waits goes through a login without touching anything outside of itself."""

from __future__ import annotations

from homemgr.work import rehearsal


def test_it_runs_again_and_again_and_leaves_nothing() -> None:
    prepared = rehearsal.Rehearsal()
    prepared.run()
    prepared.run()
