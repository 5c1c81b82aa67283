"""Predictions of trained models on the test part -> rows of results.json."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from mimctr.errors import DataError
from mimctr.evaluate.cohorts import Slices
from mimctr.evaluate.metrics import calibration, calibration_bins, log_loss, mean_of_groups, sigmoid
from mimctr.evaluate.placements import GroupedRanking, Ranking
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
    ceilings = _ceilings(part)
    return [
        _row(part, model, ranked, name=name, mask=mask, ceiling=ceilings.get(name))
        for model in predictions
        for ranked in [_Ranked.of(part, model.logits)]
        for name, mask in part.slices.items()
    ]


class _Ranked(NamedTuple):
    """One model's impressions, sorted once for all slices."""

    whole: Ranking
    by_user: GroupedRanking
    by_query: GroupedRanking

    @classmethod
    def of(cls, part: TestPart, logits: Float[ndarray, "rows"]) -> Self:
        groups = (GroupedRanking(part.clicks, logits, names) for names in (part.users, part.queries))
        return cls(Ranking(part.clicks, logits), *groups)


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


def _ceilings(part: TestPart) -> dict[str, float]:
    """Return the AUC of the true probabilities by slice; nothing where they are not known."""
    if part.true_probability is None:
        return {}
    ranking = Ranking(part.clicks, part.true_probability)
    return {name: ranking.placements(mask).auc for name, mask in part.slices.items()}


def _row(
    part: TestPart,
    model: Predictions,
    ranked: _Ranked,
    *,
    name: str,
    mask: Bool[ndarray, "rows"],
    ceiling: float | None,
) -> Row:
    asked = mask & (part.queries > 0)
    users = ranked.by_user.aucs(mask)
    queries = ranked.by_query.aucs(asked) if asked.any() else None
    by_user, by_query = mean_of_groups(users), queries and mean_of_groups(queries)
    clicks, probabilities = part.clicks[mask], sigmoid(model.logits[mask])
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
        num_users=users.num_groups,
        auc=ranked.whole.placements(mask).auc,
        gauc=by_user.weighted if by_user else None,
        gauc_unweighted=by_user.unweighted if by_user else None,
        num_gauc_users=by_user.num_groups if by_user else 0,
        query_gauc=by_query.weighted if by_query else None,
        query_gauc_unweighted=by_query.unweighted if by_query else None,
        num_queries=queries.num_groups if queries else 0,
        num_gauc_queries=by_query.num_groups if by_query else 0,
        log_loss=log_loss(clicks, probabilities) if model.probabilistic else None,
        pcoc=calibrated.pcoc if calibrated else None,
        ece=calibrated.ece if calibrated else None,
        ceiling_auc=ceiling,
    )
