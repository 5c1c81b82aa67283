"""Table 1 against counting the raw tables with polars."""

import itertools

import polars as pl
import pytest
from csft.shop import write_shop

from mimctr.data.dataset import CtrDataset
from mimctr.evaluate.paper.data import table_1
from mimctr.recipes.statistics import AGE_DAYS, count_dataset


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    root = tmp_path_factory.mktemp("shop")
    dataset = write_shop(root)
    items = pl.read_parquet(root / "tables" / "items.parquet")
    return (
        count_dataset(CtrDataset.open(dataset)),
        items,
        pl.read_parquet(root / "tables" / "impressions.parquet"),
    )


def test_every_category_is_counted_as_in_the_raw_tables(shop):
    facts, items, impressions = shop
    joined = impressions.join(items, on="item_id")
    wanted = {"All": (items, joined)}
    for name in ("c0", "c1", "c2"):
        wanted[name] = (items.filter(category=name), joined.filter(category=name))
    for one in (facts.all, *facts.categories):
        of_items, rows = wanted.pop(one.name)
        assert one.num_impressions == rows.height
        assert one.num_clicks == rows["click"].sum()
        assert one.num_users == rows["user_id"].n_unique()
        assert one.num_items == of_items.height
        assert one.num_shown == rows["item_id"].n_unique()
        assert one.image_share == pytest.approx(of_items["image"].is_not_null().mean())
        assert one.title_share == pytest.approx(of_items["title"].is_not_null().mean())
    assert wanted == {}
    sizes = [one.num_impressions for one in facts.categories]
    assert sizes == sorted(sizes, reverse=True)


def test_ages_and_popularity_are_shares_of_the_impressions(shop):
    facts, items, impressions = shop
    joined = impressions.join(items, on="item_id")
    days = ((joined["time"] - joined["first_seen_time"]) / 86_400).to_list()
    bounds = [float("-inf"), *AGE_DAYS, float("inf")]
    expected = [
        sum(low < day <= high for day in days) / len(days) for low, high in itertools.pairwise(bounds)
    ]
    assert facts.profile.age_shares == pytest.approx(expected)
    counts = impressions["item_id"].value_counts(sort=True)["count"].to_list()
    half = sum(counts[: round(0.5 * len(counts))]) / sum(counts)
    assert facts.profile.popularity_shares[-1] == pytest.approx(half)


def test_table_1_has_a_row_a_category_and_the_papers_numbers(shop):
    facts, _, _ = shop
    table = table_1(facts)
    assert [row.label for row in table.rows] == ["All", *(one.name for one in facts.categories)]
    first = table.rows[0].cells
    assert [cell.paper for cell in first[:4]] == [1.83e9, 56.34e6, 0.12e9, 16.16e6]
    assert first[4].ours.mean == pytest.approx(facts.all.num_clicks / facts.all.num_impressions)
