"""How long a stage should take: what its kind has taken here or, before that is known, on the development machine."""

import statistics
from collections.abc import Mapping

UNKNOWN = 30.0
"""Seconds of a step of which nothing is known."""
SECONDS: Mapping[str, float] = {}
"""By kind, per unit of a step's size: two cores, no GPU, the bazaar's own encoders (docs/reproduction.md)."""


class Pace:
    """Seconds a unit of each kind of step.

    Args:
        seconds: By kind, as long as nothing is learned of it.
    """

    def __init__(self, seconds: Mapping[str, float] = SECONDS) -> None:
        self._given = seconds
        self._seen: dict[str, list[float]] = {}

    def learn(self, kind: str, size: float, seconds: float) -> None:
        """Take note of a step that was made."""
        self._seen.setdefault(kind, []).append(seconds / size)

    def seconds(self, kind: str, size: float) -> float:
        """Return how long a step should take: the median of what was seen of its kind, else what was given."""
        if kind in self._seen:
            return size * statistics.median(self._seen[kind])
        return size * self._given[kind] if kind in self._given else UNKNOWN
