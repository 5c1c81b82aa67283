"""Items of a run: by id, by words, by a text or a picture, and all that is known of one."""

import itertools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Int
from numpy import ndarray

from mimctr.batch import FIRST_INDEX
from mimctr.errors import DataError
from mimctr.explore.generation import Generation
from mimctr.explore.opened import Asked, OpenedRun, searchable
from mimctr.explore.schemas import Bin, Card, Found, Hit, ItemView, SeenBy, Strip

NUM_BINS = 24
OWN_COLUMNS = {
    "item_index",
    "item_id",
    "item_key",
    "title",
    "category",
    "first_seen_time",
    "price",
    "has_image",
}
SECONDS_A_DAY = 86_400
NUM_SEEN_BY = 5
MAX_WORDS = 20
"""That are looked for at once."""
WHOLE_NUMBER = re.compile("-?[0-9]{1,19}")
IDS = range(-(2**63), 2**63)
"""Integers that an id can be: 64 bits with a sign."""


class NotThere(DataError):
    """What was asked for is not in the run."""


def place(ids: pl.Series, given: str, *, what: str) -> int:
    """Return the index of a raw id.

    Args:
        ids: By index from ``FIRST_INDEX``, integers or text.
        given: As it came in an address; spaces around it count only where they are part of an id.
        what: ``item`` or ``user``.

    Raises:
        NotThere: there is none.
    """
    for text in dict.fromkeys((given, given.strip())):
        wanted: Any = text
        if ids.dtype != pl.String:
            wanted = int(text) if WHOLE_NUMBER.fullmatch(text) and int(text) in IDS else None
        rows = [] if wanted is None else (ids == wanted).arg_true()
        if len(rows):
            return int(rows[0]) + FIRST_INDEX
    raise NotThere(f"there is no {what} {given[:100]!r} in this run")


def card(run: OpenedRun, item: int) -> Card:
    """Return an item in short."""
    row = item - FIRST_INDEX
    items, number = run.data.items, int(run.data.item_images.numbers[row])
    category = items["category"][row]
    return Card(
        item_id=items["item_id"][row],
        title=items["title"][row],
        category=None if category is None else str(category),
        picture=f"/pictures/items/{number}" if number >= 0 else None,
    )


def hit(run: OpenedRun, item: int, cosine: float | None = None) -> Hit:
    """Return an item that was found."""
    return Hit(**card(run, item).model_dump(), cosine=cosine)


def find_words(run: OpenedRun, words: str, *, num: int) -> Found:
    """Return the item of that id, then those in whose title or id every word stands, most shown first.

    Small and capital letters are alike, and so are the two ways to write a letter with its marks.
    """
    wanted = searchable(pl.Series(words.split(), dtype=pl.String)).unique(maintain_order=True)
    matches = np.full(run.data.num_items, bool(len(wanted)))
    for word in wanted[:MAX_WORDS]:
        matches &= run.words.str.contains(word, literal=True).to_numpy()
    rows = np.flatnonzero(matches)
    order = rows[np.lexsort((rows, -run.data.item_train_counts[rows + FIRST_INDEX]))] + FIRST_INDEX
    try:
        exact = place(run.data.items["item_id"], words, what="item")
        order = np.r_[exact, order[order != exact]]
    except NotThere:
        pass  # words are rarely an id
    return Found(
        asked=f"items with {words.strip()!r} in the title or id",
        total=len(order),
        hits=[hit(run, int(item)) for item in order[:num]],
        note=f"Only the first {MAX_WORDS} of {len(wanted)} different words were looked for."
        if len(wanted) > MAX_WORDS
        else None,
    )


def find_near(run: OpenedRun, encoder: str, asked: Asked, *, num: int, what: str) -> Found:
    """Return the items nearest to a text or a picture, in the category that it was taken for."""
    generation = run.generations[encoder]
    among = run.of_category(asked.category)
    where = f", taken for {asked.category}" if among is not None else ""
    total = int((generation.known if among is None else generation.known & among).sum())
    near = generation.nearest(asked.vector, num=num, among=among)
    hits = [hit(run, item, cosine) for item, cosine in near]
    note = as_title(hits) if asked.as_title else None
    return Found(asked=f"{what} by {encoder}{where}", total=total, hits=hits, note=note)


def as_title(hits: Sequence[Hit]) -> str:
    """Return what is to be known of items found by a text that was taken for a title."""
    bare = sum(one.picture is None for one in hits)
    near = f", and items without one are often near it: {bare} of these {len(hits)}" if bare else ""
    return f"The text is taken for the title of an item without a picture{near}."


def view_item(
    run: OpenedRun, given: str, *, num_neighbors: int, encoders: Sequence[str] | None = None
) -> ItemView:
    """Return all that is known of an item.

    Args:
        run: Whose item it is.
        given: Raw id of the item.
        num_neighbors: Neighbors by each encoder.
        encoders: By whose vectors neighbors are looked for; None: all.

    Raises:
        NotThere: there is no such item.
    """
    item = place(run.data.items["item_id"], given, what="item")
    row, data = item - FIRST_INDEX, run.data
    values = data.items.row(row, named=True)
    rows = run.rows_of_item.of(item)
    clicks = np.asarray(data.impressions.click)[rows]
    tested = rows >= run.test.start
    return ItemView(
        card=card(run, item),
        fields={
            name: str(value)
            for name, value in values.items()
            if name not in OWN_COLUMNS and value is not None
        },
        price=values["price"],
        first_seen_time=values["first_seen_time"],
        age_days=(data.manifest.test_start - values["first_seen_time"]) / SECONDS_A_DAY,
        in_log=bool(run.named[item]),
        train_count=int(data.item_train_counts[item]),
        num_impressions=len(rows),
        num_clicks=int(clicks.sum()),
        num_test_impressions=int(tested.sum()),
        observed=float(clicks[tested].mean()) if tested.any() else None,
        life=life(run, rows),
        scores=run.scores.of(rows[tested] - run.test.start),
        neighbors=[
            strip(run, item, one, num=num_neighbors)
            for name, one in run.generations.items()
            if encoders is None or name in encoders
        ],
        seen_by=[seen_by(run, row) for row in rows[tested][:NUM_SEEN_BY].tolist()],
    )


def strip(run: OpenedRun, item: int, generation: Generation, *, num: int) -> Strip:
    """Return the nearest items in one generation, ``num`` at most.

    Where its encoder centers vectors by category, they are of the item's own: from another mean, a cosine says
    nothing. Items of which it centers no category are centered on the catalogue, and are compared among themselves.
    """
    among, words = None, None
    if generation.centered_on:
        category = card(run, item).category
        if category in generation.centered_on:
            among, words = run.of_category(category), "of its category"
        else:
            among, words = run.outside(generation.centered_on), "of no category that the encoder knows"
    known = bool(generation.known[item])
    near = generation.nearest(generation.vector(item), num=num, without=item, among=among) if known else []
    return Strip(
        encoder=generation.name, has_vector=known, among=words, hits=[hit(run, *one) for one in near]
    )


def seen_by(run: OpenedRun, row: int) -> SeenBy:
    """Return who saw an impression."""
    impressions = run.data.impressions
    return SeenBy(
        row=row,
        user_id=user_id(run, row),
        time=int(impressions.time[row]),
        clicked=bool(impressions.click[row]),
    )


def user_id(run: OpenedRun, row: int) -> int | str:
    """Return the raw id of the user of an impression."""
    return run.data.users["user_id"][int(run.data.impressions.user[row]) - FIRST_INDEX]


def life(run: OpenedRun, rows: Int[ndarray, "rows"]) -> list[Bin]:
    """Return impressions and clicks over the whole log, in stretches of equal length; none is of two parts."""
    times, split = np.asarray(run.data.impressions.time), run.data.manifest.split
    first, border, last = int(times[0]), split.test_start, int(times[-1]) + 1
    length = max((last - first) / NUM_BINS, 1.0)
    before = np.linspace(first, border, max(round((border - first) / length), 1) + 1)
    after = np.linspace(border, last, max(round((last - border) / length), 1) + 1)
    edges = np.r_[before, after[1:]].round().astype(np.int64)
    own, clicked = times[rows], np.asarray(run.data.impressions.click)[rows]
    shown = np.searchsorted(own, edges)
    counted = np.r_[0, np.cumsum(clicked)][shown]
    return [
        Bin(
            start=int(start),
            end=int(end),
            num_impressions=int(shown[number + 1] - shown[number]),
            num_clicks=int(counted[number + 1] - counted[number]),
            in_test=bool(start >= border),
        )
        for number, (start, end) in enumerate(itertools.pairwise(edges))
    ]
