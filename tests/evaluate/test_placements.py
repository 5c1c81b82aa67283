"""Placements against the double loop of their definition; a user's influence against the derivative it is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from mimctr.evaluate.placements import GroupedRanking, Ranking, influences, placements

rows = st.lists(
    st.tuples(st.integers(0, 1), st.integers(-2, 2), st.integers(0, 3), st.booleans()),
    min_size=4,
    max_size=40,
).filter(lambda values: len({click for click, _, _, kept in values if kept}) == 2)
"""Clicks, few distinct scores, users, and whether the slice holds the impression."""


def columns(values):
    return (np.array(column) for column in zip(*values, strict=True))


def kernel(labels, scores):
    """Return, for every click (row) and non-click (column), whether the click is ranked above; a tie is one half."""
    clicks, others = scores[labels == 1], scores[labels == 0]
    return (clicks[:, None] > others) + 0.5 * (clicks[:, None] == others)


@settings(max_examples=200, deadline=None)
@given(rows)
def test_placements_are_the_means_of_a_double_loop_and_average_to_the_auc(values):
    labels, scores, _, _ = columns(values)
    found, expected = placements(labels, scores.astype(np.float32)), kernel(labels, scores)
    np.testing.assert_allclose(found.clicks, expected.mean(axis=1), rtol=0, atol=1e-15)
    np.testing.assert_allclose(found.non_clicks, expected.mean(axis=0), rtol=0, atol=1e-15)
    assert found.auc == pytest.approx(roc_auc_score(labels, scores))
    assert found.clicks.mean() == pytest.approx(found.auc)


@pytest.mark.parametrize("jitter", [0.0, 1e-3])  # ties, none
@settings(max_examples=200, deadline=None)
@given(values=rows)
def test_of_a_slice_they_are_those_of_its_impressions_alone(jitter, values):
    labels, scores, _, kept = columns(values)
    scores = scores + jitter * np.arange(len(scores))
    found, alone = Ranking(labels, scores).placements(kept), placements(labels[kept], scores[kept])
    np.testing.assert_array_equal(found.clicks, alone.clicks)
    np.testing.assert_array_equal(found.non_clicks, alone.non_clicks)
    assert found.auc == alone.auc


@settings(max_examples=200, deadline=None)
@given(rows)
def test_aucs_within_groups_of_a_slice_are_those_of_a_loop(values):
    """Mutants: a group's clicks pass the non-clicks of the groups before; a slice counts what is outside."""
    labels, scores, groups, kept = columns(values)
    found = GroupedRanking(labels, scores, groups).aucs(kept)
    expected = []
    for group in np.unique(groups[kept]):
        own = kept & (groups == group)
        if len(set(labels[own])) == 2:
            expected.append((roc_auc_score(labels[own], scores[own]), own.sum()))
    assert found.values == pytest.approx([auc for auc, _ in expected])
    assert found.num_rows.tolist() == [size for _, size in expected]
    assert found.num_groups == len(np.unique(groups[kept]))


@settings(max_examples=100, deadline=None)
@given(rows)
def test_an_influence_is_the_derivative_of_the_auc_by_the_users_weight(values):
    """Mutant: a user's clicks or non-clicks alone."""
    labels, scores, users, _ = columns(values)
    clicked = labels == 1
    found = influences(placements(labels, scores), users[clicked], users[~clicked], 4)
    ranked = kernel(labels, scores)
    for user in range(4):
        step, weighted = 1e-4, []
        for sign in (1, -1):
            weights = 1 + sign * step * (users == user)
            pairs = weights[clicked][:, None] * weights[~clicked]
            weighted.append((pairs * ranked).sum() / pairs.sum())
        assert found[user] == pytest.approx((weighted[0] - weighted[1]) / (2 * step), abs=1e-7)
    assert found.sum() == pytest.approx(0, abs=1e-12)


def test_where_every_user_has_one_impression_their_squares_are_delongs_variance():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 300)
    scores = np.round(generator.normal(size=300) + labels, 1)
    placed, clicked = placements(labels, scores), labels == 1
    found = influences(placed, np.flatnonzero(clicked), np.flatnonzero(~clicked), 300)
    variance = placed.clicks.var() / clicked.sum() + placed.non_clicks.var() / (~clicked).sum()
    assert (found**2).sum() == pytest.approx(variance)
