"""Does a claim of the paper hold here? Each is a difference that should be above 0."""

import math

from mimctr.evaluate.encoder_results import Estimate
from mimctr.evaluate.paper.schema import SURE, Finding, Unit, Verdict


def finding(
    key: str,
    *,
    source: str,
    claim: str,
    paper: str = "",
    difference: Estimate | None,
    unit: Unit = "gain",
    measured: str = "",
    ours: bool = False,
    note: str = "",
    sure: float | None = None,
) -> Finding:
    """Return a claim with its verdict.

    Args:
        key: A stable name.
        source: Where the paper says it.
        claim: In words: what ``difference`` above 0 means.
        paper: The paper's numbers, in words.
        difference: Ours, with its two-sided p-value for 0; None where it was not run.
        unit: Of the difference.
        measured: What was measured, in words, where the difference alone does not tell it.
        ours: Whether it is a check of our own.
        note: What else has to be known of it.
        sure: Confidence of a claim that more than ``difference`` decides; None: that of the difference.
    """
    if sure is None and difference is not None:
        sure = confidence(difference)
    return Finding(
        key=key,
        source=source,
        claim=claim,
        paper=paper,
        difference=difference,
        unit=unit,
        measured=measured,
        ours=ours,
        note=note,
        confidence=sure,
        verdict="not run" if difference is None else _verdict(sure),
    )


def confidence(difference: Estimate) -> float | None:
    """Return the probability, by its own error, that the true difference is above 0; None without a p-value."""
    if difference.p_value is None:
        return None
    if difference.mean == 0:
        return 0.5
    wrong = difference.p_value / 2
    return wrong if math.copysign(1, difference.mean) < 0 else 1 - wrong


def _verdict(sure: float | None) -> Verdict:
    if sure is None:
        return "undecided"
    if sure >= SURE:
        return "held"
    return "not held" if sure <= 1 - SURE else "undecided"


def counted(value: float) -> Estimate:
    """Return a number that was counted: it has no error."""
    return Estimate(mean=value, sd=None, low=value, high=value, p_value=0.0)
