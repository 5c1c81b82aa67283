"""Which model is better, by how much, and how sure that is: the comparisons of results.json.

Every difference is taken between models of the same UBM and the same seed, on the same resamples of users. The
untrained cosine has neither UBM nor seed, so it meets all of them. ``pooled`` is the mean over the UBMs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from mimctr.evaluate.metrics import auc, relative_improvement
from mimctr.evaluate.results import POOLED, Comparison
from mimctr.evaluate.scoring import Predictions, TestPart
from mimctr.evaluate.significance import pool, resample_users, resampled_auc
from mimctr.progress import track

BASE = "base"
UNTRAINED = "untrained_cosine"
CONTRASTS = (("age:S1", "age:S10"), ("item:unseen", "item:seen"))
"""Slices between which gains are compared: newest with oldest, unseen with seen."""


class Contender(NamedTuple):
    """All seeds of one variant with one encoder's vectors."""

    variant: str
    encoder: str | None


class Measured(NamedTuple):
    """AUC of one model on one slice, and in each resample of users."""

    auc: float
    draws: Float[ndarray, "resamples"]


class Measurements:
    """AUC of every model on every slice.

    Args:
        part: The test impressions.
        predictions: Of all models.
        num_resamples: Bootstrap resamples of users, shared by all models and slices.
        seed: Of the resamples.
    """

    def __init__(
        self, part: TestPart, predictions: Sequence[Predictions], *, num_resamples: int, seed: int
    ) -> None:
        _, users = np.unique(part.users, return_inverse=True)
        counts = resample_users(int(users.max()) + 1, num_resamples=num_resamples, seed=seed)
        self._table: dict[tuple[str, Contender, int], dict[str, Measured]] = {}
        for model in track(predictions, total=len(predictions), description="compare", unit="models"):
            key = (model.ubm, Contender(model.variant, model.encoder), model.seed)
            self._table[key] = {
                name: Measured(
                    auc(part.clicks[mask], model.logits[mask]),
                    resampled_auc(part.clicks[mask], model.logits[mask], users[mask], counts),
                )
                for name, mask in part.slices.items()
            }

    def contenders(self) -> list[Contender]:
        """Return every contender once, in the order of the predictions."""
        return list(dict.fromkeys(contender for _, contender, _ in self._table))

    def ubms(self) -> list[str]:
        """Return every UBM once, in the order of the predictions."""
        return list(dict.fromkeys(ubm for ubm, contender, _ in self._table if contender.variant != UNTRAINED))

    def seeds(self, ubm: str, contender: Contender) -> set[int]:
        """Return the seeds of one contender; those of the UBM's other models for the untrained cosine."""
        if contender.variant == UNTRAINED:
            return {seed for name, other, seed in self._table if name == ubm and other.variant != UNTRAINED}
        return {seed for name, other, seed in self._table if (name, other) == (ubm, contender)}

    def at(self, ubm: str, contender: Contender, seed: int, name: str) -> Measured:
        """Return the AUC of one model on the slice ``name``."""
        if contender.variant == UNTRAINED:
            return next(row for (_, other, _), row in self._table.items() if other == contender)[name]
        return self._table[ubm, contender, seed][name]


def compare(
    part: TestPart, predictions: Sequence[Predictions], *, num_resamples: int, seed: int
) -> list[Comparison]:
    """Return every comparison that the models allow, on every slice and between the slices of ``CONTRASTS``.

    Each variant is compared with ``base``, with the untrained cosine of the same encoder, and with the same variant
    on the vectors of the encoders before it in ``predictions``.

    Args:
        part: The test impressions.
        predictions: Of all models.
        num_resamples: Bootstrap resamples of users.
        seed: Of the resamples.
    """
    measured = Measurements(part, predictions, num_resamples=num_resamples, seed=seed)
    contrasts = [pair for pair in CONTRASTS if all(name in part.slices for name in pair)]
    slices: list[tuple[str, str | None]] = [*((name, None) for name in part.slices), *contrasts]
    comparisons = []
    for other, base in _pairings(measured.contenders()):
        ubms = [ubm for ubm in measured.ubms() if measured.seeds(ubm, other) & measured.seeds(ubm, base)]
        groups = [(ubm, [ubm]) for ubm in ubms] + ([(POOLED, ubms)] if len(ubms) > 1 else [])
        for name, members in groups:
            seeds = sorted(
                set.intersection(
                    *(measured.seeds(ubm, contender) for ubm in members for contender in (other, base))
                )
            )
            if seeds:
                comparisons += [
                    _comparison(part.dataset, measured, name, members, seeds, other, base, pair)
                    for pair in slices
                ]
    return comparisons


def _pairings(contenders: Sequence[Contender]) -> list[tuple[Contender, Contender]]:
    """Return which contender is compared with which."""
    pairs = []
    for place, other in enumerate(contenders):
        for before, base in enumerate(contenders):
            against_base = base.variant == BASE and other.variant != BASE
            against_untrained = base == (UNTRAINED, other.encoder) and other.variant not in (BASE, UNTRAINED)
            against_encoder = base.variant == other.variant and before < place
            if against_base or against_untrained or against_encoder:
                pairs.append((other, base))
    return pairs


def _comparison(
    dataset: str,
    measured: Measurements,
    name: str,
    ubms: Sequence[str],
    seeds: Sequence[int],
    other: Contender,
    base: Contender,
    slices: tuple[str, str | None],
) -> Comparison:
    first, second = slices
    values, draws = _differences(measured, ubms, seeds, other, base, first)
    if second is not None:
        values_second, draws_second = _differences(measured, ubms, seeds, other, base, second)
        values, draws = values - values_second, draws - draws_second
    pooled = pool(values, draws)
    level = float(np.mean([measured.at(ubm, base, seed, first).auc for ubm in ubms for seed in seeds]))
    relative = relative_improvement(level + pooled.mean, level) if second is None and level > 0.5 else None
    return Comparison(
        dataset=dataset,
        ubm=name,
        variant=other.variant,
        encoder=other.encoder,
        against=base.variant,
        against_encoder=base.encoder,
        slice=first,
        minus_slice=second,
        seeds=list(seeds),
        difference=pooled.mean,
        sd=pooled.sd,
        standard_error=pooled.standard_error,
        low=pooled.low,
        high=pooled.high,
        p_value=pooled.p_value,
        relative_improvement=relative,
    )


def _differences(
    measured: Measurements,
    ubms: Sequence[str],
    seeds: Sequence[int],
    other: Contender,
    base: Contender,
    name: str,
) -> tuple[Float[ndarray, "seeds"], Float[ndarray, "seeds resamples"]]:
    """Return the difference per seed (mean over ``ubms``), and the same in each resample."""
    pairs = [
        [(measured.at(ubm, other, seed, name), measured.at(ubm, base, seed, name)) for ubm in ubms]
        for seed in seeds
    ]
    values = np.array([np.mean([a.auc - b.auc for a, b in row]) for row in pairs])
    draws = np.stack([np.mean([a.draws - b.draws for a, b in row], axis=0) for row in pairs])
    return values, draws
