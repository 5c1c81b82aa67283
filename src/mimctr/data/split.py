"""Split by time, and by nothing else: train before validation before test."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from mimctr.errors import ConfigError, DataError

DAY = 86_400
Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitRule:
    """How long the parts are. A length in days goes before one as a fraction.

    Days are counted back from the last impression, 86,400 seconds each.
    """

    test_days: float | None = None
    """Length of the test part, in days."""
    validation_days: float | None = None
    """Length of the validation part, in days."""
    warmup_days: float = 0.0
    """The first days only fill histories: their impressions are in no part."""
    test_fraction: float = 0.1
    """Length of the test part as a fraction of the time from first to last impression."""
    validation_fraction: float = 0.1
    """Length of the validation part, likewise."""

    def __post_init__(self) -> None:
        for name in ("test_days", "validation_days", "test_fraction", "validation_fraction"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"split.{name}: must be above 0, got {value}.")
        if self.warmup_days < 0:
            raise ConfigError(f"split.warmup_days: must not be negative, got {self.warmup_days}.")


class Split(NamedTuple):
    """Boundaries of the parts, seconds UTC; each part is ``start <= time < next start``."""

    train_start: int
    validation_start: int
    test_start: int
    test_end: int

    def rows(self, times: Int[ndarray, "impressions"], part: Part) -> range:
        """Return the rows of ``part`` in ``times``, which ascend."""
        bounds = {
            "train": (self.train_start, self.validation_start),
            "validation": (self.validation_start, self.test_start),
            "test": (self.test_start, self.test_end),
        }
        first, last = np.searchsorted(times, bounds[part], side="left")
        return range(int(first), int(last))

    def part_of(self, times: Int[ndarray, "rows"]) -> Int[ndarray, "rows"]:
        """Return 0, 1 or 2 (train, validation, test) for every time.

        What lies before the training part counts as train, what lies after the test part as test.
        """
        return np.searchsorted([self.validation_start, self.test_start], times, side="right")


def split_times(times: Int[ndarray, "impressions"], rule: SplitRule) -> Split:
    """Return the boundaries for impressions at ``times``. Equal times are never parted.

    Raises:
        DataError: a part has no impressions.
    """
    first, last = int(times.min()), int(times.max())
    length = last - first

    def seconds(days: float | None, fraction: float) -> int:
        return round(fraction * length if days is None else days * DAY)

    test_end = last + 1
    test_start = test_end - seconds(rule.test_days, rule.test_fraction)
    validation_start = test_start - seconds(rule.validation_days, rule.validation_fraction)
    split = Split(first + round(rule.warmup_days * DAY), validation_start, test_start, test_end)
    ordered = np.sort(times)
    for part in PARTS:
        if not len(split.rows(ordered, part)):
            raise DataError(
                f"impressions.time: the {part} part has no impressions; {len(times):,} impressions span "
                f"{length / DAY:.1f} days, training starts at {split.train_start}, validation at {validation_start}, "
                f"test at {test_start}. Choose other lengths for the split."
            )
    return split
