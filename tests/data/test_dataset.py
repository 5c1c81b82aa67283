"""The dataset gives back what the tables said: every row with its own user, label, fields and history."""

from functools import partial

import numpy as np
import polars as pl
import pytest
import torch

from mimctr.data import CtrDataset, SplitRule, prepare_tables
from mimctr.errors import DataError, RunError
from mimctr.files import read_json, write_json

from .conftest import START, make_tables, picture, write_tables


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    prepare_tables(write_tables(folder / "tables", make_tables()), folder / "dataset")
    return CtrDataset.open(folder / "dataset")


def decoded(dataset, batch):
    """Return each row of a batch in raw terms: user, item, click, city, hour, query and the items of its history."""
    users = dict(zip(*dataset.users.select("user_index", "user_id"), strict=True))
    items = dict(zip(*dataset.items.select("item_index", "item_id"), strict=True))
    words = {
        name: dict(zip(*dataset.vocabulary(name.split("_")[0], name).select("index", "value"), strict=True))
        for name in ("user_city", "context_hour", "query_text")
    }
    for row in range(len(batch)):
        yield (
            users[int(batch.user_fields[row, 0])],
            items[int(batch.target[row])],
            int(batch.clicks[row]),
            words["user_city"][int(batch.user_fields[row, 1])],
            int(words["context_hour"].get(int(batch.context_fields[row, 0]), -1)),
            words["query_text"][int(batch.query_fields[row, 0])],
            tuple(items[int(item)] for item in batch.behaviors[row][batch.mask[row]]),
        )


def expected(tables):
    """Return the same from the raw tables, by a loop."""
    for row in tables["impressions"].sort("time", maintain_order=True).iter_rows(named=True):
        history = [
            (behavior["time"], place, behavior["item_id"])
            for place, behavior in enumerate(tables["behaviors"].iter_rows(named=True))
            if behavior["user_id"] == row["user_id"] and behavior["time"] < row["time"]
        ]
        yield (
            *(
                row[name]
                for name in ("user_id", "item_id", "click", "user_city", "context_hour", "query_text")
            ),
            tuple(item for _, _, item in sorted(history)),
        )


def test_every_row_keeps_its_user_label_fields_and_history(dataset):
    """Brute force. Mutants: sort the users but not the labels; a behavior at the impression's own second leaks."""
    everything = dataset.batch(np.arange(len(dataset.impressions)), max_length=1000)
    assert list(decoded(dataset, everything)) == list(expected(make_tables()))


def test_shuffled_tables_give_the_same_training_rows(dataset, tmp_path):
    """Mutant: one column is gathered in another order than the rest; then it would depend on the rows' order."""
    tables = {name: table.sample(fraction=1.0, shuffle=True, seed=3) for name, table in make_tables().items()}
    prepare_tables(write_tables(tmp_path / "tables", tables), tmp_path / "dataset")
    shuffled = CtrDataset.open(tmp_path / "dataset")
    rows = [
        sorted(decoded(d, d.batch(np.asarray(d.rows("train")), max_length=9))) for d in (dataset, shuffled)
    ]
    unordered = [
        [(*row[:-1], len(row[-1])) for row in side] for side in rows
    ]  # ties within a history may swap
    assert unordered[0] == unordered[1]


def test_future_events_change_nothing_for_earlier_impressions(dataset, tmp_path):
    """Mutant: ``end`` counts all behaviors of the user."""
    tables = make_tables()
    last = tables["impressions"]["time"].max()
    late = tables["behaviors"].with_columns(time=pl.lit(last, dtype=pl.Int64), kind=pl.lit("purchase"))
    tables["behaviors"] = pl.concat([late, tables["behaviors"]])
    prepare_tables(write_tables(tmp_path / "tables", tables), tmp_path / "dataset")
    changed = CtrDataset.open(tmp_path / "dataset")
    rows = np.flatnonzero(dataset.impressions.time <= last)
    before, after = (list(decoded(d, d.batch(rows, max_length=50))) for d in (dataset, changed))
    assert before == after


def test_a_batch_does_not_depend_on_the_rows_beside_it(dataset):
    rows = np.array([250, 3, 250, 77])
    together = list(decoded(dataset, dataset.batch(rows, max_length=7)))
    alone = [
        next(decoded(dataset, dataset.batch(rows[place : place + 1], max_length=7))) for place in range(4)
    ]
    assert together == alone


def test_truncation_keeps_the_newest_behaviors_at_the_end(dataset):
    row = np.array([len(dataset.impressions) - 1])
    longest = dataset.batch(row, max_length=1000)
    short = dataset.batch(row, max_length=3)
    for name in ("behaviors", "kinds", "time_gaps", "mask"):
        assert torch.equal(getattr(short, name), getattr(longest, name)[:, -3:])


def test_time_gaps_are_positive_seconds_and_fall_towards_the_newest(dataset):
    batch = dataset.batch(np.asarray(dataset.rows("test")), max_length=20)
    assert batch.time_gaps[batch.mask].min() >= 1
    assert (batch.time_gaps[~batch.mask] == 0).all()
    both = batch.mask[:, :-1]
    assert (batch.time_gaps[:, :-1] >= batch.time_gaps[:, 1:])[both].all()


def test_kinds_are_named_in_the_manifest(dataset):
    assert dataset.manifest.kinds == ["click", "purchase"]
    counts = np.bincount(dataset.behaviors.kind)
    assert counts.tolist() == [
        0,
        0,
        *make_tables()["behaviors"]["kind"].value_counts(sort=True)["count"].to_list(),
    ]


def test_without_behaviors_earlier_clicks_are_the_history(tmp_path):
    tables = make_tables()
    del tables["behaviors"]
    prepare_tables(write_tables(tmp_path / "tables", tables), tmp_path / "dataset")
    dataset = CtrDataset.open(tmp_path / "dataset")
    clicks = tables["impressions"].sort("time", maintain_order=True).filter(pl.col("click") == 1)
    tables["behaviors"] = clicks.select("user_id", "item_id", "time")
    everything = dataset.batch(np.arange(len(dataset.impressions)), max_length=1000)
    assert list(decoded(dataset, everything)) == list(expected(tables))
    assert (dataset.manifest.behaviors_from, dataset.manifest.kinds) == ("impressions", ["click"])


def test_parts_follow_each_other_in_time(dataset):
    train, validation, test = (dataset.rows(part) for part in ("train", "validation", "test"))
    assert train.start == 0
    assert (train.stop, validation.stop, test.stop) == (
        validation.start,
        test.start,
        len(dataset.impressions),
    )
    times = dataset.impressions.time
    assert times[train.stop - 1] < dataset.manifest.validation_start <= times[validation.start]
    assert times[validation.stop - 1] < dataset.manifest.test_start <= times[test.start]


def test_field_vocabularies_know_the_training_part_only(tmp_path):
    """Mutant: build them from all rows; what only the test part shows then gets a row of its own."""
    tables = make_tables()
    last = tables["impressions"]["time"].max()
    late = pl.when(pl.col("time") == last).then(pl.lit("Neu")).otherwise("user_city").alias("user_city")
    tables["impressions"] = tables["impressions"].with_columns(late)
    prepare_tables(write_tables(tmp_path / "tables", tables), tmp_path / "dataset")
    dataset = CtrDataset.open(tmp_path / "dataset")
    assert dataset.vocabulary("user", "user_city")["value"].to_list() == ["Rom", "Ulm"]
    assert dataset.impressions.user_fields[-1, 1] == 1
    assert dataset.fields.user == {"user": 10, "user_city": 4}


def test_training_counts_are_impressions_and_behaviors_before_its_end(dataset):
    tables, end = make_tables(), dataset.manifest.validation_start
    for name, counts, ids in (
        ("item_id", dataset.item_train_counts, dataset.items["item_id"]),
        ("user_id", dataset.user_train_counts, dataset.users["user_id"]),
    ):
        events = pl.concat([tables[table].select(name, "time") for table in ("impressions", "behaviors")])
        seen = events.filter(pl.col("time") < end)[name].to_list()
        assert counts.tolist() == [0, 0, *(seen.count(value) for value in ids)]


def test_items_keep_the_order_of_the_table_and_their_images(dataset):
    tables = make_tables()
    assert dataset.items["item_id"].to_list() == tables["items"]["item_id"].to_list()
    assert dataset.items["item_index"].to_list() == list(range(2, 22))
    assert dataset.item_keys.tolist() == [-1, -1, *range(100, 120)]
    assert [dataset.item_images.get(row) for row in range(20)] == [picture(number) for number in range(20)]
    categories = dataset.vocabulary("item", "category")["value"].to_list()
    assert [categories[index - 2] for index in dataset.item_fields[2:, 0]] == tables["items"][
        "category"
    ].to_list()
    assert dataset.fields.item == {"category": 6, "brand": 5}


def test_unknown_first_seen_times_come_from_the_log(tmp_path):
    tables = make_tables()
    never = {**tables["items"].row(0, named=True), "item_id": 999}
    tables["items"] = pl.concat([tables["items"], pl.DataFrame([never], schema=tables["items"].schema)])
    tables["items"] = tables["items"].drop("first_seen_time")
    prepare_tables(write_tables(tmp_path / "tables", tables), tmp_path / "dataset")
    items = CtrDataset.open(tmp_path / "dataset").items
    events = pl.concat([tables[name].select("item_id", "time") for name in ("impressions", "behaviors")])
    first = dict(events.group_by("item_id").agg(pl.col("time").min()).iter_rows())
    start = events["time"].min()
    assert items["first_seen_time"].to_list() == [first.get(item, start) for item in items["item_id"]]


def test_queries_are_stored_once(tmp_path):
    tables = make_tables()
    rows = len(tables["impressions"])
    texts = [["hat", None, "hat", "bag"][row % 4] for row in range(rows)]
    images = [[picture(1), picture(1), None, None][row % 4] for row in range(rows)]
    times = START + np.arange(rows)
    tables["impressions"] = tables["impressions"].with_columns(
        query_text=pl.Series(texts), query_image=pl.Series(images), time=pl.Series(times)
    )
    tables["impressions"][0, "query_text"] = None
    tables["impressions"] = tables["impressions"].with_columns(
        query_image=pl.when(pl.int_range(pl.len()) == 0).then(None).otherwise("query_image")
    )
    prepare_tables(write_tables(tmp_path / "tables", tables), tmp_path / "dataset")
    dataset = CtrDataset.open(tmp_path / "dataset")
    assert len(dataset.queries) == 4
    assert dataset.queries.images.num_blobs == 1
    queries = dataset.batch(np.arange(9), max_length=1).query.tolist()
    assert queries[0] == 0, "no text and no image is no query"
    found = [
        (dataset.queries.texts[query - 1], dataset.queries.images.get(query - 1)) for query in queries[1:]
    ]
    assert found == list(zip(texts[1:9], images[1:9], strict=True))


def test_the_batches_of_an_epoch_hold_every_row_once(dataset):
    rows = dataset.rows("train")
    batches = list(dataset.batches(rows, batch_size=64, max_length=5, seed=1))
    assert [len(batch) for batch in batches[:-1]] == [64] * (len(rows) // 64)
    order = np.random.default_rng([1, 0]).permutation(np.asarray(rows))
    again = dataset.batch(order, max_length=5)
    assert torch.equal(torch.cat([batch.target for batch in batches]), again.target)


@pytest.mark.parametrize("start", [1, 3, 99])
def test_a_resumed_epoch_gives_the_batches_that_were_left(dataset, start):
    """Mutant: draw the order from a generator that the skipped batches have not advanced."""
    read = partial(dataset.batches, dataset.rows("train"), batch_size=50, max_length=5, seed=7, epoch=2)
    left, resumed = list(read())[start:], list(read(start=start))
    assert len(left) == len(resumed)
    for one, other in zip(left, resumed, strict=True):
        assert torch.equal(one.user_fields, other.user_fields)
        assert torch.equal(one.behaviors, other.behaviors)


def test_epochs_and_seeds_have_their_own_order(dataset):
    def first(seed, epoch):
        batches = dataset.batches(dataset.rows("train"), batch_size=100, max_length=1, seed=seed, epoch=epoch)
        return next(batches).target.tolist()

    assert len({tuple(first(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_no_seed_keeps_the_order(dataset):
    batches = dataset.batches(dataset.rows("test"), batch_size=10, max_length=1, seed=None)
    targets = torch.cat([batch.target for batch in batches])
    assert targets.tolist() == dataset.impressions.target[dataset.rows("test")].tolist()


def test_a_batch_size_of_zero_is_refused(dataset):
    with pytest.raises(DataError, match="batch_size must be at least 1, got 0"):
        next(dataset.batches(range(3), batch_size=0, max_length=1, seed=None))


def test_nothing_but_the_manifest_is_needed_to_be_understood(dataset, tmp_path):
    manifest = read_json(dataset.folder / "manifest.json")
    assert manifest["counts"]["impressions"] == len(dataset.impressions)
    write_json(tmp_path / "manifest.json", {**manifest, "schema_version": 99})
    with pytest.raises(RunError, match=r"manifest\.json: schema version 99, this program reads 1"):
        CtrDataset.open(tmp_path)
    write_json(tmp_path / "manifest.json", {**manifest, "kinds": 3})
    with pytest.raises(RunError, match=r"manifest\.json: kinds: Input should be a valid list"):
        CtrDataset.open(tmp_path)


def test_a_missing_or_damaged_array_is_an_error(dataset, tmp_path):
    write_json(tmp_path / "manifest.json", read_json(dataset.folder / "manifest.json"))
    with pytest.raises(RunError, match=r"target\.npy: no such file; the dataset is incomplete"):
        CtrDataset.open(tmp_path)
    (tmp_path / "impressions").mkdir()
    (tmp_path / "impressions" / "target.npy").write_bytes(b"not an array")
    with pytest.raises(RunError, match=r"target\.npy: damaged \("):
        CtrDataset.open(tmp_path)


def test_rows_of_an_empty_history_are_all_padding(tmp_path):
    tables = make_tables()
    tables["behaviors"] = tables["behaviors"].head(1).with_columns(user_id=pl.lit(99, dtype=pl.Int64))
    prepare_tables(write_tables(tmp_path / "tables", tables), tmp_path / "dataset")
    dataset = CtrDataset.open(tmp_path / "dataset")
    batch = dataset.batch(np.arange(5), max_length=10)
    assert batch.behaviors.tolist() == [[0]] * 5
    assert not batch.mask.any()


def test_users_that_only_behave_do_not_shift_the_others(tmp_path):
    """Mutant: every table numbers its own users; the behaviors of one user then go to another."""
    tables = make_tables()
    stranger = tables["behaviors"].head(3).with_columns(user_id=pl.lit(0, dtype=pl.Int64))
    tables["behaviors"] = pl.concat([tables["behaviors"], stranger])
    prepare_tables(write_tables(tmp_path / "tables", tables), tmp_path / "dataset")
    dataset = CtrDataset.open(tmp_path / "dataset")
    everything = dataset.batch(np.arange(len(dataset.impressions)), max_length=1000)
    assert list(decoded(dataset, everything)) == list(expected(tables))


def test_warm_up_impressions_are_in_no_part_but_in_histories(tmp_path):
    tables = make_tables()
    del tables["behaviors"]
    rule = SplitRule(warmup_days=0.1)
    prepare_tables(write_tables(tmp_path / "tables", tables), tmp_path / "dataset", split=rule)
    dataset = CtrDataset.open(tmp_path / "dataset")
    first, times = dataset.rows("train").start, dataset.impressions.time
    assert times[first - 1] < times[0] + 8640 <= times[first]
    assert dataset.batch(np.array([first]), max_length=50).mask.any()
