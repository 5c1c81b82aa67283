"""Numbers of ``results.json`` as tables want them: means over seeds, differences whichever way they were taken."""

from statistics import fmean, stdev
from typing import NamedTuple

from mimctr.evaluate.cohorts import ALL
from mimctr.evaluate.compare import BASE, Contender
from mimctr.evaluate.encoder_results import Estimate, alone
from mimctr.evaluate.paper.schema import Point
from mimctr.evaluate.results import Comparison, Results

NO_CONTENT = Contender(BASE, None)
DEVIATION = "± is the standard deviation over seeds."
"""A sentence for the notes of tables with levels."""


class Lookup(NamedTuple):
    """Views of one ``results.json``."""

    results: Results

    def ubms(self) -> list[str]:
        """Return every UBM once."""
        return list(dict.fromkeys(row.ubm for row in self.results.rows))

    def slices(self, kind: str) -> list[str]:
        """Return the slices of a kind once, in order."""
        return list(dict.fromkeys(row.slice for row in self.results.rows if row.slice.startswith(f"{kind}:")))

    def auc(self, ubm: str, contender: Contender, name: str = ALL) -> Estimate | None:
        """Return the AUC on a slice, mean over seeds; None where no such model was measured there."""
        return self.level(ubm, contender, "auc", name)

    def level(self, ubm: str, contender: Contender, measure: str, name: str = ALL) -> Estimate | None:
        """Return a measure of ``results.json`` on a slice, mean over seeds; None where it was not measured there."""
        values = [
            getattr(row, measure)
            for row in self.results.rows
            if (row.ubm, row.variant, row.encoder, row.slice) == (ubm, *contender, name)
        ]
        known = [value for value in values if value is not None]
        return mean_of(known) if known else None

    def ceiling(self, name: str = ALL) -> float | None:
        """Return the AUC of the true probabilities on a slice; None where they are unknown."""
        return next((row.ceiling_auc for row in self.results.rows if row.slice == name), None)

    def size(self, name: str) -> int:
        """Return the impressions of a slice."""
        return next((row.num_impressions for row in self.results.rows if row.slice == name), 0)

    def difference(
        self,
        ubm: str,
        one: Contender,
        other: Contender,
        name: str = ALL,
        *,
        minus: str | None = None,
    ) -> Estimate | None:
        """Return how much larger the AUC of ``one`` is than that of ``other``, paired; None where it was not compared.

        Args:
            ubm: A user behavior model, or ``pooled``.
            one: Variant and encoder.
            other: Likewise.
            name: Slice.
            minus: Slice whose difference is taken off.
        """
        for item in self.results.comparisons:
            if (item.ubm, item.slice, item.minus_slice) != (ubm, name, minus):
                continue
            pair = ((item.variant, item.encoder), (item.against, item.against_encoder))
            if pair == (one, other):
                return _estimate(item, 1)
            if pair == (other, one):
                return _estimate(item, -1)
        return None


def is_sure(difference: Estimate | Point) -> bool:
    """Return whether an interval lies on one side of 0; False without an interval."""
    return (
        difference.low is not None
        and difference.high is not None
        and not difference.low <= 0 <= difference.high
    )


def mean_of(values: list[float]) -> Estimate:
    """Return the mean of one value a seed, without an interval."""
    return alone(fmean(values), stdev(values) if len(values) > 1 else None)


def _estimate(item: Comparison, sign: int) -> Estimate:
    ends = (item.low, item.high) if sign > 0 else (item.high, item.low)
    low, high = (None if end is None else sign * end for end in ends)
    return Estimate(mean=sign * item.difference, sd=item.sd, low=low, high=high, p_value=item.p_value)
