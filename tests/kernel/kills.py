"""System calls of a program, told and killed by strace: what they are, and dying at one of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple


class Step(NamedTuple):
    """One system call of a run: the how manyth of its name it is."""

    name: str
    number: int


def recording(trace: Path, calls: Iterable[str]) -> list[str]:
    """Options of strace to have ``calls`` written to ``trace``."""
    return ["-o", str(trace), "-e", f"trace={','.join(calls)}"]


def recorded(trace: Path, calls: Iterable[str]) -> list[Step]:
    """The calls of the process in ``trace`` that made the first one, in their order."""
    wanted = frozenset(calls)
    seen: Counter[str] = Counter()
    found = []
    first = ""
    for line in trace.read_text(encoding="utf-8", errors="replace").splitlines():
        pid, _, rest = line.partition(" ")
        name = rest.lstrip().partition("(")[0]
        # An old strace also tells of calls that it has no name for, and each of threads that end.
        if name in wanted and pid == (first := first or pid):
            seen[name] += 1
            found.append(Step(name, seen[name]))
    return found


def killing(at: Step) -> list[str]:
    """Options of strace to kill a program on entry to a call."""
    # strace counts each name by itself, so only this one may be injected.
    inject = f"inject={at.name}:error=EINTR:signal=SIGKILL:when={at.number}"
    return ["-o", "/dev/null", "-e", f"trace={at.name}", "-e", inject]


def stopping(at: Step) -> list[str]:
    """Options of strace to have a program stand still after a call, until SIGCONT."""
    inject = f"inject={at.name}:signal=SIGSTOP:when={at.number}"
    return ["-o", "/dev/null", "-e", f"trace={at.name}", "-e", inject]
