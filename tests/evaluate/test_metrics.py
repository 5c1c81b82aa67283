"""Metrics against all-pairs counting, scikit-learn and closed forms."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from mimctr.errors import DataError
from mimctr.evaluate.metrics import (
    auc,
    calibration,
    calibration_bins,
    grouped_auc,
    log_loss,
    relative_improvement,
    sigmoid,
)


def all_pairs_auc(labels, scores):
    """Count every (click, no click) pair; None where there is none."""
    pairs = [
        1.0 if a > b else 0.5 if a == b else 0.0
        for (x, a), (y, b) in itertools.product(list(zip(labels, scores, strict=True)), repeat=2)
        if x == 1 and y == 0
    ]
    return sum(pairs) / len(pairs) if pairs else None


rows = st.lists(
    st.tuples(st.integers(0, 1), st.integers(-3, 3), st.integers(0, 3)), min_size=1, max_size=40
)  # few distinct scores: many ties


@settings(max_examples=200, deadline=None)
@given(rows)
def test_auc_equals_counting_all_pairs_with_ties_as_one_half(values):
    labels, scores, _ = (np.array(column) for column in zip(*values, strict=True))
    expected = all_pairs_auc(labels, scores)
    if expected is None:
        with pytest.raises(DataError, match="there is no pair to rank"):
            auc(labels, scores)
    else:
        assert auc(labels, scores.astype(np.float32)) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=200, deadline=None)
@given(rows)
def test_grouped_auc_equals_a_loop_over_users(values):
    labels, scores, users = (np.array(column) for column in zip(*values, strict=True))
    found = []
    skipped = 0
    for user in set(users.tolist()):
        own = users == user
        value = all_pairs_auc(labels[own], scores[own])
        if value is None:
            skipped += 1
        else:
            found.append((value, own.sum()))
    if not found:
        assert grouped_auc(labels, scores, users) is None
        return
    result = grouped_auc(labels, scores, users)
    assert result.weighted == pytest.approx(sum(v * n for v, n in found) / sum(n for _, n in found))
    assert result.unweighted == pytest.approx(sum(v for v, _ in found) / len(found))
    assert (result.num_groups, result.num_skipped) == (len(found), skipped)


def test_auc_and_log_loss_equal_scikit_learn():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 5000)
    logits = np.round(generator.normal(size=5000) + labels, 1)
    probabilities = sigmoid(logits)
    assert auc(labels, logits) == pytest.approx(sklearn_metrics.roc_auc_score(labels, logits), abs=1e-12)
    assert log_loss(labels, probabilities) == pytest.approx(sklearn_metrics.log_loss(labels, probabilities))


def test_auc_depends_on_the_order_of_scores_only():
    generator = np.random.default_rng(1)
    labels, scores = generator.integers(0, 2, 300), generator.integers(0, 20, 300).astype(float)
    assert auc(labels, np.exp(scores) * 7) == auc(labels, scores)
    assert auc(labels, -scores) == pytest.approx(1 - auc(labels, scores))
    shuffled = generator.permutation(300)
    assert auc(labels[shuffled], scores[shuffled]) == auc(labels, scores)


def test_weighted_and_unweighted_grouped_auc_differ_as_worked_out_by_hand():
    labels = np.array([1, 0, 1, 0, 0, 0, 1])
    scores = np.array([0.9, 0.1, 0.1, 0.9, 0.9, 0.0, 0.5])
    users = np.array([7, 7, 3, 3, 3, 3, 5])  # user 7: 1.0; user 3: 1/3; user 5 has clicks only
    result = grouped_auc(labels, scores, users)
    assert result.weighted == pytest.approx((2 * 1 + 4 / 3) / 6)
    assert result.unweighted == pytest.approx(2 / 3)
    assert (result.num_groups, result.num_skipped) == (2, 1)


def test_calibration_is_perfect_where_predicted_equals_observed_in_every_bin():
    labels = np.array([0, 0, 0, 1] * 10 + [1, 1, 1, 0] * 10)
    result = calibration(labels, np.repeat([0.25, 0.75], 40), num_bins=2)
    assert result.pcoc == pytest.approx(1.0)
    assert result.ece == pytest.approx(0.0, abs=1e-12)


def test_calibration_error_is_the_distance_that_was_put_in():
    labels = np.array([0, 1] * 50)
    result = calibration(labels, np.full(100, 0.6), num_bins=5)
    assert result.pcoc == pytest.approx(1.2)
    assert result.ece == pytest.approx(0.1)


@pytest.mark.parametrize("num_rows", [1, 19, 20, 21, 507])
def test_bins_are_those_of_a_loop_over_sorted_predictions(num_rows):
    generator = np.random.default_rng(num_rows)
    probabilities = np.round(generator.random(num_rows), 2).astype(np.float32)  # ties
    labels = generator.integers(0, 2, num_rows)
    ranked = sorted(range(num_rows), key=lambda row: (probabilities[row], row))
    found = calibration_bins(labels, probabilities)
    assert len(found.num_rows) == min(num_rows, 20)
    assert found.num_rows.sum() == num_rows
    assert found.num_rows.max() - found.num_rows.min() <= 1
    first = 0
    for number, size in enumerate(found.num_rows.tolist()):
        rows = ranked[first : first + size]
        assert found.predicted[number] == pytest.approx(np.mean(probabilities[rows].astype(float)))
        of_equals = [labels[probabilities == probabilities[row]].mean() for row in rows]
        assert found.observed[number] == pytest.approx(np.mean(of_equals))
        first += size


def test_of_equal_probabilities_the_order_of_the_rows_is_nothing():
    """A constant that is right on average is calibrated, also where all clicks come first."""
    labels = np.repeat([1, 0], [30, 70])
    found = calibration(labels, np.full(100, 0.3))
    assert found.ece == pytest.approx(0, abs=1e-12)
    mixed = np.where(np.arange(100) % 2, 0.2, 0.4)
    shuffled = np.random.default_rng(0).permutation(100)
    one, other = (calibration(labels[rows], mixed[rows]) for rows in (np.arange(100), shuffled))
    assert one.ece == pytest.approx(other.ece)


def test_more_bins_than_rows_gives_one_bin_per_row():
    assert calibration(np.array([1, 0]), np.array([0.75, 0.5]), num_bins=50).ece == pytest.approx(0.375)


def test_log_loss_of_a_certain_mistake_is_large_but_finite():
    assert log_loss(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == pytest.approx(-math.log(1e-15), rel=1e-2)


def test_sigmoid_neither_overflows_nor_loses_small_probabilities():
    values = sigmoid(np.array([-1000.0, -40.0, 0.0, 3.0, 1000.0], dtype=np.float32))
    np.testing.assert_allclose(values, [0.0, math.exp(-40), 0.5, 1 / (1 + math.exp(-3)), 1.0], rtol=1e-12)


def test_relative_improvement_is_the_gain_over_a_coin():
    assert relative_improvement(0.62, 0.60) == pytest.approx(0.2)
    with pytest.raises(DataError, match=r"the base AUC is 0\.5"):
        relative_improvement(0.6, 0.5)


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([0, 1], [0.5], r"labels are \(2,\) but scores are \(1,\)"),
        ([], [], "there are no rows"),
        ([0, 2, 1], [0.1, 0.2, 0.3], "1 of 3 labels are neither 0 nor 1. First: row 1, 2"),
        ([0, 1, 1], [0.1, float("nan"), 0.3], "1 of 3 scores are NaN. First: row 1"),
        ([1, 1], [0.1, 0.2], "all 2 labels are 1"),
        ([0, 0], [0.1, 0.2], "all 2 labels are 0"),
    ],
)
def test_what_cannot_be_ranked_is_refused(labels, scores, message):
    with pytest.raises(DataError, match=message):
        auc(np.array(labels), np.array(scores))


def test_logits_given_as_probabilities_are_refused():
    with pytest.raises(DataError, match=r"1 of 2 probabilities lie outside \[0, 1\]. First: row 1, 2.5"):
        log_loss(np.array([0, 1]), np.array([0.5, 2.5]))


def test_calibration_without_a_click_is_refused():
    with pytest.raises(DataError, match="none of 3 labels is a click"):
        calibration(np.zeros(3), np.full(3, 0.1))


def test_one_group_per_label_is_required():
    with pytest.raises(DataError, match="2 labels but"):
        grouped_auc(np.array([0, 1]), np.array([0.1, 0.2]), np.array([1]))
