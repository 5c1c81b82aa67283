"""A small marketplace as raw tables, which tests then change in one place."""

import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from mimctr.data import prepare_tables
from mimctr.errors import DataError

START = 1_600_000_000
NUM_ITEMS, NUM_USERS, NUM_IMPRESSIONS = 20, 8, 400
Tables = dict[str, pl.DataFrame]


def picture(number: int) -> bytes:
    """Return a small PNG; every number has another color."""
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), (number % 256, number * 7 % 256, 40)).save(buffer, "PNG")
    return buffer.getvalue()


def make_tables() -> Tables:
    """Return good tables: integer ids, four categories, click, query, fields; several impressions a second."""
    rng = np.random.default_rng(0)
    items = pl.DataFrame(
        {
            "item_id": np.arange(100, 100 + NUM_ITEMS),
            "title": [f"title {number}" for number in range(NUM_ITEMS)],
            "image": [picture(number) for number in range(NUM_ITEMS)],
            "category": [f"c{number % 4}" for number in range(NUM_ITEMS)],
            "first_seen_time": np.full(NUM_ITEMS, START),
            "price": np.arange(NUM_ITEMS) / 4,
            "brand": [number % 3 for number in range(NUM_ITEMS)],
        }
    )
    impressions = pl.DataFrame(
        {
            "user_id": rng.integers(1, NUM_USERS + 1, NUM_IMPRESSIONS),
            "item_id": rng.integers(100, 100 + NUM_ITEMS, NUM_IMPRESSIONS),
            "time": START + rng.integers(0, 300, NUM_IMPRESSIONS) * 60,
            "click": rng.integers(0, 2, NUM_IMPRESSIONS),
            "query_text": rng.choice(["red shoe", "hat", "bag"], NUM_IMPRESSIONS),
            "user_city": rng.choice(["Ulm", "Rom"], NUM_IMPRESSIONS),
            "context_hour": rng.integers(0, 24, NUM_IMPRESSIONS),
        }
    ).unique(["user_id", "item_id", "time"], keep="first", maintain_order=True)
    clicked = impressions.filter(pl.col("click") == 1)
    behaviors = clicked.select("user_id", "item_id", "time", kind=pl.lit("click"))
    bought = clicked.filter(pl.int_range(pl.len()) % 3 == 0)
    purchases = bought.select("user_id", "item_id", pl.col("time") + 1, kind=pl.lit("purchase"))
    return {"items": items, "impressions": impressions, "behaviors": pl.concat([behaviors, purchases])}


def write_tables(folder: Path, tables: Tables) -> Path:
    """Write tables as Parquet files; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.write_parquet(folder / f"{name}.parquet")
    return folder


def edit(table, column, row, value):
    """Return ``table`` with one value replaced."""
    values = table[column].to_list()
    values[row] = value
    return table.with_columns(pl.Series(column, values, dtype=table.schema[column]))


def refusal(folder, out, **options):
    """Return the problems that ``prepare_tables`` refuses ``folder`` for, a line each, without the first line."""
    with pytest.raises(DataError) as caught:
        prepare_tables(folder, out, **options)
    assert not out.exists()
    first, *lines = str(caught.value).split("\n")
    assert re.fullmatch(rf"{re.escape(str(folder))}: \d+ problems?; nothing was written\.", first)
    return lines


def with_paths(tables, folder, paths):
    """Return tables whose items name image files, and write the good ones."""
    (folder / "photos").mkdir(parents=True)
    for number in range(NUM_ITEMS):
        (folder / "photos" / f"{number}.png").write_bytes(picture(number))
    names = [paths.get(number, f"photos/{number}.png") for number in range(NUM_ITEMS)]
    return {**tables, "items": tables["items"].with_columns(image=pl.Series(names))}


@pytest.fixture
def tables() -> Tables:
    """Good tables, fresh for every test."""
    return make_tables()


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Tables], Path]:
    """Write tables to a new folder."""
    return lambda tables: write_tables(tmp_path / f"tables{len(list(tmp_path.iterdir()))}", tables)
