"""Table 1 against counting the raw tables with polars."""

import itertools
from collections import Counter
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest
from csft.shop import write_shop

from mimctr.batch import FIRST_INDEX
from mimctr.data.dataset import CtrDataset
from mimctr.evaluate.paper.data import figure_profile, table_1
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


class Columns(NamedTuple):
    """What is read of impressions."""

    target: np.ndarray
    user: np.ndarray
    query: np.ndarray
    click: np.ndarray
    time: np.ndarray


class Watched:
    """Impressions that note how often a column is read."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self.reads = Counter()

    def __getattr__(self, name: str) -> np.ndarray:
        self.reads[name] += 1
        return getattr(self._columns, name)


def test_many_categories_are_counted_in_one_pass_as_a_loop_counts_them():
    """Mutants: a pass for each category; a missing query is one; a category that is not shown is not there."""
    generator = np.random.default_rng(0)
    num_rows, num_items = 4000, 400
    names = [None if item % 9 == 0 else f"c{item % 41}" for item in range(num_items)]
    titles = [None if item % 5 == 0 else "a title" for item in range(num_items)]
    columns = Columns(
        target=FIRST_INDEX + generator.integers(0, num_items - 5, num_rows),
        user=generator.integers(2, 90, num_rows),
        query=generator.integers(0, 30, num_rows),
        click=generator.integers(0, 2, num_rows).astype(np.int8),
        time=np.full(num_rows, 10**6),
    )
    names[-1] = "not shown"
    pictures = np.where(np.arange(num_items) % 3 == 0, -1, 7)
    impressions = Watched(columns)
    items = pl.DataFrame({"category": names, "title": titles, "first_seen_time": [0] * num_items})
    dataset = SimpleNamespace(
        impressions=impressions, items=items, item_images=SimpleNamespace(numbers=pictures)
    )
    facts = count_dataset(dataset)
    assert max(impressions.reads.values()) <= 2
    found = {one.name: one for one in facts.categories}
    assert set(found) == {"(none)" if name is None else name for name in names}
    for name, one in [*found.items(), ("All", facts.all)]:
        own = [item for item in range(num_items) if name in ("All", names[item] or "(none)")]
        rows = [row for row in range(num_rows) if columns.target[row] - FIRST_INDEX in own]
        assert one.model_dump() == {
            "name": name,
            "num_impressions": len(rows),
            "num_clicks": sum(int(columns.click[row]) for row in rows),
            "num_users": len({int(columns.user[row]) for row in rows}),
            "num_queries": len({int(columns.query[row]) for row in rows} - {0}),
            "num_items": len(own),
            "num_shown": len({int(columns.target[row]) for row in rows}),
            "image_share": pytest.approx(sum(pictures[item] >= 0 for item in own) / len(own)),
            "title_share": pytest.approx(sum(titles[item] is not None for item in own) / len(own)),
        }
    order = [(-one.num_impressions, one.name) for one in facts.categories]
    assert order == sorted(order)
    assert found["not shown"].num_impressions == 0


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


def test_the_largest_share_of_ages_is_not_told_as_most(shop):
    profile = shop[0].profile.model_copy(update={"age_shares": [0.1, 0.2, 0.349, 0.301, 0.05]})
    figure = figure_profile(shop[0].model_copy(update={"profile": profile}))
    assert figure.reading == ["The largest share of impressions, 34.9 %, is on items of 7 to 28 days."]
