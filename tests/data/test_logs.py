"""Parquet, parts and CSV, integer and text ids give the same dataset; a damaged file is told."""

import re

import numpy as np
import polars as pl
import pytest

from mimctr.data import CtrDataset, prepare_tables
from mimctr.errors import DataError

from .conftest import NUM_ITEMS, refusal, with_paths


def as_text(tables):
    """Return tables with text ids that sort as the integers do."""
    ids = [pl.format("{}-x", name).alias(name) for name in ("user_id", "item_id")]
    items = tables["items"].with_columns(ids[1])
    return {name: table.with_columns(ids) for name, table in tables.items() if name != "items"} | {
        "items": items
    }


def test_text_ids_and_integer_ids_give_the_same_rows(tables, write, tmp_path):
    prepare_tables(write(tables), tmp_path / "integers")
    prepare_tables(write(as_text(tables)), tmp_path / "texts")
    integers, texts = CtrDataset.open(tmp_path / "integers"), CtrDataset.open(tmp_path / "texts")
    assert texts.items["item_id"].to_list() == [f"{item}-x" for item in integers.items["item_id"]]
    for name in ("target", "click", "end", "user_fields"):
        assert np.array_equal(getattr(integers.impressions, name), getattr(texts.impressions, name))
    assert texts.item_keys.min() == -1
    assert len(set(texts.item_keys[2:])) == NUM_ITEMS


def test_csv_parquet_and_parts_give_the_same_dataset(tables, write, tmp_path):
    """Times as dates and datetimes too. Mutant: infer CSV types from the first rows."""
    tables["items"] = with_paths(tables, tmp_path / "csv", {})["items"]
    parquet = write(tables)
    (tmp_path / "csv" / "photos").rename(parquet / "photos")
    prepare_tables(parquet, tmp_path / "out0")
    (parquet / "photos").rename(tmp_path / "csv" / "photos")
    for name, table in tables.items():
        if name == "impressions":
            table = table.with_columns(pl.from_epoch("time").dt.strftime("%Y-%m-%d %H:%M:%S"))
        table.write_csv(tmp_path / "csv" / f"{name}.csv")
    prepare_tables(tmp_path / "csv", tmp_path / "out1")
    (tmp_path / "csv" / "photos").rename(tmp_path / "photos")
    parts = tmp_path / "parts"
    for name, table in tables.items():
        (parts / name).mkdir(parents=True)
        if name == "behaviors":
            table = table.with_columns(
                pl.from_epoch("time").dt.replace_time_zone("UTC").dt.convert_time_zone("Asia/Tokyo")
            )
        for part in range(0, len(table), 30):
            table[part : part + 30].write_parquet(parts / name / f"part-{part:05}.parquet")
    (tmp_path / "photos").rename(parts / "photos")
    prepare_tables(parts, tmp_path / "out2")
    first, *others = (CtrDataset.open(tmp_path / f"out{number}") for number in range(3))
    for other in others:
        assert other.items.equals(first.items)
        assert other.pairs.equals(first.pairs)
        assert other.fields == first.fields
        for name in (
            "target",
            "time",
            "click",
            "query",
            "end",
            "user_fields",
            "query_fields",
            "context_fields",
        ):
            assert np.array_equal(getattr(other.impressions, name), getattr(first.impressions, name)), name
        assert np.array_equal(other.behaviors.time, first.behaviors.time)


def test_ids_with_leading_zeros_in_csv_stay_text(tables, tmp_path):
    folder = tmp_path / "tables"
    folder.mkdir()
    for name, table in tables.items():
        ids = pl.format("0{}", "item_id").alias("item_id")
        table.drop("image", strict=False).with_columns(ids).write_csv(folder / f"{name}.csv")
    prepare_tables(folder, tmp_path / "out")
    assert CtrDataset.open(tmp_path / "out").items["item_id"][0] == "0100"


def test_a_csv_cell_that_is_no_time_or_number_is_told(tables, tmp_path):
    folder = tmp_path / "tables"
    folder.mkdir()
    tables["items"] = tables["items"].drop("image")
    for name, table in tables.items():
        table.write_csv(folder / f"{name}.csv")
    lines = (folder / "impressions.csv").read_text().split("\n")
    cells = lines[4].split(",")
    lines[4] = ",".join([*cells[:2], "yesterday", "maybe", *cells[4:]])
    (folder / "impressions.csv").write_text("\n".join(lines))
    found = refusal(folder, tmp_path / "out")
    assert re.match(
        r"impressions\.time: 1 of \d+ rows do not hold whole seconds UTC, .* First: row 3, 'yesterday'\.",
        found[0],
    )
    assert re.match(r"impressions\.click: 1 of \d+ rows are not 0 or 1\. First: row 3, 'maybe'\.", found[1])
    assert len(found) == 2


def test_a_damaged_parquet_file_is_told(tables, write, tmp_path):
    folder = write(tables)
    (folder / "items.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(
        DataError, match=r"items\.parquet: cannot be read as Parquet \(.*\)\. Export it again\."
    ):
        prepare_tables(folder, tmp_path / "out")


def test_damage_in_the_middle_of_a_parquet_file_is_told(tables, write, tmp_path):
    folder = write(
        {**tables, "items": tables["items"].with_columns(pl.col("image").repeat_by(1).list.first())}
    )
    data = bytearray((folder / "items.parquet").read_bytes())
    data[len(data) // 4 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 4)
    (folder / "items.parquet").write_bytes(data)
    with pytest.raises(
        DataError, match=r"items\.parquet: cannot be read as Parquet \(.*\)\. Export it again\."
    ):
        prepare_tables(folder, tmp_path / "out")


@pytest.mark.parametrize("damage", [b"\xff\xfe\xff,1,2\n", b'1,"unclosed,2\n', b"1,2,3,4,5,6,7,8,9\n"])
def test_a_damaged_csv_file_is_told(tables, tmp_path, damage):
    folder = tmp_path / "tables"
    folder.mkdir()
    for name, table in tables.items():
        table.drop("image", strict=False).write_csv(folder / f"{name}.csv")
    with (folder / "behaviors.csv").open("ab") as file:
        file.write(damage)
    with pytest.raises(DataError, match="behaviors"):
        prepare_tables(folder, tmp_path / "out")


def test_a_table_that_is_there_twice_is_told(tables, write, tmp_path):
    folder = write(tables)
    (folder / "items.csv").write_text("item_id\n1\n")
    with pytest.raises(
        DataError, match=r"the table items is there more than once \(items\.parquet and items\.csv\)"
    ):
        prepare_tables(folder, tmp_path / "out")


def test_folders_that_hold_no_tables_are_told(tables, write, tmp_path):
    with pytest.raises(DataError, match=r"nowhere: no such folder\. Give the folder that holds the tables"):
        prepare_tables(tmp_path / "nowhere", tmp_path / "out")
    del tables["behaviors"]
    (folder := write(tables)).joinpath("behaviors").mkdir()
    with pytest.raises(DataError, match=r"behaviors: holds no \.parquet file"):
        prepare_tables(folder, tmp_path / "out")


def write_parts(folder, name, parts):
    folder = folder / name
    folder.mkdir(parents=True)
    for number, part in enumerate(parts):
        part.write_parquet(folder / f"part-{number}.parquet")


@pytest.mark.parametrize("empty", [0, 1])
def test_a_part_without_a_value_of_a_column_does_not_hide_those_of_others(tables, write, tmp_path, empty):
    """Writers give such a column no type. Mutant: the first part says for all what a column holds."""
    items = tables["items"]
    prepare_tables(write(tables), tmp_path / "whole")
    folder = write({name: table for name, table in tables.items() if name != "items"})
    parts = [items[:10], items[10:]]
    parts[empty] = parts[empty].with_columns(title=pl.lit(None), image=pl.lit(None), category=pl.lit(None))
    write_parts(folder, "items", parts)
    prepare_tables(folder, tmp_path / "out")
    whole, found = CtrDataset.open(tmp_path / "whole"), CtrDataset.open(tmp_path / "out")
    kept = slice(10, 20) if empty == 0 else slice(0, 10)
    for name in ("title", "category", "has_image"):
        assert found.items[name][kept].to_list() == whole.items[name][kept].to_list(), name
    lost = slice(0, 10) if empty == 0 else slice(10, 20)
    assert found.items["title"][lost].null_count() == 10
    assert not found.items["has_image"][lost].any()


def test_parts_of_other_widths_and_orders_of_columns_are_one_table(tables, write, tmp_path):
    """As pandas and Spark write them, part by part."""
    prepare_tables(write(tables), tmp_path / "whole")
    items, impressions = tables["items"], tables["impressions"]
    folder = write({"behaviors": tables["behaviors"]})
    narrow = items[10:].cast({"item_id": pl.Int32, "price": pl.Float32, "category": pl.Categorical})
    write_parts(folder, "items", [items[:10], narrow.select(reversed(items.columns))])
    times = [pl.from_epoch("time").cast(pl.Datetime(unit)) for unit in ("ms", "ns")]
    write_parts(
        folder,
        "impressions.parquet",
        [impressions[:50].with_columns(times[0]), impressions[50:].with_columns(times[1])],
    )
    (folder / "impressions.parquet" / "_SUCCESS").touch()
    prepare_tables(folder, tmp_path / "out")
    whole, found = CtrDataset.open(tmp_path / "whole"), CtrDataset.open(tmp_path / "out")
    assert found.items.select(whole.items.columns).equals(whole.items)
    for name in ("target", "time", "click", "end", "user_fields"):
        assert np.array_equal(getattr(found.impressions, name), getattr(whole.impressions, name)), name


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda part: part.drop("image"),
            r"part-1\.parquet: has no column 'image', which part-0\.parquet has\.",
        ),
        (
            lambda part: part.with_columns(more=pl.lit("x")),
            r"part-0\.parquet: has no column 'more', which part-1\.parquet has\.",
        ),
        (
            lambda part: part.with_columns(image=pl.struct(bytes="image")),
            r"part-1\.parquet: its column 'image' holds Struct\(.*\), that of the parts before it Binary\.",
        ),
        (
            lambda part: part.with_columns(item_id=pl.format("{}", "item_id")),
            r"part-1\.parquet: its column 'item_id' holds String, that of the parts before it Int64\.",
        ),
    ],
)
def test_a_part_that_does_not_fit_the_others_is_named(tables, write, tmp_path, change, told):
    folder = write({name: table for name, table in tables.items() if name != "items"})
    write_parts(folder, "items", [tables["items"][:10], change(tables["items"][10:])])
    with pytest.raises(DataError, match=told):
        prepare_tables(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
