"""An A/B test against loops and hand-made markets: pages, paired clicks, ratios, and the truth on top."""

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import linear_sum_assignment

from mimctr.evaluate.ab_results import compare_policies, make_pages
from mimctr.evaluate.ab_test import (
    NOBODY,
    Market,
    Ratios,
    draw_uniforms,
    earn,
    level,
    rank,
    relative_change,
    shared,
)
from mimctr.evaluate.contrasts import between_categories
from mimctr.evaluate.online import AS_LOGGED, TRUTH
from mimctr.evaluate.significance import Resampled, resample_users

SLOPE = -0.07
"""Of the bazaar's logit, from one position to the next."""


def market(num_sessions: int = 60, num_candidates: int = 12, num_positions: int = 5, seed: int = 0) -> Market:
    """Return sessions of some users with one to all candidates, probabilities as in the bazaar."""
    rng = np.random.default_rng(seed)
    offered = np.arange(num_candidates) < rng.integers(1, num_candidates + 1, num_sessions)[:, None]
    logit = rng.normal(-1.5, 1.2, (num_sessions, num_candidates))[:, :, None] + SLOPE * np.arange(
        num_positions
    )
    probability = np.where(offered[:, :, None], 1 / (1 + np.exp(-logit)), 0)
    bid = np.where(offered, np.exp(rng.normal(0, 0.7, offered.shape)), 0)
    return Market(rng.integers(0, num_sessions // 3, num_sessions) * 7, offered, probability, bid)


def test_a_page_is_the_best_candidates_in_order_and_what_is_equal_stays_in_order():
    """Mutants: a sort that is not stable; candidates that are not there."""
    there = market()
    values = np.random.default_rng(1).integers(0, 4, there.offered.shape).astype(float)  # many are equal
    for row, page in enumerate(rank(there, values)):
        own = np.flatnonzero(there.offered[row]).tolist()
        best = sorted(own, key=lambda place: (-values[row, place], place))[:5]
        assert page.tolist() == best + [NOBODY] * (5 - len(best))


def test_what_is_earned_equals_a_loop():
    there, seeds = market(), [3, 4]
    page = rank(there, np.random.default_rng(1).random(there.offered.shape))
    uniforms = draw_uniforms(there, seeds)
    earned = earn(there, page, uniforms)
    for row in range(len(page)):
        clicks, revenue, expected, expected_revenue = 0.0, 0.0, 0.0, 0.0
        for position, item in enumerate(page[row]):
            if item == NOBODY:
                continue
            chance = there.probability[row, item, position]
            clicked = np.mean([one[row, item] < chance for one in uniforms])
            clicks, revenue = clicks + clicked, revenue + clicked * there.bid[row, item]
            expected, expected_revenue = expected + chance, expected_revenue + chance * there.bid[row, item]
        assert earned.impressions[row] == (page[row] != NOBODY).sum()
        assert earned.clicks["clicks"][row] == pytest.approx(clicks)
        assert earned.revenue["clicks"][row] == pytest.approx(revenue)
        assert earned.clicks["expected"][row] == pytest.approx(expected)
        assert earned.revenue["expected"][row] == pytest.approx(expected_revenue)


def test_clicks_come_as_often_as_the_true_probability_says():
    there = market(2000)
    earned = earn(there, rank(there, there.bid), draw_uniforms(there, range(3)))
    expected = earned.clicks["expected"].sum()
    assert abs(earned.clicks["clicks"].sum() - expected) < 4 * np.sqrt(expected / 3)


def test_the_same_item_at_the_same_place_gets_the_same_click():
    """Mutant: each policy has clicks of its own."""
    there = market()
    values = np.random.default_rng(1).random(there.offered.shape)
    other = values.copy()
    other[7] = -values[7]
    uniforms = draw_uniforms(there, [0])
    one, two = (earn(there, rank(there, scores), uniforms) for scores in (values, other))
    same = np.arange(60) != 7
    np.testing.assert_array_equal(one.clicks["clicks"][same], two.clicks["clicks"][same])


def test_a_ratio_is_resampled_as_a_ratio():
    """Mutants: the mean of sessions' ratios; users that are drawn once."""
    there = market()
    earned = earn(there, rank(there, there.bid), draw_uniforms(there, [0]))
    sessions = np.arange(60) % 3 > 0
    found = Ratios(there, num_resamples=20, seed=5).of(earned, "rpm", "clicks", sessions)
    users = np.unique(there.users)
    counts = resample_users(len(users), num_resamples=20, seed=5)
    for count, value in zip(counts, found.draws, strict=True):
        rows = [
            row
            for user, times in zip(users, count, strict=True)
            for row in np.flatnonzero((there.users == user) & sessions).tolist() * times
        ]
        wanted = 1000 * earned.revenue["clicks"][rows].sum() / earned.impressions[rows].sum()
        assert value == pytest.approx(wanted)
    shown = earned.impressions[sessions].sum()
    assert found.value == pytest.approx(1000 * earned.revenue["clicks"][sessions].sum() / shown)


def resampled(value: float, draws: list[float]) -> Resampled:
    return Resampled(value, np.array(draws), 10**6)


def test_a_change_is_a_share_of_the_other_policy_seed_by_seed():
    policy = [resampled(0.3, [0.31, 0.29, 0.30]), resampled(0.24, [0.26, 0.22, 0.24])]
    base = [resampled(0.2, [0.21, 0.19, 0.20]), resampled(0.2, [0.2, 0.2, 0.2])]
    found = relative_change(policy, base)
    assert found.mean == pytest.approx((0.5 + 0.2) / 2)
    assert found.sd == pytest.approx(np.std([0.5, 0.2], ddof=1))
    draws = [[0.31 / 0.21, 0.29 / 0.19, 1.5], [1.3, 1.1, 1.2]]
    error = np.sqrt(np.var(np.mean(draws, axis=0), ddof=1) + found.sd**2 / 2)
    assert found.low < found.mean - 1.96 * error  # wider than normal: two seeds
    alone = relative_change(policy[:1], base[:1])
    reach = stats.t.ppf(0.975, 2) * np.std(draws[0], ddof=1)  # three resamples
    assert alone.high - alone.low == pytest.approx(2 * reach, rel=1e-4)


def test_a_policy_without_seeds_meets_every_seed():
    truth = [resampled(0.4, [0.4, 0.4, 0.4])]
    base = [resampled(0.2, [0.2, 0.2, 0.2]), resampled(0.1, [0.1, 0.1, 0.1])]
    assert relative_change(truth, base).mean == pytest.approx((1 + 3) / 2)
    assert relative_change(base, truth).mean == pytest.approx(-(0.5 + 0.75) / 2)


def test_the_same_policy_twice_is_no_change_at_all():
    there = market()
    earned = earn(there, rank(there, there.bid), draw_uniforms(there, [0]))
    ratio = Ratios(there, num_resamples=10, seed=0).of(earned, "ctr", "clicks", np.ones(60, bool))
    found = relative_change([ratio], [ratio])
    assert (found.mean, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_nothing_is_a_share_of_nothing():
    nothing = [resampled(0.0, [0.0, 0.0])]
    assert relative_change([resampled(0.1, [0.1, 0.1])], nothing) is None
    assert level(nothing).mean == 0


def test_shared_impressions_are_counted_whatever_their_place():
    page = np.array([[0, 1, 2], [3, NOBODY, NOBODY]])
    other = np.array([[2, 5, 0], [4, NOBODY, NOBODY]])
    assert shared(page, other) == 2 / 4
    assert shared(page, page) == 1


@pytest.mark.parametrize("ranking", ["probability", "revenue"])
def test_no_order_of_a_model_earns_more_than_that_of_the_true_probabilities(ranking):
    """In expectation; and it comes within half a percent of the best assignment of items to places that there is."""
    there = market(300, num_candidates=25, num_positions=10)
    rng = np.random.default_rng(2)
    truth = there.probability[:, :, 0]
    noisy = {f"{noise}": [truth * np.exp(rng.normal(0, noise, truth.shape))] for noise in (0.1, 0.5, 2.0)}
    pages = make_pages(there, noisy, ranking)
    nothing = np.zeros((1, *truth.shape), np.float32)
    earned = {name: earn(there, own[0], nothing) for name, own in pages.items()}
    what = "clicks" if ranking == "probability" else "revenue"
    totals = {name: getattr(one, what)["expected"].sum() for name, one in earned.items()}
    assert list(totals) == ["0.1", "0.5", "2.0", AS_LOGGED, TRUTH]
    assert totals[TRUTH] > totals["0.1"] > totals["0.5"] > totals["2.0"] > totals[AS_LOGGED]
    worth = there.bid if ranking == "revenue" else np.ones_like(there.bid)
    best = 0.0
    for value in there.probability * worth[:, :, None]:
        best += value[linear_sum_assignment(value, maximize=True)].sum()
    assert 0.995 * best < totals[TRUTH] <= best * (1 + 1e-9)


def test_categories_add_up_and_truth_is_above_a_model_that_knows_less():
    there = market(600)
    names = ["hats" if row % 3 else "cars" for row in range(600)]
    truth = there.probability[:, :, 0]
    rng = np.random.default_rng(0)
    scores = {
        "base": [truth * np.exp(rng.normal(0, 1.5, truth.shape)) for _ in range(2)],
        "mim": [truth * np.exp(rng.normal(0, 0.5, truth.shape)) for _ in range(2)],
    }
    found = compare_policies(there, names, scores, click_seeds=[0, 1], num_resamples=50, resample_seed=0)
    for policy in ("base", "mim", AS_LOGGED, TRUTH):
        parts = {
            one.slice: one for one in found.outcomes if (one.policy, one.ranking) == (policy, "probability")
        }
        assert set(parts) == {"all", "category:hats", "category:cars"}
        for field in ("num_sessions", "num_impressions", "clicks", "expected_clicks", "revenue"):
            whole = getattr(parts["all"], field)
            split = sum(getattr(parts[f"category:{name}"], field) for name in ("hats", "cars"))
            assert split == pytest.approx(whole)
        shown = parts["all"].num_impressions
        assert parts["all"].ctr.mean == pytest.approx(parts["all"].clicks / shown)
        assert parts["all"].rpm.mean == pytest.approx(1000 * parts["all"].revenue / shown)
    sure = {
        (one.policy, one.against): one.relative
        for one in found.changes
        if (one.slice, one.ranking, one.measure, one.count) == ("all", "probability", "ctr", "clicks")
    }
    assert set(sure) == {
        ("mim", "base"),
        *((AS_LOGGED, other) for other in ("base", "mim")),
        *((TRUTH, other) for other in ("base", "mim", AS_LOGGED)),
    }
    assert sure["mim", "base"].low > 0
    assert all(sure[TRUTH, other].low > 0 for other in ("base", "mim", AS_LOGGED))
    assert found.shared_with_base["base"] == 1 > found.shared_with_base["mim"] > 0.3


def test_what_two_categories_share_drops_out_of_their_contrast():
    """The same sessions once as hats and once as cars: changes vary over users and seeds, their contrast does not.

    Mutant: categories are taken as independent.
    """
    half = market(300)
    there = Market(
        *(np.concatenate([one, one]) for one in (half.users, half.offered, half.probability, half.bid))
    )
    truth, rng = half.probability[:, :, 0], np.random.default_rng(0)
    scores = {
        name: [np.tile(truth * np.exp(rng.normal(0, spread, truth.shape)), (2, 1)) for _ in range(2)]
        for name, spread in (("base", 1.5), ("mim", 0.5))
    }
    found = compare_policies(
        there,
        ["hats"] * 300 + ["cars"] * 300,
        scores,
        click_seeds=[0],
        num_resamples=50,
        resample_seed=0,
        by_category=between_categories(("hats",), ("cars",)),
    )
    told = {
        (one.slice, one.minus_slice): one.relative
        for one in found.changes
        if (one.policy, one.against, one.ranking, one.measure, one.count)
        == ("mim", "base", "probability", "ctr", "expected")
    }
    alone, contrast = told["category:hats", None], told["category:hats", "category:cars"]
    assert alone.high - alone.low > 0.01
    assert (contrast.mean, contrast.low, contrast.high) == pytest.approx((0, 0, 0))


def test_intervals_hold_the_expected_change_as_often_as_they_say():
    """Over many draws of clicks, the change of what was drawn is around the change of what is expected."""
    there = market(400, seed=3)
    pages = [rank(there, there.probability[:, :, 0]), rank(there, there.bid)]
    everything, held = np.ones(400, bool), 0
    ratios = Ratios(there, num_resamples=100, seed=0)
    for seed in range(40):
        earned = [earn(there, page, draw_uniforms(there, [seed])) for page in pages]
        found = relative_change(*[[ratios.of(one, "ctr", "clicks", everything)] for one in earned])
        wanted = relative_change(*[[ratios.of(one, "ctr", "expected", everything)] for one in earned])
        held += found.low < wanted.mean < found.high
    assert held >= 35
