"""DeLong's test against the double loop of its definition, the jackknife with scikit-learn, and known truths."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from mimctr.errors import DataError
from mimctr.evaluate.delong import DeLong, contrasted, delong
from mimctr.evaluate.placements import placements

rows = st.lists(
    st.tuples(st.integers(0, 1), st.integers(-2, 2), st.integers(-2, 2)), min_size=4, max_size=30
).filter(lambda values: 2 <= sum(click for click, _, _ in values) <= len(values) - 2)
"""Clicks and two models' scores: few distinct ones, many ties."""


def kernel(labels, scores):
    """Return, for every click (row) and non-click (column), whether the click is ranked above; a tie is one half."""
    clicks, others = scores[labels == 1].tolist(), scores[labels == 0].tolist()
    return np.array([[1.0 if a > b else 0.5 if a == b else 0.0 for b in others] for a in clicks])


def written_out(labels, all_scores, contrast):
    """Return a contrast of AUCs and its standard error from DeLong's covariance matrices."""
    kernels = [kernel(labels, scores) for scores in all_scores]
    num_clicks, num_others = kernels[0].shape
    of_clicks = np.zeros((len(kernels), len(kernels)))
    of_others = np.zeros_like(of_clicks)
    for (r, first), (s, second) in itertools.product(enumerate(kernels), repeat=2):
        auc_r, auc_s = first.mean(), second.mean()
        of_clicks[r, s] = sum(
            (first[i].mean() - auc_r) * (second[i].mean() - auc_s) for i in range(num_clicks)
        ) / (num_clicks - 1)
        of_others[r, s] = sum(
            (first[:, j].mean() - auc_r) * (second[:, j].mean() - auc_s) for j in range(num_others)
        ) / (num_others - 1)
    covariance = of_clicks / num_clicks + of_others / num_others
    aucs = np.array([one.mean() for one in kernels])
    return contrast @ aucs, math.sqrt(max(contrast @ covariance @ contrast, 0.0))


def jackknifed(labels, scores, other):
    """Return the standard error of a difference of AUC from leaving out one click at a time, then one non-click."""
    variance = 0.0
    for label in (1, 0):
        left_out = []
        for row in np.flatnonzero(labels == label):
            kept = np.arange(len(labels)) != row
            left_out.append(
                roc_auc_score(labels[kept], scores[kept]) - roc_auc_score(labels[kept], other[kept])
            )
        num = len(left_out)
        variance += (num - 1) / num * np.sum((np.array(left_out) - np.mean(left_out)) ** 2)
    return math.sqrt(variance)


@settings(max_examples=200, deadline=None)
@given(rows)
def test_two_models_differ_as_the_definition_says(values):
    labels, scores, other = (np.array(column) for column in zip(*values, strict=True))
    found = delong([(placements(labels, scores), placements(labels, other))])
    difference, error = written_out(labels, [scores, other], np.array([1.0, -1.0]))
    assert found.difference == pytest.approx(difference, abs=1e-12)
    assert found.standard_error == pytest.approx(error, abs=1e-7)  # of a root of rounding
    if error > 1e-6:
        assert found.p_value == pytest.approx(2 * stats.norm.sf(abs(difference) / error), abs=1e-9)


def test_the_mean_of_several_differences_is_a_contrast_of_all_models():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 60)
    models = [np.round(generator.normal(size=60) + strength * labels, 1) for strength in (0, 0.3, 0.6, 0.9)]
    placed = [placements(labels, scores) for scores in models]
    found = delong([(placed[3], placed[1]), (placed[2], placed[0])])
    difference, error = written_out(labels, models, np.array([-0.5, -0.5, 0.5, 0.5]))
    assert found.difference == pytest.approx(difference)
    assert found.standard_error == pytest.approx(error)


@pytest.mark.parametrize("digits", [0, 6])  # many ties, none
def test_the_standard_error_is_the_jackknifes(digits):
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 2, 150)
    scores = np.round(generator.normal(size=150) + 0.5 * labels, digits)
    other = np.round(0.7 * scores + generator.normal(size=150), digits)
    found = delong([(placements(labels, scores), placements(labels, other))])
    assert found.standard_error == pytest.approx(jackknifed(labels, scores, other))


def test_a_difference_worked_out_by_hand():
    # Clicks at 3 and 1, non-clicks at 2 and 0: the first model places them (1, 1/2) and (1/2, 1); the second ranks all
    # right. Differences 0, -1/2 and -1/2, 0: both variances 1/8, over two clicks and two non-clicks.
    labels = np.array([1, 1, 0, 0])
    first, second = np.array([3, 1, 2, 0]), np.array([3, 3, 0, 0])
    found = delong([(placements(labels, first), placements(labels, second))])
    assert found.difference == pytest.approx(-1 / 4)
    assert found.standard_error == pytest.approx(math.sqrt(1 / 8 / 2 + 1 / 8 / 2))


def _drawn(generator, gain):
    """Two models of one noise, scored on 400 independent impressions; the other knows more by ``gain``."""
    labels = generator.integers(0, 2, 400)
    shared = generator.normal(size=400)
    scores = [0.5 * labels + know * labels + shared + 0.5 * generator.normal(size=400) for know in (gain, 0)]
    return delong([(placements(labels, scores[0]), placements(labels, scores[1]))])


def test_on_independent_impressions_the_standard_error_is_the_spread_that_is_seen():
    generator = np.random.default_rng(0)
    found = [_drawn(generator, 0.0) for _ in range(800)]
    seen = np.std([item.difference for item in found], ddof=1)
    assert np.mean([item.standard_error for item in found]) == pytest.approx(seen, rel=0.08)
    assert stats.kstest([item.p_value for item in found], "uniform").pvalue > 0.01


def test_a_known_difference_is_found():
    generator = np.random.default_rng(0)
    found = [_drawn(generator, 0.5) for _ in range(20)]
    assert all(item.difference > 0 and item.p_value < 0.01 for item in found)


def test_identical_models_differ_by_exactly_nothing():
    generator = np.random.default_rng(0)
    placed = placements(generator.integers(0, 2, 50), generator.normal(size=50))
    found = delong([(placed, placed)] * 3)
    assert (found, found.p_value) == (DeLong(0.0, 0.0), 1.0)


@pytest.mark.parametrize("labels", [[1, 0, 0, 0], [0, 1, 1, 1]])
def test_one_click_or_one_non_click_has_no_spread(labels):
    scores = np.array([0.3, 0.1, 0.4, 0.2])
    found = delong([(placements(np.array(labels), scores), placements(np.array(labels), -scores))])
    assert (found.standard_error, found.p_value) == (None, None)
    assert contrasted([DeLong(0.1, 0.2)], [found]).standard_error is None


def test_variances_on_different_impressions_add():
    found = contrasted([DeLong(0.3, 0.03)], [DeLong(0.1, 0.04)])
    assert found == (pytest.approx(0.2), pytest.approx(0.05))
    groups = [DeLong(0.3, 0.03), DeLong(0.5, 0.05)], [DeLong(0.1, 0.04), DeLong(0.1, 0.02), DeLong(0.4, 0.06)]
    spread = np.sqrt((0.03**2 + 0.05**2) / 4 + (0.04**2 + 0.02**2 + 0.06**2) / 9)
    assert contrasted(*groups) == (pytest.approx(0.2), pytest.approx(spread))
    assert contrasted([DeLong(0.3, 0.03)]) == DeLong(0.3, 0.03)


def test_no_pair_of_models_is_refused():
    with pytest.raises(DataError, match="there is no pair of models"):
        delong([])
