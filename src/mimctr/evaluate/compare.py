"""Which model is better, by how much, and how sure that is; and whether models with content use it.

Every difference is taken between models of the same UBM and the same seed, on the same resamples of users. The
untrained cosine has neither UBM nor seed, so it meets all of them. ``pooled`` is the mean over the UBMs.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mimctr.evaluate.cohorts import ALL, SEEN_ITEMS, UNSEEN_ITEMS
from mimctr.evaluate.contrasts import BY_SENSITIVITY, Contrast, possible
from mimctr.evaluate.delong import DeLong, contrasted, delong
from mimctr.evaluate.metrics import relative_improvement
from mimctr.evaluate.placements import Placements, Ranking
from mimctr.evaluate.results import POOLED, Comparison, ContentUse
from mimctr.evaluate.scoring import Predictions, TestPart
from mimctr.evaluate.significance import (
    BySeed,
    Resampled,
    by_seed,
    mean_of,
    pool,
    resample_users,
    resampled_placements,
)
from mimctr.evaluate.variants import split_ablated, split_labeled
from mimctr.progress import track

BASE, MIM, MIM_PLUS = "base", "mim", "mim_plus"
UNTRAINED = "untrained_cosine"


class Contender(NamedTuple):
    """All seeds of one variant with one encoder's vectors."""

    variant: str
    encoder: str | None


Key = tuple[str, Contender, int]
"""User behavior model, contender, seed."""


class Measurements:
    """AUC of every model on every slice.

    Args:
        part: The test impressions.
        predictions: Of all models.
        num_resamples: Of users, shared by all models and slices.
        seed: Of the resamples.
    """

    def __init__(
        self, part: TestPart, predictions: Sequence[Predictions], *, num_resamples: int, seed: int
    ) -> None:
        self.part = part
        _, self._users = np.unique(part.users, return_inverse=True)
        self._counts = resample_users(int(self._users.max()) + 1, num_resamples=num_resamples, seed=seed)
        self._rankings: dict[Key, Ranking] = {}
        self._table: dict[Key, dict[str, Resampled]] = {}
        self._shuffled: dict[Key, Resampled] = {}
        for model in track(predictions, total=len(predictions), description="compare", unit="models"):
            key = (model.ubm, Contender(model.variant, model.encoder), model.seed)
            self._rankings[key] = Ranking(part.clicks, model.logits)
            self._table[key] = {name: self._measure(self._rankings[key], name) for name in part.slices}
            if model.shuffled_logits is not None:
                self._shuffled[key] = self._measure(Ranking(part.clicks, model.shuffled_logits), ALL)

    def _measure(self, ranking: Ranking, name: str) -> Resampled:
        mask, clicks = self.part.slices[name], self.part.clicks
        users = self._users[mask & clicks], self._users[mask & ~clicks]
        return resampled_placements(ranking.placements(mask), *users, self._counts)

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

    def at(self, ubm: str, contender: Contender, seed: int, name: str) -> Resampled:
        """Return the AUC of one model on the slice ``name``."""
        return self._table[self._key(ubm, contender, seed)][name]

    def placements(self, ubm: str, contender: Contender, seed: int, name: str) -> Placements:
        """Return where one model ranks the impressions of the slice ``name``; made anew, they are too many to keep."""
        return self._rankings[self._key(ubm, contender, seed)].placements(self.part.slices[name])

    def shuffled(self) -> dict[tuple[str, Contender], dict[int, Resampled]]:
        """Return, by UBM and contender and then by seed, the AUC on shuffled vectors where it was measured."""
        found: dict[tuple[str, Contender], dict[int, Resampled]] = {}
        for (ubm, contender, seed), measured in self._shuffled.items():
            found.setdefault((ubm, contender), {})[seed] = measured
        return found

    def _key(self, ubm: str, contender: Contender, seed: int) -> Key:
        if contender.variant == UNTRAINED:
            return next(key for key in self._table if key[1] == contender)
        return ubm, contender, seed


def compare(measured: Measurements, *, by_category: Contrast = BY_SENSITIVITY) -> list[Comparison]:
    """Return every comparison that the models allow, on every slice, and where its difference is larger.

    Each variant is compared with ``base``, with the untrained cosine of the same encoder, and with the same variant
    on the vectors of the encoders before it in the predictions; an ablation also with the whole, MIM+ with Base+MIM.

    Args:
        measured: AUC of all models.
        by_category: Two groups of categories, which are contrasted as newest and oldest, unseen and seen items are.
    """
    contrasts = [*(Contrast((name,)) for name in measured.part.slices), *_contrasts(measured, by_category)]
    groups = list(_groups(measured))
    comparisons = []
    for name, versus in track(
        groups,
        total=sum(versus.num_pairs for _, versus in groups),
        description="compare: differences",
        unit="pairs of models",
        size=lambda group: group[1].num_pairs,
    ):
        tested = {place: versus.delong(place) for place in measured.part.slices}
        comparisons += [_comparison(name, versus, contrast, tested) for contrast in contrasts]
    return comparisons


def _groups(measured: Measurements) -> Iterator[tuple[str, "Versus"]]:
    """Yield whose models are compared with whose: of every user behavior model, and of all together."""
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
                yield name, Versus(measured, members, seeds, other, base)


def measure_content_use(measured: Measurements) -> list[ContentUse]:
    """Return, for every model with content, the AUC on all impressions that shuffling its vectors costs."""
    found = []
    for (ubm, contender), shuffled in measured.shuffled().items():
        own = by_seed([measured.at(ubm, contender, seed, ALL) for seed in shuffled])
        without = by_seed(list(shuffled.values()))
        pooled = pool(own.minus(without))
        found.append(
            ContentUse(
                dataset=measured.part.dataset,
                ubm=ubm,
                variant=contender.variant,
                encoder=contender.encoder,
                seeds=list(shuffled),
                auc=float(own.values.mean()),
                shuffled_auc=float(without.values.mean()),
                drop=pooled.mean,
                sd=pooled.sd,
                standard_error=pooled.standard_error,
                low=pooled.low,
                high=pooled.high,
                p_value=pooled.p_value,
            )
        )
    return found


class Versus(NamedTuple):
    """Two contenders and the models of theirs that are compared: of every UBM and seed."""

    measured: Measurements
    ubms: Sequence[str]
    seeds: Sequence[int]
    other: Contender
    base: Contender

    @property
    def num_pairs(self) -> int:
        """How many models are compared with one other each."""
        return len(self.ubms) * len(self.seeds)

    def differences(self, name: str) -> BySeed:
        """Return the difference of AUC per seed (mean over ``ubms``), and the same in each resample."""
        return mean_of(
            [self._of(ubm, self.other, name).minus(self._of(ubm, self.base, name)) for ubm in self.ubms]
        )

    def delong(self, name: str) -> DeLong:
        """Return the mean difference of AUC with its uncertainty over impressions."""
        return delong(self._placements(name))

    def level(self, name: str) -> float:
        """Return the mean AUC of ``base``."""
        return float(mean_of([self._of(ubm, self.base, name) for ubm in self.ubms]).values.mean())

    def _of(self, ubm: str, contender: Contender, name: str) -> BySeed:
        return by_seed([self.measured.at(ubm, contender, seed, name) for seed in self.seeds])

    def _placements(self, name: str) -> Iterator[tuple[Placements, Placements]]:
        at = self.measured.placements
        for ubm, seed in itertools.product(self.ubms, self.seeds):
            yield at(ubm, self.other, seed, name), at(ubm, self.base, seed, name)


def _pairings(contenders: Sequence[Contender]) -> list[tuple[Contender, Contender]]:
    """Return which contender is compared with which."""
    pairs = []
    for place, other in enumerate(contenders):
        for before, base in enumerate(contenders):
            against_base = base.variant == BASE and other.variant != BASE
            against_untrained = base == (UNTRAINED, other.encoder) and other.variant not in (BASE, UNTRAINED)
            against_encoder = base.variant == other.variant and before < place
            against_whole = base == (split_ablated(other.variant)[0], other.encoder) and base != other
            against_mim = base == (MIM, other.encoder) and split_labeled(other.variant)[0] == MIM_PLUS
            if against_base or against_untrained or against_encoder or against_whole or against_mim:
                pairs.append((other, base))
    return pairs


def _contrasts(measured: Measurements, by_category: Contrast) -> list[Contrast]:
    """Return what is contrasted, as far as its slices are there."""
    there = measured.part.slices
    ages = [name for name in there if name.startswith("age:")]
    wanted = [Contrast(("age:S1",), (ages[-1],))] if len(ages) > 1 else []
    return possible([*wanted, Contrast((UNSEEN_ITEMS,), (SEEN_ITEMS,)), by_category], there)


def _comparison(name: str, versus: Versus, contrast: Contrast, by_slice: Mapping[str, DeLong]) -> Comparison:
    pooled = pool(contrast.of(versus.differences))
    tested = contrasted(*([by_slice[place] for place in names] for names in contrast))
    relative = None
    if len(contrast.all_slices) == 1:
        level = versus.level(contrast.slices[0])
        relative = relative_improvement(level + pooled.mean, level) if level > 0.5 else None
    return Comparison(
        dataset=versus.measured.part.dataset,
        ubm=name,
        variant=versus.other.variant,
        encoder=versus.other.encoder,
        against=versus.base.variant,
        against_encoder=versus.base.encoder,
        slice=contrast.name,
        minus_slice=contrast.minus_name,
        seeds=list(versus.seeds),
        difference=pooled.mean,
        sd=pooled.sd,
        standard_error=pooled.standard_error,
        low=pooled.low,
        high=pooled.high,
        p_value=pooled.p_value,
        delong_standard_error=tested.standard_error,
        delong_p_value=tested.p_value,
        relative_improvement=relative,
    )
