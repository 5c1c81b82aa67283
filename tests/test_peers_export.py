"""What the other libraries are given: the raw tables, read here in plain loops, are all in it and nothing later is."""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
import pytest
from data.conftest import START, Tables, make_tables, write_tables

from mimctr.data.dataset import CtrDataset
from mimctr.data.prepare import prepare_tables

FOLDER = Path(__file__).parent.parent / "benchmarks" / "peers"
LENGTH = 5


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Import a module that lies beside the peers' scripts."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


@pytest.fixture
def dataset(tmp_path: Path) -> CtrDataset:
    prepare_tables(write_tables(tmp_path / "tables", make_tables()), tmp_path / "dataset")
    return CtrDataset.open(tmp_path / "dataset")


@pytest.fixture
def log(dataset: CtrDataset, modules: Callable[[str], ModuleType], tmp_path: Path):
    """The export, through its file."""
    modules("export_dataset").export(dataset).save(tmp_path / "log.npz")
    return modules("market").Log.load(tmp_path / "log.npz")


def value_of(dataset: CtrDataset, group: str, field: str) -> dict[int, object]:
    table = dataset.vocabulary(group, field)
    return dict(zip(table["index"], table["value"], strict=True))


def ids(dataset: CtrDataset) -> tuple[dict[int, int], dict[int, int]]:
    """Raw ids of users and of items by index."""
    users = dict(zip(dataset.users["user_index"], dataset.users["user_id"], strict=True))
    return users, {row + 2: item for row, item in enumerate(dataset.items["item_id"])}


def test_every_impression_is_there_once_with_its_label_fields_and_part(dataset: CtrDataset, log) -> None:
    """Mutants: a field's column moved; a part that starts a row late."""
    raw, manifest = make_tables()["impressions"], dataset.manifest
    users, items = ids(dataset)
    texts = value_of(dataset, "query", "query_text")
    cities, hours = value_of(dataset, "user", "user_city"), value_of(dataset, "context", "context_hour")
    columns = {name: values for name, (values, _) in log.field_columns(slice(0, len(log.users))).items()}
    exported = sorted(
        (users[user], items[item], time, click, texts[text], cities[city], str(hours[hour]))
        for user, item, time, click, text, city, hour in zip(
            log.users, log.items, log.times, log.clicks,
            columns["query_text"], columns["user_city"], columns["context_hour"], strict=True,
        )
    )  # fmt: skip
    first, last = manifest.train_start, manifest.test_end
    wanted = sorted(
        (row["user_id"], row["item_id"], row["time"], row["click"], row["query_text"], row["user_city"],
         str(row["context_hour"]))
        for row in raw.iter_rows(named=True) if first <= row["time"] < last
    )  # fmt: skip
    assert exported == wanted
    starts = [manifest.train_start, manifest.validation_start, manifest.test_start, manifest.test_end]
    for part, begin, end in zip(("train", "validation", "test"), starts, starts[1:], strict=False):
        times = log.times[log.rows(part)]
        assert len(times) == raw.filter(pl.col("time").is_between(begin, end, closed="left")).height
        assert begin <= times.min()
        assert times.max() < end


def test_a_history_is_what_the_user_did_strictly_before(dataset: CtrDataset, log) -> None:
    """Mutants: one behavior more, the one of the same second; the oldest kept in place of the newest; reversed."""
    tables: Tables = make_tables()
    users, items = ids(dataset)
    histories, counts = log.newest(slice(0, len(log.users)), LENGTH)
    ties = 0
    for row, (user, time) in enumerate(zip(log.users, log.times, strict=True)):
        done = tables["behaviors"].filter(pl.col("user_id") == users[user])
        before = sorted(t for t in done["time"] if t < time)
        ties += int((done["time"] == time).sum())
        assert log.ends[row] == len(before)
        start, end = log.offsets[user], log.offsets[user] + log.ends[row]
        assert log.behavior_times[start:end].tolist() == before
        assert counts[row] == min(len(before), LENGTH)
        newest = log.behaviors[end - counts[row] : end]
        assert histories[row].tolist() == [*newest, *[0] * (LENGTH - counts[row])]
        by_time = {t: set(done.filter(pl.col("time") == t)["item_id"]) for t in before}
        for item, t in zip(newest, log.behavior_times[end - counts[row] : end], strict=True):
            assert items[item] in by_time[t]
    assert ties > 0, "no behavior shares its second with an impression: nothing was tested"


def test_items_keep_their_fields_and_only_untrained_ones_share_a_row(
    modules: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    """Mutant: counts over all parts, with which an item of the test part would have a row that nothing trains."""
    tables = make_tables()
    last = tables["impressions"]["time"].max()
    assert last > START
    new = (
        tables["impressions"]
        .filter(pl.col("time") == last)
        .head(1)
        .with_columns(item_id=pl.lit(119, dtype=pl.Int64))
    )
    old = tables["impressions"].filter((pl.col("item_id") != 119) & (pl.col("time") < last))
    behaviors = tables["behaviors"].filter((pl.col("time") < last) & (pl.col("item_id") != 119))
    raw = {"items": tables["items"], "impressions": pl.concat([old, new]), "behaviors": behaviors}
    prepare_tables(write_tables(tmp_path / "tables", raw), tmp_path / "dataset")
    dataset = CtrDataset.open(tmp_path / "dataset")
    log = modules("export_dataset").export(dataset)
    _, items = ids(dataset)
    columns = log.item_columns()
    categories, brands = (value_of(dataset, "item", name) for name in ("category", "brand"))
    for index, item in items.items():
        number = item - 100
        assert categories[columns["item_category"][0][index]] == f"c{number % 4}"
        assert str(brands[columns["item_brand"][0][index]]) == str(number % 3)
    trained = {items[index] for index in np.unique(log.items[log.rows("train")])}
    alone = {item for index, item in items.items() if log.known_items[index] > 1}
    assert 119 in items.values()
    assert 119 not in trained
    assert alone == trained


def test_target_and_history_alone_are_the_same_impressions_with_one_user_and_no_field(log):
    less = log.target_and_history()
    rows = log.rows("test")
    for one, other in zip(log.newest(rows, 5), less.newest(rows, 5), strict=True):
        assert np.array_equal(one, other)
    assert less.field_columns(rows) == {}
    assert set(less.known_users[log.users].tolist()) == {1}
    assert np.array_equal(less.items, log.items)
    assert less.item_columns().keys() == log.item_columns().keys()


def test_a_missing_environment_of_the_peers_is_told_in_a_line(modules, tmp_path):
    with pytest.raises(SystemExit, match=r"bin/python: no such Python\. Make the peers' environment"):
        modules("start").run_task("recbole", "prepare", tmp_path, {}, peers=tmp_path / "bin/python")
