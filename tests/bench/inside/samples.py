"""What was measured: values by name, turn by turn of each service, all of them kept."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

#: The values of one turn of one service, by name.
Turn = dict[str, list[float]]
#: All turns of each service, in order.
Samples = dict[str, list[Turn]]


class Notes:
    """The notebook of one turn; `turn` is JSON as it is."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.turn: Turn = defaultdict(list)

    def add(self, what: str, *values: float) -> None:
        """One value or several."""
        self.turn[what] += values

    def extend(self, what: str, values: Iterable[float]) -> None:
        """The values of a series."""
        self.turn[what].extend(values)
