"""Predictions of trained models on the test part -> rows of results.json."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from mimctr.errors import DataError
from mimctr.evaluate.cohorts import Slices
from mimctr.evaluate.metrics import (
    auc,
    calibration,
    calibration_bins,
    grouped_auc,
    log_loss,
    sigmoid,
)
from mimctr.evaluate.results import Reliability, Row, SkippedSlice


@dataclass(frozen=True, kw_only=True, slots=True)
class Predictions:
    """What one model says of every test impression."""

    ubm: str
    variant: str
    encoder: str | None
    seed: int
    logits: Float[ndarray, "rows"]
    probabilistic: bool
    """False where the scores only rank (an untrained cosine): then log loss and calibration mean nothing."""
    shuffled_logits: Float[ndarray, "rows"] | None = None
    """What the same model says with its items' vectors shuffled; None without content."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TestPart:
    """The test impressions, as far as metrics need them."""

    dataset: str
    clicks: Bool[ndarray, "rows"]
    users: Int[ndarray, "rows"]
    queries: Int[ndarray, "rows"]
    """0 = no query."""
    true_probability: Float[ndarray, "rows"] | None
    """Generated data only."""
    slices: Slices
    """Every mask has both classes (:func:`split_off_one_class`)."""

    __test__ = False  # not a pytest class


def split_off_one_class(slices: Slices, clicks: Bool[ndarray, "rows"]) -> tuple[Slices, list[SkippedSlice]]:
    """Return the slices that have clicks and non-clicks, and a record of those that do not."""
    kept, skipped = {}, []
    for name, mask in slices.items():
        num_rows, num_clicks = int(mask.sum()), int(clicks[mask].sum())
        if 0 < num_clicks < num_rows:
            kept[name] = mask
        else:
            skipped.append(SkippedSlice(slice=name, num_impressions=num_rows, num_clicks=num_clicks))
    return kept, skipped


def refuse_unusable(part: TestPart, predictions: Sequence[Predictions]) -> None:
    """Raise where predictions cannot be judged; before anything is, as judging takes long.

    Raises:
        DataError: a model's predictions are not one number per test impression, or two models have one name.
    """
    seen: set[tuple[str, str, str | None, int]] = set()
    for model in predictions:
        name = (model.ubm, model.variant, model.encoder, model.seed)
        if name in seen:
            raise DataError(
                f"evaluate: two models are called {name}. Give each its own variant, encoder or seed."
            )
        seen.add(name)
        if model.logits.shape != part.clicks.shape:
            raise DataError(
                f"evaluate: model {name} predicts {model.logits.shape} rows but the test part has "
                f"{len(part.clicks):,} impressions. Train it again on this dataset."
            )
        for values in (model.logits, model.shuffled_logits):
            if values is not None and np.isnan(values).any():
                raise DataError(
                    f"evaluate: model {name} predicts NaN for {int(np.isnan(values).sum()):,} of {len(values):,} "
                    "impressions. It diverged, or its input is damaged: train it again, or leave it out (models)."
                )


def score(part: TestPart, predictions: Sequence[Predictions]) -> list[Row]:
    """Return one row per model and slice, every metric exact over the slice's impressions.

    Args:
        part: The test impressions.
        predictions: That :func:`refuse_unusable` lets pass.
    """
    ceilings = {name: _ceiling(part, mask) for name, mask in part.slices.items()}
    return [
        _row(part, model, name=name, mask=mask, ceiling=ceilings[name])
        for model in predictions
        for name, mask in part.slices.items()
    ]


def measure_reliability(
    predictions: Sequence[Predictions], clicks: Bool[ndarray, "rows"]
) -> list[Reliability]:
    """Return predicted and observed click rate by bin for every model whose scores are probabilities."""
    found = []
    for model in predictions:
        if model.probabilistic:
            bins = calibration_bins(clicks, sigmoid(model.logits))
            found.append(
                Reliability(
                    ubm=model.ubm,
                    variant=model.variant,
                    encoder=model.encoder,
                    seed=model.seed,
                    num_impressions=bins.num_rows.tolist(),
                    predicted=bins.predicted.tolist(),
                    observed=bins.observed.tolist(),
                )
            )
    return found


def _ceiling(part: TestPart, mask: Bool[ndarray, "rows"]) -> float | None:
    return None if part.true_probability is None else auc(part.clicks[mask], part.true_probability[mask])


def _row(
    part: TestPart, model: Predictions, *, name: str, mask: Bool[ndarray, "rows"], ceiling: float | None
) -> Row:
    clicks, users, queries, logits = (
        values[mask] for values in (part.clicks, part.users, part.queries, model.logits)
    )
    asked = queries > 0
    by_user = grouped_auc(clicks, logits, users)
    by_query = grouped_auc(clicks[asked], logits[asked], queries[asked]) if asked.any() else None
    probabilities = sigmoid(logits)
    calibrated = calibration(clicks, probabilities) if model.probabilistic else None
    return Row(
        dataset=part.dataset,
        ubm=model.ubm,
        variant=model.variant,
        encoder=model.encoder,
        seed=model.seed,
        slice=name,
        num_impressions=len(clicks),
        num_clicks=int(clicks.sum()),
        num_users=len(np.unique(users)),
        auc=auc(clicks, logits),
        gauc=by_user.weighted if by_user else None,
        gauc_unweighted=by_user.unweighted if by_user else None,
        num_gauc_users=by_user.num_groups if by_user else 0,
        query_gauc=by_query.weighted if by_query else None,
        query_gauc_unweighted=by_query.unweighted if by_query else None,
        num_queries=len(np.unique(queries[asked])),
        num_gauc_queries=by_query.num_groups if by_query else 0,
        log_loss=log_loss(clicks, probabilities) if model.probabilistic else None,
        pcoc=calibrated.pcoc if calibrated else None,
        ece=calibrated.ece if calibrated else None,
        ceiling_auc=ceiling,
    )
