"""Raw tables to checked columns of indices, one column in memory at a time."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from mimctr.batch import FIRST_INDEX, UNKNOWN
from mimctr.data.blobs import MISSING, BlobWriter
from mimctr.data.checks import CheckedTable
from mimctr.data.contract import FIRST_TIME
from mimctr.data.images import ImageReader
from mimctr.data.vocabulary import Factorized, encode, factorize


@dataclass(kw_only=True, slots=True)
class Items:
    """The catalogue after the door."""

    frame: pl.DataFrame
    """item_id, title, category, first_seen_time (null where not given), price and the fields, as text."""
    images: Int[ndarray, "items"]
    """Blob numbers, -1 where there is no image."""
    fields: list[str]
    """Categorical fields; the first is ``category``."""

    def vocabulary(self) -> pl.DataFrame:
        """Return ``value`` (the raw id) and ``index`` (the ``item_index``)."""
        index = np.arange(FIRST_INDEX, FIRST_INDEX + len(self.frame), dtype=np.int32)
        return pl.DataFrame({"value": self.frame["item_id"], "index": index})


@dataclass(kw_only=True, slots=True)
class Events:
    """Rows of impressions, behaviors or searches after the door. A column that its table does not have is None."""

    keep: Bool[ndarray, "rows"]
    """False where the row breaks a rule."""
    user_ids: pl.Series
    """Distinct raw ids, sorted."""
    user: Int[ndarray, "rows"]
    """Position in ``user_ids``, -1 where the row has none; :mod:`mimctr.data.write` makes it the user index."""
    item: Int[ndarray, "rows"]
    """``item_index``."""
    time: Int[ndarray, "rows"]
    """Seconds UTC."""
    click: Int[ndarray, "rows"] | None = None
    kind: Factorized | None = None
    query_text: Factorized | None = None
    query_image: Int[ndarray, "rows"] | None = None
    """Blob number, -1 = none."""
    true_probability: Float[ndarray, "rows"] | None = None
    bid: Float[ndarray, "rows"] | None = None
    position: Int[ndarray, "rows"] | None = None
    """Place on the page; -1 where it is not known."""
    propensity: Float[ndarray, "rows"] | None = None
    """Probability with which the item stood there; NaN where it is not known."""
    fields: list[str] = field(default_factory=list)
    """Names of the categorical fields; they are read when the split is known."""

    def take(self, rows: Int[ndarray, "rows"]) -> "Events":
        """Return ``rows`` of every column."""
        changed: dict[str, Any] = {}
        for name in COLUMNS:
            values = getattr(self, name)
            if values is not None:
                changed[name] = values.take(rows) if isinstance(values, Factorized) else values[rows]
        return replace(self, **changed)


@dataclass(frozen=True, kw_only=True, slots=True)
class Raw:
    """All raw tables after the door."""

    items: Items
    impressions: Events
    impression_table: CheckedTable
    """Where the fields of the impressions are still to be read."""
    behaviors: Events | None
    searches: Events | None
    item_images: BlobWriter
    query_images: BlobWriter


OPTIONAL_ITEM_COLUMNS = {
    "title": pl.String,
    "category": pl.String,
    "first_seen_time": pl.Int64,
    "price": pl.Float64,
}
COLUMNS = (
    "keep",
    "user",
    "item",
    "time",
    "kind",
    "click",
    "query_text",
    "query_image",
    "true_probability",
    "bid",
    "position",
    "propensity",
)


def read_items(checked: CheckedTable, reader: ImageReader) -> Items:
    """Read the catalogue."""
    ids = checked.ids("item_id")
    _check_item_ids(checked, ids)
    columns = {
        "title": checked.texts("title"),
        "category": checked.field("category"),
        "first_seen_time": _optional_times(checked, "first_seen_time"),
        "price": checked.numbers("price"),
    }
    fields = checked.fields()
    frame = pl.DataFrame({"item_id": ids})
    for name, dtype in OPTIONAL_ITEM_COLUMNS.items():
        values = columns[name]
        column = pl.lit(None, dtype=dtype) if values is None else pl.Series(values, dtype=dtype)
        frame = frame.with_columns(column.alias(name))
    frame = frame.with_columns(*(checked.field(name) for name in fields)).with_columns(
        pl.col("price").fill_nan(None)
    )
    images = checked.images("image", reader)
    images = np.full(len(ids), MISSING, dtype=np.int32) if images is None else images
    frame = frame.filter(pl.Series(checked.keep))
    items = Items(frame=frame, images=images[checked.keep], fields=["category", *fields])
    _note_gaps(checked, items)
    return items


def read_events(
    checked: CheckedTable, items: Items | None, *, users_like: pl.DataType | None = None
) -> Events:
    """Read who, what and when of impressions, behaviors or searches; rows with unknown items are marked.

    Args:
        checked: The table.
        items: The catalogue; None where it is broken, and then no item is unknown.
        users_like: Type of the user ids in the impressions.
    """
    user_ids, user = factorize(checked.ids("user_id", like=users_like))
    raw = checked.ids("item_id", like=None if items is None else items.frame["item_id"].dtype)
    item = np.zeros(len(raw), dtype=np.int32) if items is None else encode(raw, items.vocabulary())
    wrong = "name an item that is not in the table items"
    checked.reject(
        item == UNKNOWN, "unknown-item", "item_id", raw, wrong, "Add these items, or leave the rows out."
    )
    del raw
    return Events(keep=checked.keep, user_ids=user_ids, user=user, item=item, time=checked.times("time"))


def read_impressions(checked: CheckedTable, items: Items | None, reader: ImageReader) -> Events:
    """Read impressions; their categorical fields stay on disk until the split is known."""
    events = read_events(checked, items)
    events.click = checked.labels("click")
    events.true_probability = checked.numbers("true_probability", low=0.0, high=1.0)
    events.bid = checked.numbers("bid", low=0.0)
    events.position = checked.counts("position")
    events.propensity = _propensities(checked)
    events.query_text = _factorized(checked, "query_text")
    events.query_image = checked.images("query_image", reader)
    events.fields = checked.fields()
    if items is not None and checked.usable("user_id", "item_id", "time"):
        _check_duplicates(checked, events, items)
        _note_early(checked, events, items)
    return events


def read_behaviors(checked: CheckedTable, items: Items | None, *, users_like: pl.DataType | None) -> Events:
    """Read behaviors."""
    events = read_events(checked, items, users_like=users_like)
    events.kind = _factorized(checked, "kind")
    checked.fields()
    return events


def read_searches(
    checked: CheckedTable, items: Items | None, reader: ImageReader, *, users_like: pl.DataType | None
) -> Events:
    """Read searches; each has an image or a text."""
    events = read_behaviors(checked, items, users_like=users_like)
    events.query_text = _factorized(checked, "query_text")
    events.query_image = checked.images("query_image", reader)
    if checked.usable("query_image", "query_text"):
        _check_queries(checked, events)
    return events


def _factorized(checked: CheckedTable, column: str) -> Factorized | None:
    texts = checked.texts(column)
    return None if texts is None else factorize(texts)


def _propensities(checked: CheckedTable) -> Float[ndarray, "rows"] | None:
    """Return with what probability each item stood where it stood; NaN where that is not known."""
    values = checked.numbers("propensity", low=0.0, high=1.0)
    if values is None:
        return None
    if "position" not in checked:
        checked.report(
            "missing-column",
            "the column is missing, and a propensity is the probability of an item at its position. Add it, or leave "
            "propensity out.",
            column="position",
        )
    checked.reject(
        values == 0,
        "number",
        "propensity",
        values,
        "are 0, and what was shown had a chance to be",
        "Correct them, or give null.",
    )
    return values


def _optional_times(checked: CheckedTable, column: str) -> pl.Series | None:
    if column not in checked:
        return None
    empty = checked.table.read(column).is_null()
    return pl.Series(checked.times(column)).set(empty, None)


def _check_item_ids(checked: CheckedTable, ids: pl.Series) -> None:
    again = (~ids.is_first_distinct() & ids.is_not_null()).to_numpy()
    checked.reject(
        again, "duplicate-item", "item_id", ids, "repeat an item_id", "Keep one row for each item."
    )
    if ids.dtype != pl.String:
        negative = (ids < 0).fill_null(False).to_numpy()
        remedy = "An integer id is the item's key in the center and has to be at least 0."
        checked.reject(negative, "negative-id", "item_id", ids, "have a negative id", remedy)


def _check_duplicates(checked: CheckedTable, events: Events, items: Items) -> None:
    """Mark rows that repeat an impression: same user, item, time and query. A click in any of them is the first's."""
    columns = {"user": events.user, "item": events.item, "time": events.time}
    if events.query_text is not None:
        columns["query_text"] = events.query_text.codes
    if events.query_image is not None:
        columns["query_image"] = events.query_image
    frame = pl.DataFrame(columns)
    suspects = np.flatnonzero(frame.hash_rows().is_duplicated().to_numpy() & checked.keep)
    again = suspects[~frame[suspects].select(pl.struct(pl.all()).is_first_distinct()).to_series().to_numpy()]
    if not len(again):  # equal rows have equal hashes, so only suspects were compared
        return
    checked.keep[again] = False
    otherwise = _click_where_any(events, frame, suspects)
    labels = (
        f" {otherwise:,} of these impressions have a row with a click and one without; '--lenient' takes them as "
        "clicked."
        if otherwise
        else ""
    )
    row = int(again[0])
    checked.report(
        "duplicate-impression",
        f"{len(again):,} of {len(frame):,} rows repeat an impression (same user, item, time and query). First: row "
        f"{row}, user_id {events.user_ids[int(events.user[row])]!r}, "
        f"item_id {items.frame['item_id'][int(events.item[row]) - FIRST_INDEX]!r}, time {events.time[row]}.{labels} "
        "Keep one row for each impression.",
        severity="dropped",
        count=len(again),
        total=len(frame),
    )


def _click_where_any(events: Events, frame: pl.DataFrame, suspects: Int[ndarray, "rows"]) -> int:
    """Give each impression the click that any of its rows has; return how many have rows with and without one.

    Args:
        events: With their clicks.
        frame: What makes rows one impression.
        suspects: Rows that may share one.
    """
    assert events.click is not None, "a required column is missing without a problem"
    rows = frame[suspects].with_columns(click=events.click[suspects])
    rows = rows.with_columns(
        any=pl.col("click").max().over(frame.columns), all=pl.col("click").min().over(frame.columns)
    )
    events.click = events.click.copy()
    events.click[suspects] = rows["any"].to_numpy()
    return rows.filter(pl.col("any") != pl.col("all")).select(frame.columns).n_unique()


def _check_queries(checked: CheckedTable, events: Events) -> None:
    """Mark rows that ask nothing: without an image that can be used, and without a text."""
    if "query_image" not in checked and "query_text" not in checked:
        checked.report(
            "missing-column",
            "the columns query_image and query_text are missing. Add one of them, or leave the table out.",
        )
        return
    nothing = np.ones(len(checked.keep), dtype=bool)
    if events.query_image is not None:
        nothing &= events.query_image < 0
    if events.query_text is not None:
        nothing &= events.query_text.codes < 0
    if not nothing.any():
        return
    checked.keep &= ~nothing
    checked.report(
        "missing-query",
        f"{int(nothing.sum()):,} of {len(nothing):,} rows have neither a usable query_image nor a query_text. First: "
        f"row {int(nothing.argmax())}. Fill in one of them, or leave the rows out.",
        severity="dropped",
        count=int(nothing.sum()),
        total=len(nothing),
    )


def _note_early(checked: CheckedTable, events: Events, items: Items) -> None:
    first_seen = items.frame["first_seen_time"].fill_null(FIRST_TIME).to_numpy()
    if not len(first_seen):
        return
    seen = first_seen[np.maximum(events.item - FIRST_INDEX, 0)]
    early = (events.time < seen) & checked.keep & (events.item >= FIRST_INDEX)
    if early.any():
        row = int(early.argmax())
        checked.report(
            "before-first-seen",
            f"{int(early.sum()):,} of {len(early):,} impressions are earlier than their item's first_seen_time. First: "
            f"row {row}, impression at {events.time[row]}, item first seen at {seen[row]}. Kept; item ages will be "
            "wrong for them. Correct first_seen_time.",
            column="time",
            severity="warning",
            count=int(early.sum()),
            total=len(early),
        )


def _note_gaps(checked: CheckedTable, items: Items) -> None:
    """Say how much content is missing: no error, but it bounds what content interest can gain."""
    total = len(items.frame)
    categories = items.frame["category"].drop_nulls()
    gaps = (
        ("missing-image", "image", int((items.images == MISSING).sum()), "have no image"),
        ("missing-title", "title", items.frame["title"].null_count(), "have no title"),
        ("missing-category", "category", items.frame["category"].null_count(), "have no category"),
        ("lone-category", "category", int(categories.is_unique().sum()), "are alone in their category"),
    )
    consequence = {"lone-category": "Their hard negatives come from other categories."}
    for rule, column, count, wrong in gaps:
        if count:
            then = consequence.get(rule, "They are kept; content interest does without.")
            message = f"{count:,} of {total:,} items {wrong}. {then}"
            checked.report(rule, message, column=column, severity="information", count=count, total=total)
