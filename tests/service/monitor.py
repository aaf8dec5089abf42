"""What the bus carries besides answers: the service's signals, as busctl prints them."""

from __future__ import annotations

import json
import subprocess
import time
from contextlib import contextmanager
from threading import Thread
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Signal(NamedTuple):
    """One signal: where it came from, and its arguments as busctl writes them."""

    path: str
    member: str
    data: list[object]

    @property
    def text(self) -> str:
        """The arguments, to look for words in."""
        return json.dumps(self.data)


class Monitor:
    """Collects signals; filled by a thread while the block of `listening` runs."""

    def __init__(self) -> None:
        """Nothing heard yet."""
        self.heard: list[Signal] = []

    def collect(self, lines: Iterator[str]) -> None:
        """Read the output of busctl to its end."""
        for line in lines:
            message = json.loads(line)
            payload = message.get("payload") or {}
            self.heard.append(Signal(message["path"], message["member"], payload.get("data") or []))

    def wait_for(self, fits: Callable[[Signal], bool], within_s: float = 3.0) -> Signal:
        """The first signal that fits, heard already or soon."""
        deadline = time.monotonic() + within_s
        while True:
            for one in list(self.heard):
                if fits(one):
                    return one
            assert time.monotonic() < deadline, f"heard only {self.heard}"
            time.sleep(0.01)


@contextmanager
def listening(address: str) -> Iterator[Monitor]:
    """Hear every signal of the service until the end of the block."""
    rule = "type='signal',sender='org.freedesktop.home1'"
    busctl = ["busctl", f"--address={address}", "--json=short", f"--match={rule}", "monitor"]
    monitor = Monitor()
    with subprocess.Popen(
        busctl, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "Monitoring" in process.stderr.readline()
        reader = Thread(target=monitor.collect, args=(process.stdout,))
        reader.start()
        try:
            yield monitor
        finally:
            process.terminate()
            reader.join()
