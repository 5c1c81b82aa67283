"""Search metrics with intervals: against copies of users, hand counts and SciPy's Student distribution."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from mimctr.errors import DataError
from mimctr.evaluate.searches import Searched, measure, resampled_mean
from mimctr.evaluate.significance import resample_users

NUM_PAIRS, NUM_USERS = 60, 12


def searched(seed: int, *, shift: float = 0.0) -> Searched:
    """Return random ranks of the same pairs for every ``seed``; ``shift`` makes them better."""
    pairs, rng = np.random.default_rng(99), np.random.default_rng(seed)
    user = pairs.integers(100, 100 + NUM_USERS, NUM_PAIRS)
    unseen = pairs.random(NUM_PAIRS) < 0.4
    click = pairs.integers(0, 2, 200).astype(np.float32)
    return Searched(
        rank=np.exp(rng.normal(3.0 - shift, 1.5, NUM_PAIRS)).clip(min=1),
        user=user,
        slices={"all": np.ones(NUM_PAIRS, dtype=bool), "item:unseen": unseen, "item:seen": ~unseen},
        score=rng.normal(size=200).astype(np.float32) + shift * click,
        click=click,
        impression_user=pairs.integers(100, 100 + NUM_USERS, 200),
    )


def measures_of(rows, **options):
    found = measure(
        {row: [{"test": search} for search in seeds] for row, seeds in rows.items()},
        base="plain",
        best="mim",
        num_resamples=200,
        **options,
    )
    return {(one.row, one.slice, one.metric): one for one in found}


@pytest.fixture(scope="module")
def rows():
    return {
        "plain": [searched(seed) for seed in (0, 1, 2)],
        "mim": [searched(seed, shift=1.5) for seed in (3, 4, 5)],
    }


def test_a_resample_has_the_mean_of_its_copied_users():
    rng = np.random.default_rng(0)
    values, users = rng.random(50), rng.integers(0, 9, 50)
    counts = resample_users(9, num_resamples=20, seed=1)
    found = resampled_mean(values, users, counts)
    assert (found.value, found.num_users) == (pytest.approx(values.mean()), len(np.unique(users)))
    for mean, count in zip(found.draws, counts, strict=True):
        assert mean == pytest.approx(np.repeat(values, count[users]).mean())


def test_a_resample_without_pairs_has_no_mean():
    found = resampled_mean(np.array([1.0]), np.array([0]), np.array([[0, 2], [1, 1]]))
    assert np.isnan(found.draws[0])
    assert found.draws[1] == 1.0


@pytest.mark.parametrize("name", ["all", "item:unseen", "item:seen"])
def test_recall_and_mrr_are_counted_pair_by_pair(rows, name):
    found = measures_of(rows)
    for depth in (1, 10, 100):
        by_seed = [
            sum(rank <= depth for rank, inside in zip(one.rank, one.slices[name], strict=True) if inside)
            / one.slices[name].sum()
            for one in rows["mim"]
        ]
        measured = found["mim", name, f"recall@{depth}"]
        assert measured.by_seed == pytest.approx(by_seed)
        assert measured.value.mean == pytest.approx(sum(by_seed) / 3)
    mrr = [np.mean([1 / rank for rank in one.rank[one.slices[name]]]) for one in rows["mim"]]
    assert found["mim", name, "mrr"].by_seed == pytest.approx(mrr)


def test_the_cosine_auc_is_scikit_learns(rows):
    expected = [roc_auc_score(one.click, one.score) for one in rows["mim"]]
    assert measures_of(rows)["mim", "all", "cosine_auc"].by_seed == pytest.approx(expected)


@pytest.mark.parametrize("num_clicks", [0, 200])
def test_impressions_of_one_class_have_no_cosine_auc(num_clicks):
    """Mutant: it is divided by no pair of a click and a non-click."""
    click = np.full(200, num_clicks > 0, dtype=np.float32)
    alike = {name: [searched(seed)._replace(click=click)] for seed, name in enumerate(("plain", "mim"))}
    found, whole = measures_of(alike), measures_of({name: [searched(0)] for name in alike})
    assert whole.keys() - found.keys() == {(name, "all", "cosine_auc") for name in alike}
    assert found["mim", "all", "mrr"].over_base is not None


def test_a_difference_is_paired_by_user_and_seed(rows):
    """Mutant: the resamples of two rows are drawn apart, so that what they share does not cancel."""
    measured = measures_of(rows)["mim", "all", "recall@10"].over_base
    hits = {row: np.stack([one.rank <= 10 for one in seeds]) for row, seeds in rows.items()}
    differences = (hits["mim"].astype(float) - hits["plain"]).mean(1)
    assert measured.mean == pytest.approx(differences.mean())
    assert measured.sd == pytest.approx(differences.std(ddof=1))
    users = rows["plain"][0].user - 100
    counts = resample_users(NUM_USERS, num_resamples=200, seed=0)
    gain = (hits["mim"].astype(float) - hits["plain"]).mean(0)  # over seeds, by pair
    draws = [np.repeat(gain, count[users]).mean() for count in counts]
    drawn = len(np.unique(users))
    of_users, of_seeds = np.var(draws, ddof=1) * drawn / (drawn - 1), measured.sd**2 / 3
    degrees = (of_users + of_seeds) ** 2 / (of_seeds**2 / 2 + of_users**2 * (1 / (drawn - 1) + 1 / 199))
    reach = stats.t.ppf(0.975, degrees) * np.sqrt(of_users + of_seeds)
    assert measured.low == pytest.approx(measured.mean - reach, abs=1e-6)
    assert measured.high == pytest.approx(measured.mean + reach, abs=1e-6)


def test_a_row_is_not_compared_with_itself_nor_with_what_was_not_run(rows):
    found = measures_of({"mim": rows["mim"]})
    assert all(one.over_base is None and one.over_best is None for one in found.values())


def test_other_pairs_are_refused(rows):
    fewer = rows["mim"][0]._replace(user=rows["mim"][0].user + 1)
    with pytest.raises(DataError, match="mim was judged on 60 test pairs, not those of plain"):
        measures_of({"plain": rows["plain"][:1], "mim": [fewer]})


def test_a_level_stays_between_0_and_1_and_a_difference_does_not(rows):
    """Two seeds have long tails: recall@1 of both rows is near 0."""
    few = {row: [*searches[:1], searched(9, shift=-3.0)] for row, searches in rows.items()}
    found = measures_of(few)
    levels = [one.value for one in found.values() if one.value.low is not None]
    assert all(0 <= one.low <= one.mean <= one.high <= 1 for one in levels)
    assert any(one.low == 0 for one in levels)
    assert any(one.high == 1 for one in levels)
    assert any(one.over_base.low < 0 for one in found.values() if one.over_base is not None)
