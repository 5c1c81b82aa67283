"""Small pictures of intervals beside 0, one a finding, so that a table of them is read at a glance."""

from collections.abc import Sequence
from typing import NamedTuple

from mimctr.evaluate.paper.schema import Finding

WIDTH = 120.0
"""Of a picture; 0 stands in its middle."""
MARGIN = 4.0
"""Room for the dot of an estimate at either end."""


class Mark(NamedTuple):
    """Where the ends of an interval and its middle stand, from 0 to :data:`WIDTH`."""

    low: float
    mean: float
    high: float


def interval_marks(findings: Sequence[Finding]) -> dict[str, Mark]:
    """Return a mark for each finding that has an interval, by key; what was counted has none.

    Findings of one unit share a scale, so that their marks can be compared; it reaches to the far end of the widest.
    """
    reach: dict[str, float] = {}
    for finding in findings:
        ends = _ends(finding)
        if ends is not None:
            reach[finding.unit] = max(reach.get(finding.unit, 0.0), *(abs(end) for end in ends))
    marks = {}
    for finding in findings:
        ends = _ends(finding)
        if ends is not None and reach[finding.unit] > 0:
            marks[finding.key] = Mark(
                *(WIDTH / 2 + (WIDTH / 2 - MARGIN) * end / reach[finding.unit] for end in ends)
            )
    return marks


def _ends(finding: Finding) -> tuple[float, float, float] | None:
    found = finding.difference
    if found is None or found.low is None or found.high is None or found.low == found.high:
        return None
    return found.low, found.mean, found.high
