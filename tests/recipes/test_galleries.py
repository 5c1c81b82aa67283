"""Galleries of a small shop with text ids: chosen by brute force, weighed by a double loop, the same every time."""

import json
import math

import numpy as np
import polars as pl
import pytest
import torch
from encoders.small import item_encoder, picture
from PIL import Image

from mimctr.center.snapshot_writer import write_snapshot
from mimctr.data.dataset import CtrDataset
from mimctr.errors import RunError, StaleSnapshot
from mimctr.evaluate.metrics import sigmoid
from mimctr.recipes import embed, galleries, prepare, relevances
from mimctr.recipes.embed import open_content
from mimctr.recipes.galleries import choose_changed, choose_failures, compare_cold_items, draw_galleries
from mimctr.recipes.neighbors import Encoded
from mimctr.recipes.relevances import most_alike, weigh
from mimctr.recipes.scored import read_scored
from mimctr.weights import save_tensors

START = 1_600_000_000
NUM_ITEMS, NUM_USERS, NUM_IMPRESSIONS = 40, 30, 1500
MAX_LENGTH = 9


def write_tables(folder, *, pictures=True, truth=True, categories=True):
    """Write a shop whose items arrive over time: item 3 has no picture, 5 no title, 7 neither."""
    generator = np.random.default_rng(0)
    first_seen = START + np.sort(generator.integers(0, 900, NUM_ITEMS)) * 60
    first_seen[:10] = START
    times = START + np.sort(generator.integers(100, 1000, NUM_IMPRESSIONS)) * 60
    arrived = np.searchsorted(first_seen, times, side="right")
    number = (generator.random(NUM_IMPRESSIONS) * arrived).astype(int)
    probability = generator.uniform(0.1, 0.7, NUM_IMPRESSIONS)
    impressions = pl.DataFrame(
        {
            "user_id": [f"user {user}" for user in generator.integers(1, NUM_USERS + 1, NUM_IMPRESSIONS)],
            "item_id": [f"shop/{item}" for item in number],
            "time": times,
            "click": (generator.random(NUM_IMPRESSIONS) < probability).astype(int),
            "true_probability": probability,
        }
    ).unique(["user_id", "item_id", "time"], keep="first", maintain_order=True)
    items = pl.DataFrame(
        {
            "item_id": [f"shop/{item}" for item in range(NUM_ITEMS)],
            "title": [None if item in (5, 7) else f"title {item}." for item in range(NUM_ITEMS)],
            "first_seen_time": first_seen,
        }
    )
    if pictures:
        shown = [None if item in (3, 7) else picture(item) for item in range(NUM_ITEMS)]
        items = items.with_columns(image=pl.Series(shown))
    if categories:
        named = [None if item % 8 == 7 else f"c{item % 3}" for item in range(NUM_ITEMS)]
        items = items.with_columns(category=pl.Series(named))
    folder.mkdir(parents=True)
    (impressions if truth else impressions.drop("true_probability")).write_parquet(
        folder / "impressions.parquet"
    )
    items.write_parquet(folder / "items.parquet")


def write_run(folder, **options):
    """Write a dataset, vectors of all but five items, and Base and Base+MIM of one seed."""
    write_tables(folder / "tables", **options)
    prepare.main(folder / "tables", folder / "dataset", prepare.Config(test_fraction=0.4))
    dataset = CtrDataset.open(folder / "dataset")
    items = np.arange(2, 2 + NUM_ITEMS - 5)
    vectors = np.random.default_rng(0).normal(size=(len(items), 4)).astype(np.float32)
    vectors[4] = 0
    write_snapshot(folder / "embed/items", dataset.item_keys[items], vectors, encoder="e1")
    write_snapshot(
        folder / "embed/queries", np.empty(0, dtype=np.int64), np.empty((0, 4), np.float32), encoder="e1"
    )
    for variant in ("base", "mim"):
        write_model(folder / variant, dataset, variant=variant)
    return folder


def write_model(folder, dataset, *, variant, **changes):
    folder.mkdir(parents=True)
    rows = dataset.rows("test")
    logits = np.random.default_rng(len(variant)).normal(-1, 1, len(rows)).astype(np.float32)
    record = {
        "ubm": "din",
        "variant": variant,
        "encoder": "none" if variant == "base" else "csft",
        "seed": 0,
        "dataset_hash": dataset.manifest.source_hash,
        "config": {"ubm": "din", "variant": variant, "max_length": MAX_LENGTH},
    }
    (folder / "model.json").write_text(json.dumps({**record, **changes}))
    tensors = {"row": torch.arange(rows.start, rows.stop), "logit": torch.from_numpy(logits)}
    save_tensors(folder / "predictions.safetensors", tensors)


def read(run):
    dataset = CtrDataset.open(run / "dataset")
    return read_scored(dataset, content=run / "embed", base=run / "base", mim=run / "mim")


def draw(run, out, *, num=4, **changes):
    places = {"content": run / "embed", "base": run / "base", "mim": run / "mim", "encoders": {}}
    return draw_galleries(CtrDataset.open(run / "dataset"), **(places | changes), out=out, num=num, seed=0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("galleries") / "run")


def raw_history(run, row):
    """Return the items of a user's clicks before an impression, newest first, from the raw table."""
    table = pl.read_parquet(run / "tables/impressions.parquet").sort("time", maintain_order=True)
    dataset = CtrDataset.open(run / "dataset")
    own = dataset.impression_table(np.array([row])).row(0, named=True)
    earlier = table.filter(
        (pl.col("user_id") == own["user_id"]) & (pl.col("time") < own["time"]) & (pl.col("click") == 1)
    )
    return own["item_id"], earlier


def test_weights_equal_a_double_loop_over_the_snapshot(run):
    dataset = CtrDataset.open(run / "dataset")
    table = open_content(dataset, run / "embed")
    stored = dict(zip(table.snapshot.keys.tolist(), table.snapshot.vectors.astype(np.float64), strict=True))
    rows = np.array(dataset.rows("test"))[::7]
    found = weigh(dataset, table, rows, max_length=MAX_LENGTH)
    behaviors, missing, compared = dataset.behaviors, 0, 0
    for place, row in enumerate(rows.tolist()):
        start = behaviors.offsets[dataset.impressions.user[row]]
        newest = behaviors.item[start : dataset.impressions.end[row]][::-1][:MAX_LENGTH]
        assert found.mask[place].sum() == len(newest)
        one = stored.get(int(dataset.item_keys[dataset.impressions.target[row]]))
        for column, item in enumerate(newest.tolist()):
            assert found.items[place, column] == item
            other = stored.get(int(dataset.item_keys[item]))
            value = found.relevance[place, column]
            if one is None or other is None:
                missing += 1
                assert math.isnan(value)
                continue
            compared += 1
            lengths = math.sqrt(sum(a * a for a in one)) * math.sqrt(sum(a * a for a in other))
            cosine = sum(a * b for a, b in zip(one, other, strict=True)) / lengths if lengths else 0.0
            assert value == pytest.approx(cosine, abs=1e-5)
        assert np.isnan(found.relevance[place, len(newest) :]).all()
    assert missing > 20
    assert compared > 100


def test_in_chunks_weights_are_as_at_once(run, monkeypatch):
    """Mutants: all impressions of an item at once; chunks as wide as their own longest history."""
    dataset = CtrDataset.open(run / "dataset")
    table = open_content(dataset, run / "embed")
    rows = np.array(dataset.rows("test"))[::7]
    whole = weigh(dataset, table, rows, max_length=MAX_LENGTH)
    sizes, batch = [], dataset.batch

    def watched(rows, **options):
        sizes.append(len(rows))
        return batch(rows, **options)

    monkeypatch.setattr(dataset, "batch", watched)
    monkeypatch.setattr(relevances, "CHUNK", 5)
    chunked = weigh(dataset, table, rows, max_length=MAX_LENGTH)
    assert max(sizes) == 5
    assert sum(sizes) == len(rows)
    for one, other in zip(chunked, whole, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=1e-6)
    assert weigh(dataset, table, rows[:0], max_length=MAX_LENGTH).items.shape[0] == 0


def test_behaviors_are_the_newest_clicks_of_the_raw_table(run):
    dataset = CtrDataset.open(run / "dataset")
    table = open_content(dataset, run / "embed")
    rows = np.array(dataset.rows("test"))[[3, 50, -1]]
    found = weigh(dataset, table, rows, max_length=3)
    ids = dataset.items["item_id"]
    for place, row in enumerate(rows.tolist()):
        _, earlier = raw_history(run, row)
        times = sorted(earlier["time"].to_list(), reverse=True)
        assert len(set(times[:4])) == len(times[:4]), "no tie decides the order"
        newest = earlier.sort("time", descending=True)["item_id"].to_list()[:3]
        assert [ids[int(item) - 2] for item in found.items[place][found.mask[place]]] == newest


def test_the_most_alike_are_different_items_by_weight_without_the_item_itself(run):
    dataset = CtrDataset.open(run / "dataset")
    table = open_content(dataset, run / "embed")
    rows = np.array(dataset.rows("test"))
    target = int(np.bincount(dataset.impressions.target[rows]).argmax())
    weights = weigh(dataset, table, rows[dataset.impressions.target[rows] == target], max_length=MAX_LENGTH)
    best = {}
    for items, values in zip(weights.items.tolist(), weights.relevance.tolist(), strict=True):
        for item, value in zip(items, values, strict=True):
            if item != target and not math.isnan(value):
                best[item] = value
    assert target in weights.items
    expected = sorted(best, key=lambda item: -best[item])[:5]
    found = most_alike(weights, target, num=5)
    assert found.items.tolist() == expected
    np.testing.assert_allclose(found.relevance, [best[item] for item in expected], rtol=1e-5)


def brute(run, value, sorts, num, without=()):
    """Return what a loop over all test impressions chooses: value(click, base, mim) per sort."""
    table = CtrDataset.open(run / "dataset")
    scored = read(run)
    shown = table.impression_table(scored.rows).with_columns(
        base=pl.Series(1 / (1 + np.exp(-scored.base.astype(np.float64)))),
        mim=pl.Series(1 / (1 + np.exp(-scored.mim.astype(np.float64)))),
    )
    queues = []
    for sort in range(sorts):
        ranked = [
            (value(sort, entry), position)
            for position, entry in enumerate(shown.iter_rows(named=True))
            if position not in without and value(sort, entry) > 0
        ]
        queues.append([position for _, position in sorted(ranked, key=lambda pair: -pair[0])])
    users, items, chosen, sort = set(), set(), [], 0
    while len(chosen) < num and any(queues):
        while queues[sort]:
            position = queues[sort].pop(0)
            entry = shown.row(position, named=True)
            if entry["user_id"] not in users and entry["item_id"] not in items:
                users.add(entry["user_id"])
                items.add(entry["item_id"])
                chosen.append((sort, position))
                break
        sort = (sort + 1) % sorts
    return sorted(chosen, key=lambda pair: pair[0])


def change(sort, entry):
    if entry["click"] != (1, 0, 1, 0)[sort]:
        return 0
    return (entry["mim"] - entry["base"]) * (1 if sort < 2 else -1)


def loss_raised(sort, entry):
    if entry["click"] != (1, 0)[sort]:
        return 0
    if entry["click"]:
        return math.log(entry["base"] / entry["mim"])
    return math.log((1 - entry["base"]) / (1 - entry["mim"]))


def test_what_changed_most_is_what_a_loop_over_all_impressions_finds(run):
    expected = brute(run, change, 4, 8)
    assert choose_changed(read(run), 8) == expected
    assert len(expected) == 8


def test_failures_are_where_the_log_loss_rose_most_and_are_not_shown_twice(run):
    shown = [position for _, position in choose_changed(read(run), 8)]
    expected = brute(run, loss_raised, 2, 6, without=shown)
    assert choose_failures(read(run), 6, without=shown) == expected
    assert {sort for sort, _ in expected} == {0, 1}
    assert choose_failures(read(run), 6) != expected


def test_cold_items_are_those_that_no_training_impression_shows(run):
    scored, dataset = read(run), CtrDataset.open(run / "dataset")
    table = pl.read_parquet(run / "tables/impressions.parquet")
    test_start = dataset.manifest.test_start
    trained = set(table.filter(pl.col("time") < dataset.manifest.validation_start)["item_id"])
    counts = (
        table.filter(pl.col("time") >= test_start).group_by("item_id").agg(pl.len(), pl.col("click").sum())
    )
    expected = {
        item for item, num, clicks in counts.iter_rows() if item not in trained and num >= 20 and clicks >= 3
    }
    found = compare_cold_items(scored)
    assert {dataset.items["item_id"][case.item - 2] for case in found} == expected
    assert len(expected) >= 2
    categories = dict(dataset.items.select("item_id", "category").iter_rows())
    shown = dataset.impression_table(scored.rows).with_columns(mim=pl.Series(scored.mim))
    name = dataset.items["item_id"][found[0].item - 2]
    same = [
        entry for entry in shown.iter_rows(named=True) if categories[entry["item_id"]] == categories[name]
    ]
    scores = [entry["mim"] for entry in same if not entry["click"]]
    own = [entry["mim"] for entry in same if entry["click"] and entry["item_id"] == name]
    standings = [sum(1.0 * (o < s) + 0.5 * (o == s) for o in scores) / len(scores) for s in own]
    assert found[0].mim == pytest.approx(np.mean(standings))


def test_every_sheet_is_a_small_file_and_says_what_is_seen(run, tmp_path):
    found = {gallery.key: gallery for gallery in draw(run, tmp_path)}
    assert list(found) == ["neighbors", "changed", "rescued", "failures"]
    assert found["neighbors"].sheets == []
    assert "no encoders" in found["neighbors"].note
    sheets = [sheet for gallery in found.values() for sheet in gallery.sheets]
    assert len(found["changed"].sheets) == 4
    assert len({sheet.file for sheet in sheets}) == len(sheets)
    for sheet in sheets:
        file = tmp_path / sheet.file
        assert file.stat().st_size <= 150_000
        with Image.open(file) as shown:
            assert shown.width == 736
    scored, (_, first) = read(run), choose_changed(read(run), 4)[0]
    own = scored.dataset.impression_table(scored.rows[[first]]).row(0, named=True)
    told = found["changed"].sheets[0]
    assert own["item_id"] in told.caption
    assert f"{own['user_id']}, " in told.caption
    base, mim = (100 * float(sigmoid(logits[[first]])[0]) for logits in (scored.base, scored.mim))
    assert told.title == f"Upwards, clicked: {base:.1f} % → {mim:.1f} %"
    truth = scored.dataset.impressions.true_probability[scored.rows[first]]
    assert f"true probability {100 * truth:.1f} %" in told.caption


def test_the_same_galleries_come_every_time(run, tmp_path):
    one, two = (draw(run, tmp_path / name) for name in ("one", "two"))
    assert one == two
    for sheet in (sheet for gallery in one for sheet in gallery.sheets):
        assert (tmp_path / "one" / sheet.file).read_bytes() == (tmp_path / "two" / sheet.file).read_bytes()


def test_fewer_cases_than_asked_for_are_all_shown(run, tmp_path):
    found = {gallery.key: gallery for gallery in draw(run, tmp_path, num=200)}
    assert 8 < len(found["changed"].sheets) <= NUM_USERS
    gains = [case.gain for case in compare_cold_items(read(run))]
    assert len(found["rescued"].sheets) == sum(gain > 0 for gain in gains)
    fell = [sheet for sheet in found["failures"].sheets if "failed-item" in sheet.file]
    assert len(fell) == sum(gain < 0 for gain in gains)
    captions = " ".join(sheet.caption for gallery in found.values() for sheet in gallery.sheets)
    assert "(no title). item" in captions
    assert ".." not in captions
    assert "no category" in captions
    assert "without a weight, as a vector is missing" in captions


def test_none_is_asked_for(run, tmp_path):
    assert not [sheet for gallery in draw(run, tmp_path, num=0) for sheet in gallery.sheets]
    assert not list(tmp_path.iterdir())


def test_a_shop_without_pictures_has_no_gallery_and_a_note_says_so(tmp_path):
    run = write_run(tmp_path / "run", pictures=False)
    (only,) = draw(run, tmp_path / "out")
    assert only.note == "None of the 40 items of this dataset has a picture, so none is drawn."
    assert only.sheets == []
    assert not (tmp_path / "out").exists()


def test_without_true_probabilities_and_categories_nothing_is_made_up(tmp_path):
    run = write_run(tmp_path / "run", truth=False, categories=False)
    found = draw(run, tmp_path / "out")
    captions = [sheet.caption for gallery in found for sheet in gallery.sheets]
    assert len(captions) > 4
    assert not any("true" in caption for caption in captions)


def test_items_with_too_few_impressions_are_counted_and_not_shown(run, tmp_path, monkeypatch):
    monkeypatch.setattr(galleries, "MIN_IMPRESSIONS", 10_000)
    found = {gallery.key: gallery for gallery in draw(run, tmp_path)}
    assert found["rescued"].sheets == []
    assert "0 items have at least 10000 test impressions" in found["rescued"].note


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, r"base of \('din', 0\) and mim of \('din', 1\)"),
        ({"ubm": "sim"}, r"base of \('din', 0\) and mim of \('sim', 0\)"),
        ({"variant": "base"}, "Name a model without and one with content"),
        ({"variant": "mim_permuted"}, r"mim_permuted of \('din', 0\)"),
        ({"dataset_hash": "other"}, "it was trained on tables other, the dataset was made from"),
        ({"config": {"max_length": "many"}}, "its config is not of this version"),
    ],
)
def test_two_models_that_are_no_pair_are_refused(run, tmp_path, changes, message):
    write_model(tmp_path / "mim", CtrDataset.open(run / "dataset"), **({"variant": "mim"} | changes))
    with pytest.raises(RunError, match=message):
        draw(run, tmp_path / "out", mim=tmp_path / "mim")


def test_a_model_of_other_vectors_is_refused(run, tmp_path):
    dataset = CtrDataset.open(run / "dataset")
    write_model(tmp_path / "mim", dataset, variant="mim", content_fingerprint="another")
    with pytest.raises(StaleSnapshot, match="it was trained on vectors of encoder another"):
        draw(run, tmp_path / "out", mim=tmp_path / "mim")


def test_neighbors_have_a_strip_for_each_encoder(tmp_path):
    run = write_run(tmp_path / "run")
    clicks = pl.read_parquet(run / "tables/impressions.parquet").filter(pl.col("click") == 1)
    clicks.select("user_id", "item_id", "time", kind=pl.lit("purchase")).with_columns(
        query_image=pl.Series([picture(50 + number % 5) for number in range(clicks.height)])
    ).write_parquet(run / "tables/searches.parquet")
    prepare.main(run / "tables", run / "again", prepare.Config(test_fraction=0.4))
    encoders = {}
    for label in ("before", "after"):
        torch.manual_seed(len(label))
        item_encoder().save(run / label)
        embed.main(
            run / "again", run / label, run / f"embed-{label}", embed.Config(device="cpu", num_workers=1)
        )
        encoders[label] = Encoded(run / label, run / f"embed-{label}")
    dataset = CtrDataset.open(run / "again")
    for variant in ("base", "mim"):
        write_model(run / f"{variant}-again", dataset, variant=variant)
    found = draw_galleries(
        dataset,
        content=run / "embed",
        base=run / "base-again",
        mim=run / "mim-again",
        encoders=encoders,
        out=tmp_path / "out",
        num=3,
        seed=0,
    )[0]
    assert len(found.sheets) == 3
    for sheet in found.sheets:
        assert (tmp_path / "out" / sheet.file).is_file()
        assert sheet.caption.index("before") < sheet.caption.index("after")
