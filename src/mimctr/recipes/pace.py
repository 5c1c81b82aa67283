"""How long a stage should take: what its kind has taken here or, before that is known, on the development machine."""

import statistics
from collections.abc import Mapping

from mimctr.precision import has_bfloat16
from mimctr.recipes.device import pick_device

UNKNOWN = 30.0
"""Seconds of a step of which nothing is known."""
SECONDS: Mapping[str, float] = {
    "foundation": 0.065,
    "random towers": 0.1,
    "plain": 0.001,
    "embed": 0.0008,
    "search": 0.0009,
    "dda": 0.001,
    "dma": 0.0016,
    "csft": 0.0008,
    "cost": 200.0,
    "online": 0.006,
    "evaluate": 9e-6,
    "train mean base": 4e-5,
    "train mean content": 8e-5,
    "train din base": 1.4e-4,
    "train din content": 1.8e-4,
    "train dien base": 3.4e-4,
    "train dien content": 3.9e-4,
    "train bst base": 2.5e-4,
    "train bst content": 2.5e-4,
    "train sim base": 5e-5,
    "train sim content": 5e-5,
    "train twin base": 8e-5,
    "train twin content": 1e-4,
}
"""By kind, per unit of a step's size: the small bazaar with its own encoders, two cores that other work
shared; a training beside another one."""
OF_TOWERS = ("foundation", "plain", "embed", "search", "dda", "dma", "csft", "cost")
"""Kinds that run pictures and titles through encoders, in bfloat16 where the processor has it."""
WITHOUT_BFLOAT16 = 4.0
"""How many times as long those take on a CPU of the same number of cores without it (docs/log.md)."""


def usual_seconds() -> dict[str, float]:
    """Return :data:`SECONDS` as they should be here."""
    slower = 1.0 if has_bfloat16(pick_device("auto")) else WITHOUT_BFLOAT16
    return {kind: seconds * (slower if kind in OF_TOWERS else 1.0) for kind, seconds in SECONDS.items()}


class Pace:
    """Seconds a unit of each kind of step.

    Args:
        seconds: By kind, as long as nothing is learned of it; None: :func:`usual_seconds`.
    """

    def __init__(self, seconds: Mapping[str, float] | None = None) -> None:
        self._given = usual_seconds() if seconds is None else seconds
        self._seen: dict[str, list[float]] = {}

    def learn(self, kind: str, size: float, seconds: float) -> None:
        """Take note of a step that was made; of one without a size there is nothing to learn."""
        if size > 0:
            self._seen.setdefault(kind, []).append(seconds / size)

    def seconds(self, kind: str, size: float) -> float:
        """Return how long a step should take: the median of what was seen of its kind, else what was given."""
        if kind in self._seen:
            return size * statistics.median(self._seen[kind])
        return size * self._given[kind] if kind in self._given else UNKNOWN
