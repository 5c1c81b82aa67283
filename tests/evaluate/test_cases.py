"""Cases are ranked by their numbers, which equal a loop over pairs of impressions."""

import math

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from mimctr.evaluate.paper.cases import (
    click_standings,
    compare_items,
    impression_losses,
    largest,
    take_in_turn,
)

ROWS = 300


@pytest.fixture
def log():
    """Clicks, targets, groups and two models' logits with ties; group 3 has no non-click, group 4 no click."""
    generator = np.random.default_rng(3)
    targets = generator.integers(2, 22, ROWS)
    groups = targets % 5
    clicks = (generator.random(ROWS) < 0.4) & (groups != 4) | (groups == 3)
    base, mim = (generator.integers(-8, 9, ROWS) / 4 for _ in range(2))
    return clicks, targets, groups, base, mim


def standing(row, clicks, groups, scores):
    others = [other for other in range(len(clicks)) if groups[other] == groups[row] and not clicks[other]]
    if not clicks[row] or not others:
        return math.nan
    lower = sum(1.0 if scores[o] < scores[row] else 0.5 if scores[o] == scores[row] else 0.0 for o in others)
    return lower / len(others)


def test_a_standing_counts_the_non_clicks_of_the_group_below(log):
    clicks, _, groups, base, _ = log
    expected = [standing(row, clicks, groups, base) for row in range(ROWS)]
    assert np.isnan(expected).any()
    np.testing.assert_allclose(click_standings(clicks, groups, base), expected)


def test_the_mean_standing_of_a_group_is_its_auc(log):
    clicks, _, groups, base, _ = log
    for group in (0, 1, 2):
        inside = groups == group
        found = np.nanmean(click_standings(clicks, groups, base)[inside])
        assert found == pytest.approx(roc_auc_score(clicks[inside], base[inside]))


def test_losses_are_those_of_the_probabilities_and_stay_finite(log):
    clicks, _, _, base, _ = log
    losses = impression_losses(clicks, base)
    assert losses.mean() == pytest.approx(log_loss(clicks, 1 / (1 + np.exp(-base))))
    assert impression_losses(np.array([True]), np.array([-900.0])).tolist() == [900.0]


@pytest.mark.parametrize(("min_impressions", "min_clicks"), [(1, 1), (16, 4), (999, 1)])
def test_items_are_ranked_by_how_far_their_clicks_rose(log, min_impressions, min_clicks):
    clicks, targets, groups, base, mim = log
    chosen = targets % 3 > 0
    found = compare_items(
        clicks,
        targets,
        groups,
        (base, mim),
        chosen=chosen,
        min_impressions=min_impressions,
        min_clicks=min_clicks,
    )
    expected = []
    for item in sorted({int(target) for target in targets[chosen]}):
        own = [row for row in range(ROWS) if targets[row] == item]
        pairs = [[standing(row, clicks, groups, scores) for scores in (base, mim)] for row in own]
        pairs = [pair for pair in pairs if not math.isnan(pair[0])]
        if len(own) >= min_impressions and len(pairs) >= min_clicks:
            means = np.mean(pairs, axis=0)
            expected.append((means[1] - means[0], -item, len(own), len(pairs)))
    expected.sort(reverse=True)
    assert [(case.item, case.num_impressions, case.num_clicks) for case in found] == [
        (-item, num, placed) for _, item, num, placed in expected
    ]
    np.testing.assert_allclose([case.gain for case in found], [gain for gain, *_ in expected])


class Watched(np.ndarray):
    """Notes how often all of it is compared with something."""

    compared = 0

    def __eq__(self, other):
        type(self).compared += 1
        return np.asarray(self) == other


def test_many_items_are_compared_exactly_and_in_one_pass():
    """Mutants: a pass for each item; a click without a standing counts."""
    generator = np.random.default_rng(8)
    targets = generator.integers(2, 900, 6000)
    groups, clicks = targets % 7, generator.random(6000) < 0.3
    clicks[groups == 3] = True
    logits = generator.normal(size=6000), generator.normal(size=6000)
    chosen = targets % 4 > 0
    found = compare_items(
        clicks, targets.view(Watched), groups, logits, chosen=chosen, min_impressions=4, min_clicks=2
    )
    assert Watched.compared <= 2
    standings = [click_standings(clicks, groups, scores) for scores in logits]
    losses = [impression_losses(clicks, scores) for scores in logits]
    expected = []
    for item in range(2, 900):
        own = targets == item
        placed = own & ~np.isnan(standings[0])
        if (own & chosen).any() and own.sum() >= 4 and placed.sum() >= 2:
            means = [values[placed].mean() for values in standings] + [
                values[own].mean() for values in losses
            ]
            expected.append((item, own.sum(), placed.sum(), *means))
    assert len(expected) > 100
    assert sorted(found) == expected
    assert [(-case.gain, case.item) for case in found] == sorted((-case.gain, case.item) for case in found)


def test_nothing_chosen_compares_nothing(log):
    clicks, targets, groups, base, mim = log
    nothing = np.zeros(ROWS, dtype=bool)
    assert (
        compare_items(clicks, targets, groups, (base, mim), chosen=nothing, min_impressions=1, min_clicks=1)
        == []
    )


def test_only_values_above_zero_are_ranked():
    values = np.array([0.2, -1.0, 0.5, 0.0, 0.5, 0.9])
    assert largest(values, np.array([1, 1, 1, 1, 1, 0], dtype=bool)).tolist() == [2, 4, 0]


@pytest.mark.parametrize("num", [0, 1, 5, 99])
def test_each_sort_gives_its_next_one_in_turn_and_nobody_comes_twice(num):
    generator = np.random.default_rng(num)
    users, targets = generator.integers(0, 12, 60), generator.integers(0, 15, 60)
    sorts = [generator.permutation(60)[:30], np.array([], dtype=int), generator.permutation(60)[:5]]
    found = take_in_turn(sorts, users, targets, num=num)

    queues, expected, sort = [list(rows) for rows in sorts], [], 0
    while len(expected) < num and any(queues):
        while queues[sort]:
            row = queues[sort].pop(0)
            if all(users[row] != users[o] and targets[row] != targets[o] for _, o in expected):
                expected.append((sort, row))
                break
        sort = (sort + 1) % len(sorts)
    assert found == sorted(expected, key=lambda pair: pair[0])
    if num == 99:
        assert 5 < len(found) < 15
