"""Rows of the simulation as tables: what a shop would log, and the truth it would not know."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool
from numpy import ndarray

from mimctr.sources.bazaar.market import Market, Photos
from mimctr.sources.bazaar.responses import PARTS
from mimctr.sources.bazaar.retrieval import IMAGE, QUERY_KINDS, TEXT, Sessions
from mimctr.sources.bazaar.sessions import Slot
from mimctr.sources.bazaar.titles import say
from mimctr.sources.bazaar.users import AGES, CITIES
from mimctr.sources.bazaar.world import ATTRIBUTES, CATEGORIES

ROWS_PER_PART = 500_000


class PartWriter:
    """Writes a table as Parquet parts of about ``ROWS_PER_PART`` rows.

    Args:
        folder: Where the parts go; made here.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.num_rows = 0
        self._num_parts = 0
        self._waiting: list[pa.Table] = []

    def add(self, table: pa.Table) -> None:
        """Append rows; a part is written when enough of them wait."""
        self._waiting.append(table)
        self.num_rows += len(table)
        if sum(map(len, self._waiting)) >= ROWS_PER_PART:
            self.flush()

    def flush(self) -> None:
        """Write the rows that wait."""
        if self._waiting:
            path = self.folder / f"part-{self._num_parts:05}.parquet"
            pq.write_table(pa.concat_tables(self._waiting), path, compression="zstd")
            self._num_parts += 1
            self._waiting = []


def photo_path(photo: int) -> str:
    """Return where a photo lies, relative to the folder of the tables."""
    return f"photos/{photo:06}.jpg"


def sessions_table(sessions: Sessions, market: Market) -> pa.Table:
    """Return what a log tells of each session: who, when, and what was asked."""
    user, is_image = sessions.user, sessions.kind == IMAGE
    paths = [photo_path(p) if image else None for p, image in zip(sessions.photo, is_image, strict=True)]
    return pa.table(
        {
            "user_id": market.users.user_id[user],
            "time": sessions.time,
            "query_text": pa.array(query_texts(sessions, market.photos), type=pa.string()),
            "query_image": pa.array(paths, type=pa.string()),
            "query_kind": pa.array([QUERY_KINDS[kind] for kind in sessions.kind], type=pa.string()),
            "user_age": pa.array(AGES).take(pa.array(market.users.age[user])),
            "user_city": pa.array(CITIES).take(pa.array(market.users.city[user])),
            "context_hour": (sessions.time // 3600 % 24).astype(np.int8),
        }
    )


def impressions_table(slot: Slot, market: Market, *, random_pages: bool = False) -> pa.Table:
    """Return the impressions of a slot, ``true_probability`` included; of random pages with their propensities."""
    placed = {"position": slot.position, "propensity": 1 / np.bincount(slot.session)[slot.session]}
    of_session = sessions_table(slot.sessions, market).take(pa.array(slot.session))
    return pa.table(
        {
            "user_id": of_session["user_id"],
            "item_id": market.items.item_id[slot.item],
            "time": of_session["time"],
            "click": slot.click.astype(np.int8),
            **{name: of_session[name] for name in ("query_text", "query_image", "query_kind")},
            **{name: of_session[name] for name in ("user_age", "user_city")},
            "context_position": slot.position.astype(np.int8),
            "context_hour": of_session["context_hour"],
            "bid": slot.bid,
            "true_probability": slot.probability,
            **(placed if random_pages else {}),
        }
    )


def behaviors_table(slot: Slot, market: Market) -> pa.Table:
    """Return the clicks of a slot; ``kind`` is ``purchase`` where the item was bought, else ``click``."""
    return _events(slot, market, slot.click)


def searches_table(slot: Slot, market: Market) -> pa.Table:
    """Return the clicks and purchases that followed an image query, with its photo."""
    rows = slot.click & (slot.sessions.kind[slot.session] == IMAGE)
    paths = [photo_path(photo) for photo in slot.sessions.photo[slot.session[rows]]]
    table = _events(slot, market, rows)
    return table.add_column(0, "query_image", pa.array(paths, type=pa.string()))


def parts_table(slot: Slot) -> pa.Table:
    """Return the parts of each impression's logit, in the order of the impressions."""
    return pa.table({name: slot.parts[name] for name in PARTS})


def query_texts(sessions: Sessions, photos: Photos) -> list[str | None]:
    """Return what each session typed: the asked attributes of what it wants; None without a text query."""
    texts: list[str | None] = []
    for kind, photo, asked in zip(sessions.kind, sessions.photo, sessions.asked, strict=True):
        values = photos.style[photo]
        words = [say(column, values[column], 0.0) for column in np.flatnonzero(asked)[::-1]]
        texts.append(" ".join(words) if kind == TEXT else None)
    return texts


def styles_table(category: ndarray, style: ndarray) -> dict[str, pa.Array]:
    """Return category and style as columns of names."""
    columns = {"category": pa.array([c.name for c in CATEGORIES]).take(pa.array(category))}
    for column, attribute in enumerate(ATTRIBUTES):
        columns[attribute.name] = pa.array(attribute.values).take(pa.array(style[:, column]))
    return columns


def _events(slot: Slot, market: Market, rows: Bool[ndarray, " impressions"]) -> pa.Table:
    session = slot.session[rows]
    return pa.table(
        {
            "user_id": market.users.user_id[slot.sessions.user[session]],
            "item_id": market.items.item_id[slot.item[rows]],
            "time": slot.sessions.time[session],
            "kind": pa.array(["click", "purchase"]).take(pa.array(slot.purchase[rows].astype(np.int8))),
        }
    )
