"""How well scores rank and probabilities are calibrated. NumPy only; exact, never a mean over batches.

AUC counts, over all pairs of a click and a non-click, how often the click has the higher score; a tie counts
one half. "GAUC" means different things in different libraries: :func:`grouped_auc` returns the mean over users
weighted by impressions (DIN, arXiv:1706.06978) and the unweighted mean, under names of their own.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Num, Shaped
from numpy import ndarray

from mimctr.errors import DataError
from mimctr.evaluate.placements import GroupAucs, GroupedRanking, begins, placements

SMALLEST_PROBABILITY = 1e-15
"""Probabilities are moved this far from 0 and 1 before a logarithm, as in scikit-learn's old ``log_loss``."""
NUM_BINS = 20
"""Bins of equal count of the ECE and of the reliability plot."""


class GroupedAuc(NamedTuple):
    """AUC within each group (user or query), averaged over the groups that have a click and a non-click."""

    weighted: float
    """Mean weighted by each group's impressions: GAUC of the DIN paper."""
    unweighted: float
    """Plain mean over groups."""
    num_groups: int
    """Groups that entered the means."""
    num_skipped: int
    """Groups of one class only, left out."""


class Calibration(NamedTuple):
    """Whether probabilities mean what they say."""

    pcoc: float
    """Predicted clicks over observed clicks; 1 is perfect, above 1 predicts too many."""
    ece: float
    """Expected calibration error: mean distance of predicted and observed click rate, equal-count bins."""


class Bins(NamedTuple):
    """Impressions in bins of equal count, by predicted probability, lowest first."""

    num_rows: Int[ndarray, "bins"]
    predicted: Float[ndarray, "bins"]
    """Mean predicted probability."""
    observed: Float[ndarray, "bins"]
    """Share of clicks."""


def auc(labels: Shaped[ndarray, "rows"], scores: Num[ndarray, "rows"]) -> float:
    """Return the area under the ROC curve, exact, ties one half. O(n log n).

    Args:
        labels: 0/1 or bool.
        scores: Anything increasing in the click probability (logits, probabilities).

    Raises:
        DataError: lengths differ, a score is NaN, a label is not 0/1, or only one class is there.
    """
    positive = _checked(labels, scores)
    num_positive = int(positive.sum())
    num_negative = len(positive) - num_positive
    if num_positive == 0 or num_negative == 0:
        raise DataError(
            f"auc: all {len(positive):,} labels are {int(num_positive > 0)}, so there is no pair to rank. "
            "Score a part that has both clicks and non-clicks."
        )
    return placements(positive, scores).auc


def grouped_auc(
    labels: Shaped[ndarray, "rows"], scores: Num[ndarray, "rows"], groups: Int[ndarray, "rows"]
) -> GroupedAuc | None:
    """Return the mean AUC within groups, weighted by impressions and unweighted; None where no group has both a click
    and a non-click. O(n log n).

    Args:
        labels: 0/1 or bool.
        scores: Anything increasing in the click probability.
        groups: Integer name of each row's group: the user, usually, or the query.

    Raises:
        DataError: as :func:`auc`.
    """
    positive = _checked(labels, scores)
    if groups.shape != positive.shape:
        raise DataError(
            f"grouped_auc: {len(positive):,} labels but {groups.shape} groups. Give one group per label."
        )
    return mean_of_groups(GroupedRanking(positive, scores, groups).aucs())


def mean_of_groups(found: GroupAucs) -> GroupedAuc | None:
    """Return both means over groups; None where there is no group."""
    if not len(found.values):
        return None
    return GroupedAuc(
        weighted=float(found.values @ found.num_rows / found.num_rows.sum()),
        unweighted=float(found.values.mean()),
        num_groups=len(found.values),
        num_skipped=found.num_skipped,
    )


def log_loss(labels: Shaped[ndarray, "rows"], probabilities: Float[ndarray, "rows"]) -> float:
    """Return the mean binary cross-entropy in nats.

    Args:
        labels: 0/1 or bool.
        probabilities: Predicted click probabilities in [0, 1]; :func:`sigmoid` makes them from logits.

    Raises:
        DataError: lengths differ, a probability is NaN or outside [0, 1], or a label is not 0/1.
    """
    positive = _checked_probabilities("log_loss", labels, probabilities)
    clipped = np.clip(probabilities.astype(np.float64), SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    return float(-np.where(positive, np.log(clipped), np.log1p(-clipped)).mean())


def calibration(
    labels: Shaped[ndarray, "rows"], probabilities: Float[ndarray, "rows"], *, num_bins: int = NUM_BINS
) -> Calibration:
    """Return PCOC and the expected calibration error.

    Args:
        labels: 0/1 or bool.
        probabilities: Predicted click probabilities in [0, 1].
        num_bins: Bins of the ECE, see :func:`calibration_bins`.

    Raises:
        DataError: as :func:`log_loss`; or there is no click, so PCOC has no denominator.
    """
    bins = calibration_bins(labels, probabilities, num_bins=num_bins)
    predicted, observed = bins.num_rows * bins.predicted, bins.num_rows * bins.observed
    if not observed.any():
        raise DataError(
            f"calibration: none of {len(labels):,} labels is a click, so predicted over observed clicks is "
            "undefined. Score a part that has clicks."
        )
    distance = np.abs(predicted - observed).sum()
    return Calibration(pcoc=float(predicted.sum() / observed.sum()), ece=float(distance / len(labels)))


def calibration_bins(
    labels: Shaped[ndarray, "rows"], probabilities: Float[ndarray, "rows"], *, num_bins: int = NUM_BINS
) -> Bins:
    """Return predicted and observed click rate by bin: what a reliability plot shows.

    Args:
        labels: 0/1 or bool.
        probabilities: Predicted click probabilities in [0, 1].
        num_bins: Bins of equal count, up to one, by predicted probability. Rows of equal probabilities that are split
            bring each bin their common click rate, so that the order of the rows is nothing. With fewer rows than bins
            each row is a bin.

    Raises:
        DataError: as :func:`log_loss`.
    """
    positive = _checked_probabilities("calibration", labels, probabilities)
    order = np.argsort(probabilities, kind="stable")
    ranked = probabilities[order]
    ties = np.flatnonzero(begins(ranked))
    lengths = np.diff(np.append(ties, len(ranked)))
    clicked = np.repeat(np.add.reduceat(positive[order].astype(np.float64), ties) / lengths, lengths)
    starts = np.unique(np.arange(num_bins) * len(order) // num_bins)
    num_rows = np.diff(np.r_[starts, len(order)])
    return Bins(
        num_rows=num_rows,
        predicted=np.add.reduceat(ranked.astype(np.float64), starts) / num_rows,
        observed=np.add.reduceat(clicked, starts) / num_rows,
    )


def relative_improvement(value: float, base: float) -> float:
    """Return RelaImpr, ``(AUC - 0.5) / (AUC_base - 0.5) - 1``: the gain over what a coin already has.

    Raises:
        DataError: the base is exactly 0.5, a coin.
    """
    if base == 0.5:
        raise DataError("relative_improvement: the base AUC is 0.5, so there is nothing to be relative to.")
    return (value - 0.5) / (base - 0.5) - 1


def sigmoid(logits: Float[ndarray, "rows"]) -> Float[ndarray, "rows"]:
    """Return click probabilities as float64, without overflow at any logit."""
    small = np.exp(-np.abs(logits.astype(np.float64)))  # in (0, 1]
    return np.where(logits >= 0, 1 / (1 + small), small / (1 + small))


def _checked(labels: Shaped[ndarray, "rows"], scores: Num[ndarray, "rows"]) -> Bool[ndarray, "rows"]:
    """Return ``labels`` as bool."""
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise DataError(
            f"metrics: labels are {labels.shape} but scores are {scores.shape}. Give one score per label."
        )
    if len(labels) == 0:
        raise DataError("metrics: there are no rows. Score a part that is not empty.")
    wrong = (labels != 0) & (labels != 1)
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(
            f"metrics: {int(wrong.sum()):,} of {len(labels):,} labels are neither 0 nor 1. First: row {row}, "
            f"{labels[row]}. Use 1 for a click and 0 for none."
        )
    nan = np.isnan(scores)
    if nan.any():
        raise DataError(
            f"metrics: {int(nan.sum()):,} of {len(scores):,} scores are NaN. First: row {int(nan.argmax())}. "
            "The model diverged or its input is damaged."
        )
    return labels.astype(bool)


def _checked_probabilities(
    where: str, labels: Shaped[ndarray, "rows"], probabilities: Float[ndarray, "rows"]
) -> Bool[ndarray, "rows"]:
    positive = _checked(labels, probabilities)
    wrong = (probabilities < 0) | (probabilities > 1)
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(
            f"{where}: {int(wrong.sum()):,} of {len(probabilities):,} probabilities lie outside [0, 1]. "
            f"First: row {row}, {probabilities[row]}. Turn logits into probabilities with sigmoid first."
        )
    return positive
