"""The fashion source follows its protocol purchase by purchase, and says what is missing."""

import collections
import datetime
import itertools
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mimctr.errors import DataError, RunError
from mimctr.sources.fashion import FashionSummary, sample_negatives, write_fashion

DAY = 86_400
FASHION = Path(os.environ.get("MIMCTR_FASHION", "/work/shared/data/fashion"))
TYPES = ("Dress", "Sweater", "Trousers")


def write_log(
    folder: Path, *, num_users: int = 12, num_articles: int = 40, num_days: int = 30, seed: int = 0
) -> Path:
    """A made-up data folder: about two purchases per user and three days, with repeats."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    articles = [f"{number:010d}" for number in range(1, num_articles + 1)]
    pl.DataFrame(
        {
            "article_id": articles,
            "prod_name": [f"Item {number}" for number in range(num_articles)],
            "product_type_name": [TYPES[number % 3] for number in range(num_articles)],
            "product_group_name": ["Garment"] * num_articles,
            "graphical_appearance_name": ["Solid"] * num_articles,
            "colour_group_name": ["Dark Blue"] * num_articles,
            "department_name": ["Knitwear"] * num_articles,
            "index_group_name": ["Ladieswear"] * num_articles,
            "section_name": ["Everyday"] * num_articles,
            "detail_desc": [None, *["A soft thing. "] * (num_articles - 1)],
        }
    ).write_parquet(folder / "articles.parquet")
    half = num_articles // 2
    for part, ids in enumerate((articles[:half], articles[half:-1])):  # the last article has no photo
        pl.DataFrame({"article_id": ids, "image": [name.encode() for name in ids]}).write_parquet(
            folder / f"images-{part}.parquet"
        )
    size = num_users * num_days * 2 // 3
    days = rng.integers(0, num_days, size)
    purchases = pl.DataFrame(
        {
            "t_dat": [str(datetime.date(2020, 2, 20) + datetime.timedelta(int(day))) for day in days],
            "customer_id": [f"customer {user}" for user in rng.integers(0, num_users, size)],
            "article_id": rng.choice(articles, size),
            "price": rng.random(size),
            "sales_channel_id": rng.integers(1, 3, size),
        }
    )
    pl.concat([purchases, purchases[:7]]).write_parquet(folder / "purchases_two_years.parquet")
    return folder


def read(folder: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(folder / f"{name}.parquet")


def raw_purchases(data: Path) -> set[tuple[str, str, int]]:
    """Distinct (customer, article, seconds of the day's midnight), by plain Python."""
    rows = (
        pl.read_parquet(data / "purchases_two_years.parquet")
        .select("customer_id", "article_id", "t_dat")
        .rows()
    )
    midnight = datetime.datetime.min.time()
    return {
        (
            user,
            item,
            int(
                datetime.datetime.combine(
                    datetime.date.fromisoformat(day), midnight, datetime.UTC
                ).timestamp()
            ),
        )
        for user, item, day in rows
    }


@pytest.mark.parametrize("negatives", ["popularity", "category"])
def test_every_impression_follows_the_protocol(tmp_path: Path, negatives: str):
    data = write_log(tmp_path / "data")
    summary = write_fashion(data, tmp_path / "out", negatives=negatives)
    bought = raw_purchases(data)
    types = dict(read(data, "articles").select("article_id", "product_type_name").rows())
    shown: dict[tuple[str, int], dict[int, list[str]]] = collections.defaultdict(lambda: {0: [], 1: []})
    for user, item, time, click in read(tmp_path / "out", "impressions").rows():
        shown[user, time][click].append(item)

    for (user, time), items in shown.items():
        assert len(items[0]) == 4 * len(items[1])
        assert len(set(items[0] + items[1])) == 5 * len(items[1])  # an article once a day
        for item in items[1]:
            assert (user, item, time) in bought
        for item in items[0]:
            assert (user, item, time) not in bought
            assert any(
                other != user and article == item and abs(when - time) <= 3 * DAY
                for other, article, when in bought
            )
        if negatives == "category":
            types_of = {click: collections.Counter(types[item] for item in items[click]) for click in (0, 1)}
            assert types_of[0] == {name: 4 * count for name, count in types_of[1].items()}
    positives = sum(len(items[1]) for items in shown.values())
    assert (summary.num_positives, summary.num_negatives) == (positives, 4 * positives)
    assert summary.num_positives + summary.num_positives_left_out == summary.num_purchases == len(bought)
    assert summary.num_positives > len(bought) // 2
    assert FashionSummary.model_validate_json((tmp_path / "out" / "summary.json").read_text()) == summary


def test_behaviors_are_the_distinct_purchases_at_midnight(tmp_path: Path):
    data = write_log(tmp_path / "data")
    summary = write_fashion(data, tmp_path / "out")
    behaviors = read(tmp_path / "out", "behaviors")
    assert set(behaviors.select("user_id", "item_id", "time").rows()) == raw_purchases(data)
    assert len(behaviors) == len(raw_purchases(data)) == summary.num_purchases
    assert set(behaviors["kind"]) == {"purchase"}
    assert (
        summary.num_repeated_purchases == len(read(data, "purchases_two_years")) - summary.num_purchases >= 7
    )


def test_negatives_are_as_frequent_as_the_purchases_of_the_other_customers():
    # A customer buys item 0; in its window the others buy items 1 to 7 once and item 8 five times.
    items = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 8, 8, 9, 10])
    days = np.array(
        [10, 7, 13, 8, 12, 9, 11, 10, 7, 9, 10, 13, 11, 6, 14]
    )  # items 9 and 10 lie a day outside
    size, num_worlds = len(items), 2_000
    worlds = np.repeat(np.arange(num_worlds), size)
    drawn = sample_negatives(
        users=np.tile(np.arange(size), num_worlds) + size * worlds,
        items=np.tile(items, num_worlds),
        days=np.tile(days, num_worlds),
        groups=worlds,
        seed=0,
    )[::size]
    counts = np.bincount(np.tile(items, num_worlds)[drawn].reshape(-1), minlength=11)

    weights = dict.fromkeys(range(1, 8), 1) | {8: 5}
    expected = np.zeros(11)
    for order in itertools.permutations(weights, 4):  # one after the other, without putting back
        left, probability = 12, 1.0
        for item in order:
            probability *= weights[item] / left
            left -= weights[item]
        expected[list(order)] += probability
    assert counts[[0, 9, 10]].sum() == 0
    np.testing.assert_allclose(counts / num_worlds, expected, atol=0.04)


def test_a_purchase_with_too_few_others_in_its_window_has_no_impression():
    users, items = np.array([0, 1, 2, 3, 0]), np.array([0, 1, 1, 2, 3])
    drawn = sample_negatives(users=users, items=items, days=np.zeros(5, int), groups=np.zeros(5, int), seed=0)
    of_user_0 = np.concatenate([drawn[0], drawn[4]])
    assert sorted(items[of_user_0[of_user_0 >= 0]]) == [1, 2]
    assert (of_user_0 < 0).sum() == 6


def test_windows_do_not_reach_into_another_group():
    users, items = np.arange(10), np.arange(10)
    groups = np.array([0] * 5 + [1] * 5)
    days = np.array([3] * 5 + [0] * 5)  # the last days of a group lie next to the first of the following one
    drawn = sample_negatives(users=users, items=items, days=days, groups=groups, seed=0)
    assert (groups[drawn] == groups[:, None]).all()


def test_items_are_the_purchased_articles_with_the_first_day_they_were_bought_or_shown(tmp_path: Path):
    data = write_log(tmp_path / "data")
    summary = write_fashion(data, tmp_path / "out")
    items = read(tmp_path / "out", "items")
    bought = raw_purchases(data)
    assert items["item_id"].to_list() == sorted({item for _, item, _ in bought})
    shown = [(item, time) for _, item, time, _ in read(tmp_path / "out", "impressions").rows()]
    for item, first_seen in items.select("item_id", "first_seen_time").rows():
        first_bought = min(time for _, article, time in bought if article == item)
        assert first_bought - 3 * DAY <= first_seen <= first_bought
        assert first_seen == min(first_bought, *(time for article, time in shown if article == item))
    first = items.row(0, named=True)
    assert (first["title"], first["category"]) == ("Item 0, dress, dark blue", "Dress")
    assert items["title"][1] == "Item 1, sweater, dark blue. A soft thing."
    assert first["image"] == b"0000000001"
    log = read(data, "purchases_two_years").sort("t_dat", maintain_order=True)
    assert first["price"] in log.filter(pl.col("article_id") == "0000000001")["price"].to_list()
    assert items["image"].null_count() == summary.num_items_without_image == 1
    assert set(items.columns) == {"item_id", "title", "image", "category", "price", "first_seen_time"}


def test_attributes_are_further_fields_of_the_items(tmp_path: Path):
    data = write_log(tmp_path / "data")
    write_fashion(data, tmp_path / "plain")
    write_fashion(data, tmp_path / "out", attributes=True)
    plain, items = read(tmp_path / "plain", "items"), read(tmp_path / "out", "items")
    added = ["product_group", "pattern", "color", "department", "index_group", "section"]
    assert items.drop(added).equals(plain.select(items.drop(added).columns))
    assert items.select(added).row(0) == (
        "Garment",
        "Solid",
        "Dark Blue",
        "Knitwear",
        "Ladieswear",
        "Everyday",
    )


def test_the_seed_fixes_the_tables(tmp_path: Path):
    data = write_log(tmp_path / "data")
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_fashion(data, tmp_path / name, seed=seed)
    assert (tmp_path / "a" / "impressions.parquet").read_bytes() == (
        tmp_path / "b" / "impressions.parquet"
    ).read_bytes()
    assert not read(tmp_path / "a", "impressions").equals(read(tmp_path / "c", "impressions"))


def test_a_missing_file_is_named_with_its_origin_and_terms(tmp_path: Path):
    with pytest.raises(
        DataError, match=r"purchases_two_years\.parquet: no such file.*Kaggle.*non-commercial research"
    ):
        write_fashion(tmp_path, tmp_path / "out")
    data = write_log(tmp_path / "data")
    for path in data.glob("images-*"):
        path.unlink()
    with pytest.raises(DataError, match=r"no photos: no file is named images-\*\.parquet.*Kaggle"):
        write_fashion(data, tmp_path / "out")


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path: Path):
    data = write_log(tmp_path / "data")
    read(data, "articles").drop("prod_name", "section_name").write_parquet(data / "articles.parquet")
    with pytest.raises(
        DataError, match=r"2 column\(s\) missing: prod_name, section_name \(it has article_id, product"
    ):
        write_fashion(data, tmp_path / "out")


def test_a_file_that_is_not_parquet_is_refused(tmp_path: Path):
    data = write_log(tmp_path / "data")
    (data / "articles.parquet").write_bytes(b"article_id,prod_name\n")
    with pytest.raises(DataError, match=r"articles\.parquet: not a readable Parquet file"):
        write_fashion(data, tmp_path / "out")


def test_a_day_that_is_no_day_is_counted_and_shown(tmp_path: Path):
    data = write_log(tmp_path / "data")
    log = read(data, "purchases_two_years")
    day = pl.when(pl.int_range(pl.len()).is_in([2, 5])).then(pl.lit("20/09/2020")).otherwise("t_dat")
    log.with_columns(t_dat=day).write_parquet(data / "purchases_two_years.parquet")
    with pytest.raises(
        DataError, match=r"t_dat is not a day such as 2020-09-22 in 2 row\(s\), first '20/09/2020'"
    ):
        write_fashion(data, tmp_path / "out")


def test_an_empty_log_is_refused(tmp_path: Path):
    data = write_log(tmp_path / "data")
    read(data, "purchases_two_years").clear().write_parquet(data / "purchases_two_years.parquet")
    with pytest.raises(DataError, match=r"purchases_two_years\.parquet: holds no purchases"):
        write_fashion(data, tmp_path / "out")


def test_an_article_outside_the_catalogue_is_refused_and_leaves_nothing(tmp_path: Path):
    data = write_log(tmp_path / "data")
    read(data, "articles")[1:].write_parquet(data / "articles.parquet")
    with pytest.raises(
        DataError, match=r"1 purchased article\(s\) are not in the catalogue, first '0000000001'"
    ):
        write_fashion(data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten(tmp_path: Path):
    data = write_log(tmp_path / "data")
    write_fashion(data, tmp_path / "out")
    with pytest.raises(RunError, match="exists already"):
        write_fashion(data, tmp_path / "out")


@pytest.mark.needs_fashion
@pytest.mark.skipif(not FASHION.is_dir(), reason=f"{FASHION} is not here")
def test_the_real_log_has_five_impressions_for_every_purchase(tmp_path: Path):
    summary = write_fashion(FASHION, tmp_path / "out")
    assert (summary.num_users, summary.num_items, summary.num_items_without_image) == (1_364, 17_033, 0)
    assert summary.num_purchases + summary.num_repeated_purchases == 31_662
    assert summary.num_positives == summary.num_purchases
    assert len(read(tmp_path / "out", "impressions")) == 5 * summary.num_positives
