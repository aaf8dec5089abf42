"""For all levels: lanes of a whole run, signals of one in the background, no skips in CI."""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Generator

    from xdist.remote import Producer
    from xdist.scheduler import Scheduling

HERE = Path(__file__).parent
#: Directories in the order of `lanes`: those at both ends take long, those in the middle are many.
LEVELS = ("world", "unit", "lint", "bus", "service", "kernel")

# The machine may be busy with other tests: no time limits on single examples.
settings.register_profile(
    "busy", deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("busy")

# Whoever starts a run in the background or with nohup(1) ignores these, and programs that
# tests start, interrupt and hang up on would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a prerequisite that is missing is a fault of the machine, not a reason to go on."""
    report = yield
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI forbids: {report.longrepr}"
    return report


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Levels in their order, in each of them all as it was."""
    items.sort(key=lambda item: LEVELS.index(item.path.relative_to(HERE).parts[0]))


def pytest_collection_finish() -> None:
    """Tests that look for garbage need not look through thousands of tests for it."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    """With `pytest -n 3`: whole files, one lane from the front and one from the back.

    So there are boxes that mostly wait beside what needs processors, and the lanes meet
    among small files. No file is ever in two lanes.
    """
    from tests import lanes

    return lanes.FromBothEnds(config, log)
