"""Estimates from propensities: against plain loops, against the truth of a market, and where a log cannot say."""

import tracemalloc
from itertools import combinations, permutations

import numpy as np
import pytest

from mimctr.evaluate.off_policy_results import estimate_policies
from mimctr.evaluate.reranking import Estimator, Log, find_pages, weigh_placements


def make_log(rows: list[tuple]) -> Log:
    """Rows of user, time, query, item, position, propensity, click."""
    return Log(*map(np.array, zip(*rows, strict=True)))


def random_log(rng: np.random.Generator, *, num_pages: int = 60, shuffled: bool = True) -> Log:
    rows = []
    for page in range(num_pages):
        size = int(rng.integers(1, 6))
        items = rng.choice(np.arange(2, 40), size, replace=False)
        positions = rng.choice(np.arange(0, 20), size, replace=False)
        for item, position in zip(items, positions, strict=True):
            click = int(rng.random() < 0.4)
            rows.append((page % 17 + 2, 1000 + page, page % 3, item, position, rng.uniform(0.2, 1), click))
    if shuffled:
        rows = [rows[place] for place in rng.permutation(len(rows))]
    return make_log(rows)


def pages_by_loop(log: Log) -> dict[tuple, list[int]]:
    """Rows of each page, the topmost first; pages of one item are none."""
    found: dict[tuple, list[int]] = {}
    for row in range(len(log.user)):
        found.setdefault((log.user[row], log.time[row], log.query[row]), []).append(row)
    ordered = {key: sorted(rows, key=lambda row: log.position[row]) for key, rows in sorted(found.items())}
    return {key: rows for key, rows in ordered.items() if len(rows) > 1}


def rate_by_loop(log: Log, scores: np.ndarray, depth: int) -> float:
    weights, clicks, shown = np.zeros((3, 2000))
    for rows in pages_by_loop(log).values():
        chosen = sorted(rows, key=lambda row: (-scores[row], log.item[row]))
        for place, (row, wanted) in enumerate(zip(rows, chosen, strict=True)):
            shown[place] += 1
            if row == wanted:
                weights[place] += 1 / log.propensity[row]
                clicks[place] += log.click[row] / log.propensity[row]
    places = np.flatnonzero(shown[:depth])
    return float((shown[places] * clicks[places] / weights[places]).sum() / shown[places].sum())


def test_pages_are_those_of_a_loop():
    log = random_log(np.random.default_rng(0))
    pages, expected = find_pages(log), pages_by_loop(log)
    assert pages.num_pages == len(expected)
    for page, rows in enumerate(expected.values()):
        assert pages.row[pages.page == page].tolist() == rows
        assert pages.place[pages.page == page].tolist() == list(range(len(rows)))
    assert pages.num_places == max(map(len, expected.values()))
    for name in ("user", "item", "click", "propensity"):
        np.testing.assert_array_equal(getattr(pages, name), getattr(log, name)[pages.row])
    assert pages.left_out == {
        "one item": len({(u, t) for u, t in zip(log.user, log.time, strict=True)}) - len(expected)
    }


def test_pages_that_say_nothing_are_left_out_and_counted():
    log = make_log(
        [
            (2, 1, 0, 5, 0, 0.5, 1),
            (2, 1, 0, 6, 1, 0.5, 0),  # the only good one
            (2, 2, 0, 5, 0, 1.0, 1),  # one item
            (2, 3, 0, 5, 0, 0.5, 1),
            (2, 3, 0, 6, -1, 0.5, 0),  # no position
            (3, 1, 0, 5, 0, np.nan, 1),
            (3, 1, 0, 6, 1, 0.5, 0),  # no propensity
            (3, 1, 9, 5, 4, 0.5, 1),  # another query: another page
            (3, 1, 9, 6, 4, 0.5, 1),  # two items in one place
        ]
    )
    pages = find_pages(log)
    assert (pages.row.tolist(), pages.num_pages) == ([0, 1], 1)
    assert pages.left_out == {"one item": 1, "no position or propensity": 2, "two items in one place": 1}


def test_one_long_page_costs_its_own_rows_alone():
    """Mutant: every page is as long as the longest, here 4 million places of 6,000 impressions."""
    rows = [(page % 50 + 2, page, 0, place, place, 0.5, 1) for page in range(2000) for place in range(2)]
    rows += [(7, 5000, 0, place, place, 0.5, 0) for place in range(2000)]
    log = make_log(rows)
    scores = np.random.default_rng(0).normal(size=len(rows))
    tracemalloc.start()
    try:
        pages = find_pages(log)
        [found] = Estimator(pages, num_resamples=2, seed=0).of(weigh_placements(pages, scores), [2])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (pages.num_pages, pages.num_places, len(pages.row)) == (2001, 2000, 6000)
    assert found.value == pytest.approx(rate_by_loop(log, scores, 2), rel=1e-12)
    assert peak < 10e6


def test_a_log_without_any_page_gives_none():
    pages = find_pages(make_log([(2, 1, 0, 5, 0, 1.0, 1)]))
    assert (pages.num_pages, pages.num_places, len(pages.row)) == (0, 0, 0)


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("seed", range(3))
def test_rates_are_those_of_a_loop(depth, seed):
    """Mutants: no propensity; normalized over all places at once; ties by the log's order; sums not by place."""
    rng = np.random.default_rng(seed)
    log = random_log(rng, num_pages=200)
    scores = rng.integers(0, 3, len(log.user)).astype(np.float64)  # with ties
    pages = find_pages(log)
    estimator = Estimator(pages, num_resamples=5, seed=0)
    [found] = estimator.of(weigh_placements(pages, scores), [depth])
    assert found.value == pytest.approx(rate_by_loop(log, scores, depth), rel=1e-12)


def test_a_resample_is_a_log_in_which_users_are_repeated():
    rng = np.random.default_rng(1)
    log = random_log(rng, num_pages=200)
    scores = rng.normal(size=len(log.user))
    pages = find_pages(log)
    estimator = Estimator(pages, num_resamples=3, seed=4)
    [found] = estimator.of(weigh_placements(pages, scores), [2])
    users = np.unique(pages.user)
    for counts, drawn in zip(estimator._counts, found.draws, strict=True):
        rows, repeated = [], []
        for user, count in zip(users, counts, strict=True):
            own = np.flatnonzero(log.user == user)
            for time in range(count):
                rows += own.tolist()
                repeated += [1000 * time] * len(own)
        again = Log(*(column[rows] for column in log))._replace(user=log.user[rows] + np.array(repeated))
        assert drawn == pytest.approx(rate_by_loop(again, scores[rows], 2), rel=1e-12)


def test_neither_the_order_of_rows_nor_the_height_of_scores_matters():
    rng = np.random.default_rng(2)
    log = random_log(rng, num_pages=100)
    scores = rng.normal(size=len(log.user))
    order = rng.permutation(len(scores))
    results = []
    for rows, values in ((np.arange(len(scores)), scores), (order, np.exp(scores[order]) + 7)):
        pages = find_pages(Log(*(column[rows] for column in log)))
        results.append(Estimator(pages, num_resamples=4, seed=0).of(weigh_placements(pages, values), [1, 5]))
    for one, other in zip(*results, strict=True):
        assert one.value == pytest.approx(other.value)
        np.testing.assert_allclose(one.draws, other.draws)


def test_the_logs_own_order_has_the_logs_click_rate():
    log = random_log(np.random.default_rng(3))
    pages = find_pages(log)
    first, whole = Estimator(pages, num_resamples=2, seed=0).of(weigh_placements(pages, None), [1, 5])
    assert whole.value == pytest.approx(pages.click.mean())
    assert first.value == pytest.approx(pages.click[pages.place == 0].mean())


class Shop:
    """Pages of four of ten items, drawn in orders that favor some; what is clicked depends on item and place."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.worth = np.random.default_rng(99).uniform(0.1, 0.9, 12)
        self.seen = np.array([1.0, 0.6, 0.4, 0.3])

    def log(self, num_pages: int) -> Log:
        items = np.argsort(self.rng.random((num_pages, 10)), axis=1)[:, :4] + 2
        appeal = np.exp(0.15 * (items % 4))
        orders = np.array(list(permutations(range(4))))
        chances = np.stack([plackett_luce(appeal[:, order]) for order in orders], axis=1)  # (pages, orders)
        drawn = (self.rng.random(num_pages)[:, None] > np.cumsum(chances, axis=1)[:, :-1]).sum(axis=1)
        chosen = orders[drawn]  # (pages, places)
        same = orders[None] == chosen[:, None]  # (pages, orders, places)
        propensity = (chances[:, :, None] * same).sum(axis=1)
        shown = np.take_along_axis(items, chosen, axis=1)
        click = self.rng.random(shown.shape) < self.worth[shown] * self.seen
        page, place = (values.ravel() for values in np.indices(shown.shape))
        return Log(
            page % 500 + 2,
            page,
            0 * page,
            shown.ravel(),
            place,
            propensity.ravel(),
            click.ravel().astype(int),
        )

    def truth(self, scores: np.ndarray, depth: int) -> float:
        """Clicks per impression of a policy that scores items, over all pages."""
        pages = [sorted(page, key=lambda item: -scores[item]) for page in combinations(range(2, 12), 4)]
        return float((self.worth[np.array(pages)] * self.seen)[:, :depth].mean())


def plackett_luce(appeal: np.ndarray) -> np.ndarray:
    """Probability of drawing items in this order, each by its appeal among those that are left."""
    left = np.cumsum(appeal[:, ::-1], axis=1)[:, ::-1]
    return np.prod(appeal / left, axis=1)


@pytest.mark.parametrize("depth", [1, 4])
def test_estimates_are_the_truth_of_a_market_and_intervals_hold_it(depth):
    """Forty logs: no bias beyond three standard errors, and some 95 % of the intervals hold the truth."""
    item_scores = np.random.default_rng(5).normal(size=12)
    held, values = 0, []
    for seed in range(40):
        shop = Shop(seed)
        log = shop.log(1500)
        found = estimate_policies(
            find_pages(log),
            {"mine": [item_scores[log.item]]},
            depths=[1],
            num_resamples=100,
            resample_seed=0,
        )
        wanted = None if depth == 4 else depth
        [one] = [o for o in found.outcomes if (o.policy, o.depth) == ("mine", wanted)]
        truth = shop.truth(item_scores, depth)
        held += one.ctr.low <= truth <= one.ctr.high
        values.append(one.ctr.mean)
        assert all(support.supported for support in found.support)
    assert abs(np.mean(values) - truth) < 3 * np.std(values) / np.sqrt(len(values))
    assert held >= 34
    assert abs(truth - shop.truth(-item_scores, depth)) > 5 * np.std(values) / np.sqrt(len(values))


def test_a_log_with_one_order_only_supports_no_other():
    rng = np.random.default_rng(6)
    rows = [
        (page % 50 + 2, page, 0, 2 + place, place, 1.0, int(rng.random() < 0.3))
        for page in range(300)
        for place in range(3)
    ]
    log = make_log(rows)
    found = estimate_policies(
        find_pages(log),
        {"same": [-log.item.astype(float)], "other": [rng.normal(size=len(rows))]},
        depths=[1],
        num_resamples=20,
        resample_seed=0,
    )
    assert {one.policy: one.supported for one in found.support} == {
        "as logged": True,
        "same": True,
        "other": False,
    }
    assert {one.policy for one in found.outcomes} == {"as logged", "same"}
    assert {(one.policy, one.against) for one in found.changes} == {("as logged", "same")}


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_propensities_that_are_not_true_are_noticed(factor):
    log = Shop(0).log(800)
    wrong = log._replace(propensity=np.minimum(log.propensity * factor, 1))
    found = estimate_policies(
        find_pages(wrong), {"mine": [log.item * 1.0]}, depths=[1], num_resamples=20, resample_seed=0
    )
    assert {one.policy: one.supported for one in found.support} == {"mine": False, "as logged": True}


def test_a_policy_that_the_log_never_follows_is_not_supported():
    rows = [(page + 2, page, 0, 2 + place, place, 0.5, 1) for page in range(30) for place in range(2)]
    log = make_log(rows)
    pages = find_pages(log)
    support = Estimator(pages, num_resamples=5, seed=0).support(weigh_placements(pages, log.item * 1.0))
    assert (support.matched, support.effective, support.mean_weight.value) == (0, 0.0, 0.0)
    found = estimate_policies(pages, {"x": [log.item * 1.0]}, depths=[1], num_resamples=5, resample_seed=0)
    assert [one.policy for one in found.support if not one.supported] == ["x"]


def pinned_log(rng: np.random.Generator, pinned: int, *, num_pages: int = 400) -> Log:
    """Pages of ten items in random orders, but the item of its number stands at the place ``pinned``."""
    rows = []
    for page in range(num_pages):
        items = rng.permutation(10)
        items[[pinned, np.flatnonzero(items == pinned)[0]]] = pinned, items[pinned]
        for place, item in enumerate(items):
            propensity = 1.0 if place == pinned else 1 / 9
            rows.append((page % 90 + 2, page, 0, item + 2, place, propensity, int(rng.random() < 0.3)))
    return make_log(rows)


def estimate_pinned(pinned: int, departs: list[np.ndarray], *, depths: tuple[int, ...] = (1, 3)):
    """What such a log says of a policy that keeps to the pin, but not on the pages ``departs``, one array a seed."""
    log = pinned_log(np.random.default_rng(7), pinned)
    scores = []
    for seed, pages in enumerate(departs):
        order = np.random.default_rng(seed).permutation(10)
        order[[pinned, np.flatnonzero(order == pinned)[0]]] = pinned, order[pinned]
        place = np.empty((400, 10))
        place[:, order] = np.arange(10)
        place[pages] = np.roll(place[pages], 1, axis=1)  # every item where another one should be
        scores.append(-place[log.time, log.item - 2])
    return estimate_policies(
        find_pages(log), {"mine": scores}, depths=depths, num_resamples=100, resample_seed=0
    )


@pytest.mark.parametrize(
    ("pinned", "depths"), [(0, []), (3, [1, 3])], ids=["the first place", "the fourth place"]
)
def test_what_reaches_a_place_that_the_log_pins_is_not_estimated(pinned, depths):
    """The weights of the page have the mean .97, those of the pinned place .7. Mutant: only the page is looked at."""
    found = estimate_pinned(pinned, [np.arange(120)])
    mine, as_logged = found.support
    assert abs(mine.mean_weight.mean - 1) < 0.1
    assert (mine.wrong.place, mine.wrong.mean_weight) == (pinned + 1, 0.7)
    assert (mine.supported, as_logged.supported, as_logged.wrong) == (bool(depths), True, None)
    assert [one.depth for one in found.outcomes if one.policy == "mine"] == depths
    assert [(one.policy, one.depth) for one in found.changes] == [("as logged", depth) for depth in depths]
    kept = estimate_pinned(pinned, [np.arange(0)])
    assert [one.depth for one in kept.outcomes if one.policy == "mine"] == [1, 3, None]


def test_how_seeds_differ_is_no_doubt_of_the_log():
    """Seeds that depart on 20 % and on 40 % of pages. Mutant: their spread, of two, makes the interval wide."""
    mine, _ = estimate_pinned(0, [np.arange(80), np.arange(160)]).support
    assert (mine.wrong.place, mine.wrong.mean_weight) == (1, pytest.approx(0.7))
    assert not mine.supported


def test_sound_logs_stay_supported_at_every_place():
    """Of 400 places of sound logs none is wrong. Mutant: below 1 the interval is not made longer."""
    scores = np.random.default_rng(5).normal(size=12)
    for seed in range(100):
        log = Shop(seed).log(60)
        found = estimate_policies(
            find_pages(log), {"mine": [scores[log.item]]}, depths=[1, 3], num_resamples=50, resample_seed=0
        )
        assert [one.wrong for one in found.support] == [None, None]
        assert [one.depth for one in found.outcomes if one.policy == "mine"] == [1, 3, None]


def test_a_place_that_hardly_anybody_saw_is_taken_as_it_is():
    """The fifth place, on two pages. Mutant: without an interval a place is wrong."""
    rng = np.random.default_rng(3)
    log = Shop(2).log(400)
    long = [(600 + page, 500 + page, 0, 20 + place, place, 0.2, 1) for page in range(2) for place in range(5)]
    log = make_log([*zip(*log, strict=True), *long])
    scores = np.where(log.item < 20, rng.normal(size=len(log.item)), -log.item)
    found = estimate_policies(
        find_pages(log), {"mine": [scores]}, depths=[1], num_resamples=50, resample_seed=0
    )
    assert [one.wrong for one in found.support] == [None, None]
    assert [one.depth for one in found.outcomes if one.policy == "mine"] == [1, None]


def test_the_mean_weight_of_each_place_is_that_of_a_loop():
    log = random_log(np.random.default_rng(8), num_pages=200)
    scores = np.random.default_rng(9).normal(size=len(log.user))
    pages = find_pages(log)
    estimator = Estimator(pages, num_resamples=3, seed=4)
    found = estimator.support(weigh_placements(pages, scores)).of_places
    weights, users = [[] for _ in range(5)], [[] for _ in range(5)]
    for rows in pages_by_loop(log).values():
        chosen = sorted(rows, key=lambda row: (-scores[row], log.item[row]))
        for place, (row, wanted) in enumerate(zip(rows, chosen, strict=True)):
            weights[place].append(1 / log.propensity[row] if row == wanted else 0.0)
            users[place].append(log.user[row])
    known = np.unique(pages.user)
    for one, own, by in zip(found, weights, users, strict=True):
        assert one.value == pytest.approx(np.mean(own), rel=1e-12)
        assert one.num_users == len(set(by))
        for counts, drawn in zip(estimator._counts, one.draws, strict=True):
            assert drawn == pytest.approx(np.average(own, weights=counts[np.searchsorted(known, by)]))


def test_changes_are_paired_over_seeds_and_worth_is_kishs():
    log = Shop(1).log(600)
    pages = find_pages(log)
    scores = [np.random.default_rng(seed).normal(size=12)[log.item] for seed in (0, 1)]
    found = estimate_policies(
        pages, {"a": scores, "b": scores}, depths=[1], num_resamples=20, resample_seed=0
    )
    [same] = [one for one in found.changes if (one.policy, one.against, one.depth) == ("b", "a", 1)]
    assert (same.relative.mean, same.relative.low, same.relative.high) == (0, 0, 0)
    weights = weigh_placements(pages, scores[0])
    support = Estimator(pages, num_resamples=2, seed=0).support(weights)
    assert support.effective == pytest.approx(weights.sum() ** 2 / (weights**2).sum())
    assert support.matched == np.count_nonzero(weights)
    assert support.largest_weight == weights.max()
    assert support.mean_weight.value == pytest.approx(weights.mean())


def test_places_where_the_log_never_did_what_the_policy_does_are_not_estimated():
    """Two items whose order is drawn, and a third place on one page alone, where the policy wants another item."""
    rows = [
        (page + 2, page, 0, 2 + (place + page) % 2, place, 0.5, place)
        for page in range(200)
        for place in range(2)
    ]
    log = make_log([*rows, (2, 0, 0, 9, 2, 0.5, 1)])
    scores = np.where(log.item == 9, 5.0, -log.item.astype(float))
    found = estimate_policies(find_pages(log), {"x": [scores]}, depths=[1], num_resamples=10, resample_seed=0)
    assert [(one.policy, one.depth) for one in found.outcomes] == [
        ("x", 1),
        ("as logged", 1),
        ("as logged", None),
    ]
    assert [(one.policy, one.against, one.depth) for one in found.changes] == []
