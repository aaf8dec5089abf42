"""What merging costs: not more for a large extension than for a small one."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from homemgr.extension import attach
from homemgr.extension.stack import Options
from tests.kernel import overlays
from tests.kernel.overlays import SHARE, Extension, Home, cleaned

#: Files of the large extension, in directories of a hundred.
LARGE = 100_000
RUNS = 15


def attach_s(home: Home, extension: Extension) -> float:
    """The least that `attach.merge` took of several runs; the mount is thrown away."""
    times = []
    for _ in range(RUNS):
        with home.view() as view, overlays.wanted([extension], hierarchies=[SHARE]) as wanted:
            begin = time.perf_counter()
            assert attach.merge(view, wanted, Options()).merged == [SHARE]
            times.append(time.perf_counter() - begin)
        cleaned(home)
    return min(times)


def files(count: int) -> dict[str, str]:
    return {f"{SHARE}/{number // 100}/{number % 100}": "" for number in range(count)}


def measure(area: Path, tell: Callable[[str, object], None]) -> None:
    """Tell the ratio of the two, and both in milliseconds."""
    with (
        overlays.home(area) as home,
        overlays.extension(area, "small", files(10)) as small,
        overlays.extension(area, "large", files(LARGE), "tmpfs") as large,
    ):
        little, much = attach_s(home, small), attach_s(home, large)
    tell("attach_10_files_ms", round(little * 1000, 2))
    tell("attach_100000_files_ms", round(much * 1000, 2))
    tell("attach_ratio", round(much / little, 2))


def test_the_number_of_files_does_not_matter(
    area: Path, record_property: Callable[[str, object], None]
) -> None:
    found: dict[str, object] = {}

    def tell(name: str, value: object) -> None:
        found[name] = value
        record_property(name, value)

    measure(area, tell)
    print(found)
    # Ten thousand times as many files: whatever looks at them would show.
    assert isinstance(found["attach_ratio"], float)
    assert found["attach_ratio"] < 100
