"""Nearest neighbors as pictures: what an encoder takes for similar, before and after C-SFT."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from PIL import Image, ImageDraw

from mimctr.report.drawing import FRAME, GAP, PAPER, POSITIVE, TILE, paste_picture, write_line

LABEL = 38
"""Pixels: height of a line of text."""
FEWEST_COLUMNS = 3
"""A strip's label has the room of so many pictures at least."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Strip:
    """One line of neighbors, nearest first."""

    label: str
    images: Sequence[bytes | None]
    positive: Sequence[bool]
    """True at the item of the pair; framed in green."""


def nearest(
    query: Float[ndarray, "content"],
    items: Float[ndarray, "items content"],
    known: Bool[ndarray, "items"],
    *,
    num: int,
) -> Int[ndarray, "num"]:
    """Return the rows of the ``num`` items with the highest cosine, highest first, ties by row.

    Args:
        query: Any length above 0.
        items: One vector per item.
        known: False where there is no vector, or the item is not to be shown.
        num: How many; fewer are returned where fewer are known.
    """
    cosine = _cosines(query, items, known)
    return np.argsort(-cosine, kind="stable")[: min(num, int(known.sum()))]


def rank_of(
    row: int,
    query: Float[ndarray, "content"],
    items: Float[ndarray, "items content"],
    known: Bool[ndarray, "items"],
) -> int:
    """Return the place of item ``row`` among all known items by cosine: 1 is the nearest, ties count against it."""
    cosine = _cosines(query, items, known)
    return int((cosine >= cosine[row]).sum())


def draw_sheet(query: bytes, positive: bytes | None, strips: Sequence[Strip], *, label: str) -> Image.Image:
    """Return one interest pair as a picture: query and item at the left, beside them one strip per encoder.

    Args:
        query: The query image.
        positive: Image of the item of the pair; None where it has none.
        strips: From top to bottom; two of one length.
        label: What the user did with the item (``purchase`` ...); stands above it.
    """
    columns = max(FEWEST_COLUMNS, *(len(strip.images) for strip in strips))
    left = TILE + 4 * GAP
    room = columns * (TILE + GAP)
    size = (left + columns * (TILE + GAP) + GAP, len(strips) * (LABEL + TILE + GAP) + GAP)
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    for line, (text, image, color) in enumerate([("query", query, FRAME), (label, positive, POSITIVE)]):
        _place(sheet, draw, image, place=(GAP, line * (LABEL + TILE + GAP) + GAP), label=text, frame=color)
    for line, strip in enumerate(strips):
        top = line * (LABEL + TILE + GAP) + GAP
        write_line(draw, (left, top + LABEL // 2), strip.label, width=room)
        for column, (image, hit) in enumerate(zip(strip.images, strip.positive, strict=True)):
            spot = (left + column * (TILE + GAP), top)
            _place(sheet, draw, image, place=spot, label="", frame=POSITIVE if hit else FRAME)
    return sheet


def stack_sheets(sheets: Sequence[Image.Image]) -> Image.Image:
    """Return pictures below one another, at the left, with space and a line between two."""
    width = max(sheet.width for sheet in sheets)
    stacked = Image.new("RGB", (width, sum(sheet.height + 2 * GAP for sheet in sheets) - 2 * GAP), PAPER)
    draw, top = ImageDraw.Draw(stacked), 0
    for sheet in sheets:
        if top:
            draw.line((GAP, top - GAP, width - GAP, top - GAP), fill=FRAME, width=2)
        stacked.paste(sheet, (0, top))
        top += sheet.height + 2 * GAP
    return stacked


def _place(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    data: bytes | None,
    *,
    place: tuple[int, int],
    label: str,
    frame: str,
) -> None:
    """Put one framed picture with a label above it; an empty frame where there is no picture."""
    left, top = place
    write_line(draw, (left, top + LABEL // 2), label, width=TILE + 2 * GAP)
    box = (left, top + LABEL, left + TILE - 1, top + LABEL + TILE - 1)
    paste_picture(sheet, draw, data, place=(left, top + LABEL))
    draw.rectangle(box, outline=frame, width=4 if frame == POSITIVE else 1)


def _cosines(
    query: Float[ndarray, "content"], items: Float[ndarray, "items content"], known: Bool[ndarray, "items"]
) -> Float[ndarray, "items"]:
    """Return the cosine of every item with the query; -inf where unknown."""
    lengths = np.linalg.norm(items, axis=1) * np.linalg.norm(query)
    cosine = items @ query / np.where(lengths > 0, lengths, 1.0)
    return np.where(known, cosine, -np.inf)
