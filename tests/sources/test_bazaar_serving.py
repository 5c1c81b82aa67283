"""Sessions of the bazaar served anew are those of the log, and say what a click's probability would have been."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mimctr.errors import DataError
from mimctr.sources.bazaar import write_bazaar
from mimctr.sources.bazaar.serving import Offers, World, serve_sessions

START, DAY, SLOPE = 1_704_067_200, 86_400, 0.07
FIRST, LAST = START + 20 * DAY + 1000, START + 28 * DAY
"""Within a slot, so that sessions of a begun slot are left out."""
NUM_CANDIDATES = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bazaar") / "tiny"
    write_bazaar(folder, size="tiny", seed=3)
    return folder


def serve(folder: Path, *, most_sessions: int = 10**6, start: int = FIRST, end: int = LAST) -> Offers:
    return serve_sessions(
        World.read(folder), start=start, end=end, most_sessions=most_sessions, num_candidates=NUM_CANDIDATES
    )


@pytest.fixture(scope="module")
def offers(folder: Path) -> Offers:
    return serve(folder)


@pytest.fixture(scope="module")
def log(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "impressions").filter(pl.col("time") >= FIRST)


def assert_same(again: pl.DataFrame, log: pl.DataFrame) -> None:
    """Assert that all is equal, but for how a product of matrices rounds, which depends on how many rows it has."""
    names = sorted(set(again.columns) - {"true_probability"})
    assert again.select(names).equals(log.select(names))
    np.testing.assert_allclose(again["true_probability"], log["true_probability"], atol=1e-6, rtol=0)


def test_the_first_ten_candidates_are_the_impressions_of_the_log(offers: Offers, log: pl.DataFrame) -> None:
    """Mutants: another random stream; candidates in another order; the probability of another position."""
    session, position = np.nonzero(offers.offered[:, :10])
    asked = pl.DataFrame(offers.asked)[session]
    assert log.height == len(session) > 1000
    again = asked.with_columns(
        pl.Series("item_id", offers.item_id[session, position]),
        pl.Series("context_position", position, dtype=pl.Int8),
        pl.Series("true_probability", offers.probability[session, position, position]),
    )
    assert_same(again, log)


@pytest.fixture(scope="module")
def random_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bazaar") / "random"
    write_bazaar(folder, size="tiny", seed=3, random_pages=True)
    return folder


@pytest.mark.parametrize("num_candidates", [4, 10, 40])
def test_random_pages_are_served_as_they_stood(random_folder: Path, num_candidates: int) -> None:
    offers = serve_sessions(
        World.read(random_folder), start=FIRST, end=LAST, most_sessions=10**6, num_candidates=num_candidates
    )
    session, position = np.nonzero(offers.offered[:, :10])
    again = pl.DataFrame(offers.asked)[session].with_columns(
        pl.Series("item_id", offers.item_id[session, position]),
        pl.Series("position", position),
        pl.Series("true_probability", offers.probability[session, position, position]),
    )
    log = pl.read_parquet(random_folder / "impressions").filter(
        pl.col("time") >= FIRST, pl.col("position") < num_candidates
    )
    assert_same(again, log)


def test_random_pages_are_the_same_pages_in_uniformly_random_order(folder: Path, random_folder: Path) -> None:
    """Mutants: an order that depends on the match; a propensity that is not that of the page."""
    page, key = ["user_id", "time"], ["user_id", "time", "item_id"]
    sorted_log, log = (pl.read_parquet(one / "impressions") for one in (folder, random_folder))
    assert set(log.columns) - set(sorted_log.columns) == {"position", "propensity"}
    assert log.select(key).sort(key).equals(sorted_log.select(key).sort(key))
    assert (log["position"] == log["context_position"]).all()
    sizes = log.with_columns(size=pl.len().over(page))
    assert np.allclose(sizes["propensity"], 1 / sizes["size"])
    places = log.sort(*page, "position").with_columns(place=pl.int_range(pl.len()).over(page))
    assert (places["place"] == places["position"]).all()
    both = log.join(sorted_log.select(*key, rank="context_position"), on=key).filter(
        pl.len().over(page) == 10
    )
    observed = np.histogram2d(both["rank"].to_numpy(), both["position"].to_numpy(), bins=10)[0]
    expected = len(both) / 100
    deviations = (observed - expected) / np.sqrt(expected * 0.9)
    assert np.abs(deviations).max() < 4.5
    assert 60 < (deviations**2).sum() < 140  # its mean is 100: chi-square of 81 degrees of freedom


def test_there_is_more_to_choose_from_than_was_shown(offers: Offers) -> None:
    kind = np.array(offers.asked["query_kind"].to_pylist())
    numbers = offers.offered.sum(axis=1)
    assert numbers.max() <= NUM_CANDIDATES
    assert numbers[kind == "image"].mean() > numbers[kind == "feed"].mean() > 12
    assert (offers.offered == (np.arange(NUM_CANDIDATES) < numbers[:, None])).all()  # none, then no more


def test_candidates_are_there_of_the_category_and_all_different(folder: Path, offers: Offers) -> None:
    items = pl.read_parquet(folder / "items.parquet")
    arrival = dict(items.select("item_id", "first_seen_time").rows())
    category = dict(items.select("item_id", "category").rows())
    times = offers.asked["time"].to_pylist()
    for place, time in enumerate(times):
        own = offers.item_id[place][offers.offered[place]].tolist()
        assert len(set(own)) == len(own)
        assert {category[item] for item in own} == {offers.category[place]}
        assert all(arrival[item] <= time for item in own)


def test_the_logit_falls_by_the_same_from_each_position_to_the_next(offers: Offers) -> None:
    probability = offers.probability[offers.offered].astype(float)  # (N, positions)
    logit = np.log(probability / (1 - probability))
    np.testing.assert_allclose(np.diff(logit, axis=1), -SLOPE, atol=2e-5)
    assert (offers.probability[~offers.offered] == 0).all()


def test_bids_are_the_logs_but_for_the_noise_of_a_session(folder: Path, offers: Offers) -> None:
    every = pl.read_parquet(folder / "impressions")
    usual = every.group_by("item_id").agg(pl.col("bid").log().mean(), pl.len()).filter(pl.col("len") >= 20)
    served = pl.DataFrame({"item_id": offers.item_id[offers.offered], "own": offers.bid[offers.offered]})
    joined = served.join(usual, on="item_id").with_columns(noise=pl.col("own").log() - pl.col("bid"))
    assert joined.height > 2000
    assert abs(joined["noise"].mean()) < 0.02
    assert 0.19 < joined["noise"].std() < 0.22  # 0.2, and what the mean of twenty is wrong by
    assert (offers.bid[~offers.offered] == 0).all()


def test_of_many_sessions_some_at_even_distances_are_served(folder: Path, offers: Offers) -> None:
    few = serve(folder, most_sessions=40)
    assert 30 <= len(few) <= 40
    known = set(zip(*(offers.asked[name].to_pylist() for name in ("user_id", "time")), strict=True))
    assert set(zip(*(few.asked[name].to_pylist() for name in ("user_id", "time")), strict=True)) <= known
    gaps = np.diff(few.asked["time"].to_numpy())
    assert gaps.max() < 4 * (LAST - FIRST) / len(few)


def test_a_session_is_the_same_however_many_are_served(folder: Path, offers: Offers) -> None:
    few = serve(folder, most_sessions=40)
    place = offers.asked["time"].to_pylist().index(few.asked["time"][7].as_py())
    np.testing.assert_array_equal(few.item_id[7], offers.item_id[place])
    np.testing.assert_array_equal(few.bid[7], offers.bid[place])
    np.testing.assert_array_equal(few.probability[7], offers.probability[place])


def test_other_tables_are_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"no bazaar \(bazaar\.json is missing\).*\(its propensity\) allows no counterfactual"
    ):
        World.read(tmp_path)
    (tmp_path / "bazaar.json").write_text(json.dumps({"size": "huge", "seed": 0}))
    with pytest.raises(DataError, match="size 'huge' and seed 0 name no bazaar"):
        World.read(tmp_path)


def test_times_without_a_session_are_refused(folder: Path) -> None:
    with pytest.raises(DataError, match=f"no session from {LAST} to {LAST + DAY}"):
        serve(folder, start=LAST, end=LAST + DAY)
