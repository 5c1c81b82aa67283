"""Write the catalogue: items, their keys and fields, and how often training shows them."""

from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Int
from numpy import ndarray

from mimctr.batch import FIRST_INDEX, UNKNOWN
from mimctr.data.arrays import save_array
from mimctr.data.blobs import MISSING
from mimctr.data.histories import Histories
from mimctr.data.ingest import Events, Items
from mimctr.data.keys import item_keys
from mimctr.data.split import Split
from mimctr.data.vocabulary import build_vocabulary, encode, write_vocabularies
from mimctr.files import write_table


def write_items(
    folder: Path, items: Items, tables: list[Events | None]
) -> tuple[Int[ndarray, "items fields"], dict[str, int]]:
    """Write the catalogue; return its fields by ``item_index`` and their vocabulary sizes."""
    num_items = len(items.frame)
    keys = item_keys(items.frame["item_id"])
    seen = _first_times(tables, num_items)
    frame = items.frame.select(
        pl.Series("item_index", np.arange(FIRST_INDEX, FIRST_INDEX + num_items, dtype=np.int32)),
        "item_id",
        pl.Series("item_key", keys),
        "title",
        "category",
        pl.col("first_seen_time").fill_null(pl.Series(seen)),
        "price",
        pl.Series("has_image", items.images != MISSING),
        *items.fields[1:],
    )
    write_table(folder / "items.parquet", frame)
    save_array(folder / "items" / "keys.npy", np.concatenate([[-1] * FIRST_INDEX, keys]).astype(np.int64))
    fields = np.zeros((num_items + FIRST_INDEX, len(items.fields)), dtype=np.int32)
    fields[UNKNOWN] = UNKNOWN
    vocabularies = {name: build_vocabulary(items.frame[name]) for name in items.fields}
    for position, name in enumerate(items.fields):
        fields[FIRST_INDEX:, position] = encode(items.frame[name], vocabularies[name])
    save_array(folder / "items" / "fields.npy", fields)
    return fields, write_vocabularies(folder / "vocabularies" / "item.parquet", vocabularies)


def _first_times(tables: list[Events | None], num_items: int) -> Int[ndarray, "items"]:
    """Return when the logs first name each item; the start of the logs for items they never name."""
    logs = [events for events in tables if events is not None and len(events.time)]
    start = min(int(events.time.min()) for events in logs)
    never = np.iinfo(np.int64).max
    first = np.full(num_items + FIRST_INDEX, never)
    for events in logs:
        np.minimum.at(first, events.item, events.time)
    return np.where(first == never, start, first)[FIRST_INDEX:]


def write_counts(
    folder: Path, impressions: Events, histories: Histories, split: Split, *, num_items: int, num_users: int
) -> None:
    """Count how often the training part shows each item and user: as an impression, or a behavior before its end."""
    rows = split.rows(impressions.time, "train")
    train = slice(rows.start, rows.stop)
    before = histories.time < split.validation_start
    items = np.bincount(impressions.item[train], minlength=num_items + FIRST_INDEX)
    items += np.bincount(histories.item[before], minlength=num_items + FIRST_INDEX)
    users = np.bincount(impressions.user[train], minlength=num_users + FIRST_INDEX)
    users += np.bincount(histories.user[before], minlength=num_users + FIRST_INDEX)
    save_array(folder / "items" / "train_counts.npy", items)
    save_array(folder / "users" / "train_counts.npy", users)
