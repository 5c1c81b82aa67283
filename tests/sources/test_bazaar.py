"""The bazaar keeps its promises: what is logged follows from what is true, and the truth stays out of the logs."""

import io
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from mimctr.errors import ConfigError, RunError
from mimctr.files import hash_path
from mimctr.recipes import sources
from mimctr.sources.bazaar import BazaarSummary, write_bazaar

PARTS = ["style", "collaborative", "quality", "query", "position"]
STYLE = ["shape", "pattern", "palette", "texture", "material", "occasion"]
START = 1_704_067_200  # 2024-01-01
DAY = 86_400


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bazaar") / "tiny"


@pytest.fixture(scope="module")
def summary(folder: Path) -> BazaarSummary:
    return write_bazaar(folder, size="tiny", seed=3)


@pytest.fixture(scope="module")
def impressions(folder: Path, summary: BazaarSummary) -> pl.DataFrame:
    """Impressions with the parts of their logit and the true category of the item."""
    logged = pl.read_parquet(folder / "impressions")
    parts = pl.read_parquet(folder / "truth" / "impressions")
    truth = pl.read_parquet(folder / "truth" / "items.parquet").select("item_id", "category")
    return logged.hstack(parts).join(truth, on="item_id", how="left", maintain_order="left")


@pytest.fixture(scope="module")
def behaviors(folder: Path, summary: BazaarSummary) -> pl.DataFrame:
    return pl.read_parquet(folder / "behaviors")


def auc(score: np.ndarray, label: np.ndarray) -> float:
    """All pairs, ties one half."""
    difference = score[label][:, None] - score[~label][None, :]
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())


def test_a_setting_that_came_later_leaves_what_was_made_before() -> None:
    """Mutant: every run from before --random-pages is made anew."""
    plain, random = (sources.Bazaar(kind="bazaar", size="tiny", random_pages=on) for on in (False, True))
    assert plain.model_dump(mode="json") == {"kind": "bazaar", "size": "tiny", "seed": 0}
    assert sources.Bazaar.model_validate(random.model_dump(mode="json")) == random


def test_the_same_seed_writes_the_same_bytes(folder: Path, summary: BazaarSummary, tmp_path: Path) -> None:
    write_bazaar(tmp_path / "again", size="tiny", seed=3)
    assert hash_path(tmp_path / "again") == hash_path(folder)


def test_another_seed_is_another_market(folder: Path, summary: BazaarSummary, tmp_path: Path) -> None:
    write_bazaar(tmp_path / "other", size="tiny", seed=4)
    ours, theirs = (pl.read_parquet(path / "items.parquet") for path in (folder, tmp_path / "other"))
    assert (ours["title"] == theirs["title"]).sum() < 0.05 * len(ours)


def test_clicks_happen_as_often_as_the_true_probability_says(impressions: pl.DataFrame) -> None:
    ordered = impressions.sort("true_probability")
    probability, click = ordered["true_probability"].to_numpy().astype(float), ordered["click"].to_numpy()
    for rows in np.array_split(np.arange(len(ordered)), 10):
        p = probability[rows]
        deviation = np.sqrt((p * (1 - p)).sum())  # of a sum of independent coins
        assert abs(click[rows].sum() - p.sum()) < 4 * deviation


def test_the_logit_is_the_sum_of_its_parts_and_one_constant(impressions: pl.DataFrame) -> None:
    probability = impressions["true_probability"].to_numpy().astype(float)
    rest = np.log(probability / (1 - probability)) - impressions.select(PARTS).to_numpy().sum(axis=1)
    np.testing.assert_allclose(rest, rest[0], atol=1e-5)


def test_the_true_probability_ranks_better_than_any_of_its_parts(impressions: pl.DataFrame) -> None:
    click = impressions["click"].to_numpy() == 1
    ceiling = auc(impressions["true_probability"].to_numpy(), click)
    parts = {part: auc(impressions[part].to_numpy(), click) for part in PARTS}
    assert 0.5 < min(parts.values()) < max(parts.values()) < ceiling < 0.85


def test_purchases_depend_on_style_more_than_clicks_do(
    impressions: pl.DataFrame, behaviors: pl.DataFrame
) -> None:
    keys = ["user_id", "item_id", "time"]
    bought = behaviors.filter(pl.col("kind") == "purchase").select(*keys, bought=True)
    joined = impressions.join(bought, on=keys, how="left", maintain_order="left")
    style = joined["style"].to_numpy()
    is_bought, click = joined["bought"].fill_null(False).to_numpy(), joined["click"].to_numpy() == 1
    assert 0.2 < is_bought.sum() / click.sum() < 0.7
    assert auc(style, is_bought) > auc(style, click) + 0.05
    assert auc(style[click], is_bought[click]) > 0.65


def test_style_counts_in_the_order_of_the_categories_gains_in_the_paper(impressions: pl.DataFrame) -> None:
    spread = dict(impressions.group_by("category").agg(pl.col("style").std()).rows())
    table_7 = ["Clothes", "Home Decoration", "Toys", "FMCG", "Sports", "Pets", "Cars"]  # by CTR gain
    assert set(spread) == set(table_7)
    assert spread["Clothes"] > spread["FMCG"] > spread["Cars"]
    gains = np.argsort(np.argsort([-spread[name] for name in table_7]))
    assert np.abs(gains - np.arange(7)).max() <= 2  # a tiny world: neighbors may change places


def test_nothing_is_shown_or_clicked_before_it_arrived(
    folder: Path, impressions: pl.DataFrame, behaviors: pl.DataFrame
) -> None:
    arrival = pl.read_parquet(folder / "items.parquet").select("item_id", "first_seen_time")
    for log in (impressions, behaviors):
        joined = log.join(arrival, on="item_id", how="left")
        assert joined["first_seen_time"].null_count() == 0
        assert (joined["time"] >= joined["first_seen_time"]).all()


def test_items_keep_arriving_until_the_end_and_are_seen(folder: Path, impressions: pl.DataFrame) -> None:
    late = START + 0.8 * 28 * DAY
    items = pl.read_parquet(folder / "items.parquet")
    new = items.filter(pl.col("first_seen_time") > late)["item_id"]
    assert len(new) > 0.05 * len(items)
    test = impressions.filter(pl.col("time") >= late)
    assert test["item_id"].is_in(new.implode()).to_numpy().mean() > 0.05


def test_logs_are_in_time_order_and_a_session_shows_an_item_once(
    folder: Path, impressions: pl.DataFrame, behaviors: pl.DataFrame
) -> None:
    assert impressions["time"].is_sorted()
    assert behaviors["time"].is_sorted()
    assert pl.read_parquet(folder / "searches.parquet")["time"].is_sorted()
    assert not impressions.select("user_id", "item_id", "time").is_duplicated().any()
    assert impressions["time"].min() >= START
    assert impressions["time"].max() < START + 28 * DAY
    page = impressions.group_by("user_id", "time", maintain_order=True).agg("context_position")
    assert all(positions == list(range(len(positions))) for positions in page["context_position"].to_list())


def test_behaviors_are_the_clicks_and_those_of_the_warm_up(
    impressions: pl.DataFrame, behaviors: pl.DataFrame
) -> None:
    keys = ["user_id", "item_id", "time"]
    clicks = impressions.filter(pl.col("click") == 1).select(keys)
    logged = behaviors.filter(pl.col("time") >= START).select(keys)
    assert clicks.equals(logged)
    warm_up = behaviors.filter(pl.col("time") < START)
    assert 0.2 * len(clicks) < len(warm_up) < 0.8 * len(clicks)
    assert warm_up["time"].min() >= START - 14 * DAY


def test_searches_are_the_behaviors_behind_an_image_query(
    folder: Path, impressions: pl.DataFrame, behaviors: pl.DataFrame
) -> None:
    keys = ["user_id", "item_id", "time"]
    searches = pl.read_parquet(folder / "searches.parquet")
    assert len(searches.join(behaviors, on=[*keys, "kind"], how="semi")) == len(searches)
    asked = impressions.filter(pl.col("query_image").is_not_null() & (pl.col("click") == 1))
    logged = searches.filter(pl.col("time") >= START)
    assert asked.select(*keys, "query_image").equals(logged.select(*keys, "query_image"))


def test_an_impression_has_the_query_that_its_kind_says(impressions: pl.DataFrame) -> None:
    kind = impressions["query_kind"]
    assert (impressions["query_image"].is_not_null() == (kind == "image")).all()
    assert (impressions["query_text"].is_not_null() == (kind == "text")).all()
    assert set(kind.unique()) == {"feed", "image", "text"}


def test_what_is_bought_after_an_image_query_looks_like_the_photo(
    folder: Path, summary: BazaarSummary
) -> None:
    truth = pl.read_parquet(folder / "truth" / "items.parquet")
    photos = pl.read_parquet(folder / "truth" / "photos.parquet")
    bought = pl.read_parquet(folder / "searches.parquet").filter(pl.col("kind") == "purchase")
    pairs = bought.join(truth, on="item_id").join(photos, on="query_image", suffix="_photo")
    assert len(pairs) == len(bought)
    assert (pairs["category"] == pairs["category_photo"]).all()
    by_chance = {"shape": 1 / 4, "pattern": 1 / 8, "palette": 1 / 10}
    same = [(pairs[attribute] == pairs[f"{attribute}_photo"]).to_numpy().mean() for attribute in by_chance]
    assert sum(same) > 1.8 * sum(by_chance.values())


def test_the_truth_is_not_in_the_raw_tables(folder: Path, summary: BazaarSummary) -> None:
    columns = {
        name: set(pl.read_parquet(folder / name).columns)
        for name in ("items.parquet", "impressions", "behaviors", "searches.parquet")
    }
    assert columns == {
        "items.parquet": {"item_id", "title", "image", "category", "first_seen_time", "price", "seller"},
        "impressions": {
            *("user_id", "item_id", "time", "click", "query_text", "query_image", "query_kind"),
            *("user_age", "user_city", "context_position", "context_hour", "bid", "true_probability"),
        },
        "behaviors": {"user_id", "item_id", "time", "kind"},
        "searches.parquet": {"query_image", "user_id", "item_id", "time", "kind"},
    }


def test_quality_and_collaborative_taste_show_in_no_content(folder: Path, summary: BazaarSummary) -> None:
    truth = pl.read_parquet(folder / "truth" / "items.parquet")
    hidden = [name for name in truth.columns if name == "quality" or name.startswith("collaborative")]
    assert len(hidden) == 3
    for attribute in STYLE:
        for name in hidden:
            groups = truth.with_columns((pl.col(name) - pl.col(name).mean()) / pl.col(name).std())
            groups = groups.group_by(attribute).agg(pl.col(name).mean(), n=pl.len())
            z = groups[name].to_numpy() * np.sqrt(groups["n"].to_numpy())  # standard normal if unrelated
            assert np.abs(z).max() < 4.5, (attribute, name)


def test_material_is_told_by_titles(folder: Path, summary: BazaarSummary) -> None:
    items = pl.read_parquet(folder / "items.parquet")
    truth = pl.read_parquet(folder / "truth" / "items.parquet")
    wordings = {"wood": ("wood", "oak", "walnut"), "wool": ("wool", "felt", "cashmere")}
    for material, words in wordings.items():
        told = items["title"].str.contains_any(list(words)).to_numpy()
        made_of = (truth["material"] == material).to_numpy() & items["title"].is_not_null().to_numpy()
        assert told[made_of].mean() > 0.7
        assert told[~made_of & items["title"].is_not_null().to_numpy()].astype(bool).mean() < 0.05


def test_some_items_lack_an_image_or_a_title_and_every_other_image_opens(
    folder: Path, summary: BazaarSummary
) -> None:
    items = pl.read_parquet(folder / "items.parquet")
    assert 0 < items["image"].null_count() < 0.1 * len(items)
    assert 0 < items["title"].null_count() < 0.1 * len(items)
    photos = [folder / name for name in pl.read_parquet(folder / "truth" / "photos.parquet")["query_image"]]
    for data in [*items["image"].drop_nulls(), *(photo.read_bytes() for photo in photos)]:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            assert (image.size, image.mode) == ((64, 64), "RGB")


def test_the_generic_corpus_is_of_other_things(folder: Path, summary: BazaarSummary) -> None:
    images = pl.read_parquet(folder / "corpus" / "images.parquet")
    captions = pl.read_parquet(folder / "corpus" / "captions.parquet")["caption"]
    assert images["label"].n_unique() == 16
    ours = set(pl.read_parquet(folder / "items.parquet")["image"].drop_nulls())
    assert not ours & set(images["image"])
    assert not set(captions) & set(pl.read_parquet(folder / "items.parquet")["title"].drop_nulls())
    assert captions.n_unique() > 0.9 * len(captions)


def test_the_summary_counts_what_was_written(
    folder: Path, summary: BazaarSummary, impressions: pl.DataFrame, behaviors: pl.DataFrame
) -> None:
    assert summary.folder == folder
    assert summary.num_impressions == len(impressions)
    assert summary.num_clicks == impressions["click"].sum()
    assert summary.num_behaviors == len(behaviors)
    assert summary.num_searches == len(pl.read_parquet(folder / "searches.parquet"))
    assert summary.num_items == len(pl.read_parquet(folder / "items.parquet")) == 300
    assert summary.num_photos == len(list((folder / "photos").iterdir())) == 120


def test_an_unknown_size_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"size: 'huge' is no size of the bazaar\. Choose one of tiny, small"
    ):
        write_bazaar(tmp_path / "out", size="huge")  # type: ignore[arg-type]


def test_a_negative_seed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"seed: -1 is negative\."):
        write_bazaar(tmp_path / "out", size="tiny", seed=-1)


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "note").write_text("mine")
    with pytest.raises(RunError, match="exists already"):
        write_bazaar(tmp_path, size="tiny")
    assert (tmp_path / "note").read_text() == "mine"
