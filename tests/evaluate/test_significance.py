"""Resamples of users against copies of them and known truths; Student's distribution against SciPy."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from mimctr.errors import DataError
from mimctr.evaluate.significance import (
    BySeed,
    by_seed,
    pool,
    resample_users,
    resampled_auc,
    student_inside,
    student_outside,
    student_quantile,
)


def test_resamples_draw_as_many_users_as_there_are():
    counts = resample_users(50, num_resamples=20, seed=0)
    assert (counts.sum(axis=1) == 50).all()
    assert np.array_equal(counts, resample_users(50, num_resamples=20, seed=0))
    assert not np.array_equal(counts, resample_users(50, num_resamples=20, seed=1))


@pytest.mark.parametrize("digits", [0, 6])  # many ties, none
def test_resamples_spread_as_if_users_were_copied(digits):
    """Mutants: impressions count as users; clicks alone; a user's two classes apart."""
    generator = np.random.default_rng(0)
    users = generator.integers(0, 150, 1500)
    taste = generator.normal(size=150)[users]
    labels = (generator.random(1500) < 1 / (1 + np.exp(-taste))).astype(int)
    scores = np.round(generator.normal(size=1500) + 0.5 * labels - 0.5 * taste, digits)
    counts = resample_users(150, num_resamples=400, seed=3)
    found = resampled_auc(labels, scores, users, counts)
    copied = []
    for count in counts:
        copies = np.repeat(np.arange(1500), count[users])
        copied.append(roc_auc_score(labels[copies], scores[copies]))
    assert found.value == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert np.corrcoef(found.draws, copied)[0, 1] > 0.995
    assert found.draws.std() == pytest.approx(np.std(copied), rel=0.03)
    assert found.num_users == min(len(np.unique(users[labels == one])) for one in (0, 1))


def test_an_auc_rests_on_the_fewer_of_users_with_clicks_and_with_others():
    labels = np.array([1, 1, 0, 0, 0])
    counts = resample_users(4, num_resamples=10, seed=0)
    assert resampled_auc(labels, np.arange(5.0), np.array([0, 0, 1, 2, 3]), counts).num_users == 1
    assert resampled_auc(labels, np.arange(5.0), np.array([0, 1, 1, 2, 3]), counts).num_users == 2


def _differences(generator, gain):
    """Two models scored on 200 users with a true difference; both see the same noise, as real models do."""
    users = np.repeat(np.arange(200), 15)
    taste = generator.normal(size=3000) + 0.5 * generator.normal(size=200)[users]
    labels = (generator.random(3000) < 1 / (1 + np.exp(-taste))).astype(int)
    shared = generator.normal(size=3000)
    base = taste + 1.5 * shared + 0.5 * generator.normal(size=3000)
    other = (1 + gain) * taste + 1.5 * shared + 0.5 * generator.normal(size=3000)
    counts = resample_users(200, num_resamples=100, seed=0)
    first, second = (by_seed([resampled_auc(labels, scores, users, counts)]) for scores in (other, base))
    return pool(first.minus(second))


def test_the_interval_covers_zero_where_there_is_no_difference():
    generator = np.random.default_rng(0)
    found = [_differences(generator, 0.0) for _ in range(60)]
    covered = sum(item.low <= 0 <= item.high for item in found)
    assert covered >= 52  # P(less) < 0.5 % at 95 % coverage
    assert sum(item.p_value < 0.05 for item in found) == 60 - covered


def test_a_known_difference_is_found():
    generator = np.random.default_rng(0)
    found = [_differences(generator, 0.5) for _ in range(5)]
    assert all(item.low > 0 and item.p_value < 0.01 for item in found)


def test_the_variances_of_users_and_seeds_add():
    generator = np.random.default_rng(0)
    draws = 0.01 + 0.002 * generator.normal(size=(1, 1000)).repeat(3, axis=0)  # same users for every seed
    values = np.array([0.008, 0.010, 0.012])
    found = pool(BySeed(values, draws, 41))
    of_users, of_seeds = draws[0].var(ddof=1) * 41 / 40, 0.002**2 / 3
    degrees = (of_users + of_seeds) ** 2 / (of_seeds**2 / 2 + of_users**2 * (1 / 40 + 1 / 999))
    reach = stats.t.ppf(0.975, degrees) * math.sqrt(of_users + of_seeds)
    assert found.mean == pytest.approx(0.01)
    assert found.sd == pytest.approx(0.002)
    assert found.low == pytest.approx(0.01 - reach)
    assert found.high == pytest.approx(0.01 + reach)
    assert found.p_value == pytest.approx(2 * stats.t.sf(0.01 / math.sqrt(of_users + of_seeds), degrees))


def test_two_disagreeing_seeds_make_a_wide_interval():
    draws = np.random.default_rng(0).normal(0.01, 0.001, (2, 500))
    same, apart = (pool(BySeed(np.array(values), draws, 900)) for values in ([0.01, 0.01], [0.0, 0.02]))
    assert apart.high - apart.low > 20 * (same.high - same.low)


def test_no_interval_is_made_up_where_resamples_say_nothing():
    draws = np.random.default_rng(0).normal(0.01, 0.001, (1, 100))
    without = draws.copy()
    without[0, :20] = np.nan
    value = np.array([0.01])
    assert None not in pool(BySeed(value, draws, 2))[2:]
    for nothing in (
        BySeed(value, without, 900),
        BySeed(value, np.empty((1, 0)), 900),
        BySeed(value, draws, 1),
    ):
        assert pool(nothing)[2:] == (None, None, None, None)


@pytest.mark.parametrize("num_users", [3, 8])
def test_few_users_do_not_make_a_difference_sure(num_users):
    """No true difference; a user's impressions are alike, so that users are what counts. Mutant: normal intervals."""
    generator = np.random.default_rng(num_users)
    counts = resample_users(num_users, num_resamples=500, seed=0)
    users = np.repeat(np.arange(num_users), 40)
    sure = 0
    for _ in range(300):
        labels = generator.integers(0, 2, len(users))
        leaning = generator.normal(size=(2, num_users)) * (2 * labels[:, None, None] - 1)
        own = leaning[np.arange(len(users)), :, users]  # each user likes one of the models, on both classes
        first, second = (
            by_seed([resampled_auc(labels, generator.normal(size=len(users)) + own[:, one], users, counts)])
            for one in (0, 1)
        )
        sure += pool(first.minus(second)).p_value < 0.05
    assert sure <= 27  # 15 expected; P(more) < 0.2 %


def test_identical_models_differ_by_exactly_nothing():
    assert pool(BySeed(np.zeros(2), np.zeros((2, 50)), 9)) == (0.0, 0.0, 0.0, 0.0, 0.0, 1.0)


def test_nothing_cannot_be_pooled():
    with pytest.raises(DataError, match="there is no difference to pool"):
        pool(BySeed(np.array([]), np.empty((0, 10)), 9))


@pytest.mark.parametrize("degrees", [1, 2, 3.7, 30, 5000, 9e5, math.inf])
def test_student_equals_scipy(degrees):
    for t in (0.0, 0.5, 2.0, 8.0):
        expected = stats.t.cdf(t, degrees) - stats.t.cdf(-t, degrees)
        assert student_inside(t, degrees) == pytest.approx(expected, abs=1e-6)
    assert student_quantile(0.95, degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=1e-5)


@pytest.mark.parametrize("degrees", [1.0, 2.5, 40.0, 3_000.0, math.inf])
def test_what_lies_outside_is_a_probability_even_far_out(degrees):
    for t in (0.0, 0.5, 3.0, 12.0, 400.0):
        outside = student_outside(t, degrees)
        assert 0 <= outside <= 1
        assert outside == pytest.approx(2 * stats.t.sf(t, degrees), abs=1e-6)
