"""One impression or item as a picture: what two models say of it, and the behaviors behind that with their weights."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from numpy import ndarray
from PIL import Image, ImageDraw

from mimctr.evaluate.written import signed
from mimctr.report.drawing import (
    FRAME,
    GAP,
    INK,
    PAPER,
    POSITIVE,
    break_lines,
    can_write,
    paste_picture,
    write_line,
)

COLUMNS, SIDE, HEAD = 7, 96, 176
"""Behaviors in one line; pixels: side of a behavior's picture, of the target's."""
MOST_SHOWN = 2 * COLUMNS
"""Behaviors with a picture; the weights of all stand below."""
TITLE, TEXT, SMALL = 20, 18, 16
"""Font sizes."""
LINE, SHORT_LINE, BAR, PLOT = 28, 24, 10, 72
"""Pixels: height of a line, of a line of small text, of a weight's bar, of the plot of all weights."""
WIDTH = COLUMNS * (SIDE + GAP) + GAP
LEFT = HEAD + 3 * GAP
"""Where the text beside the target begins."""
ROOM = WIDTH - LEFT - GAP
NEGATIVE = "#b3431c"
WITHOUT_VECTOR = "no vector"
UNWRITABLE = "(title: see the caption)"
"""In place of a title in a script that the font has not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Value:
    """A number between 0 and 1 as a bar."""

    name: str
    value: float
    text: str
    """The number as written."""
    color: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Weighted:
    """A behavior and its weight."""

    image: bytes | None
    relevance: float
    """Of Eq. (7), from -1 to 1; NaN where it or the target has no vector."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """What is drawn."""

    image: bytes | None
    """Of the target."""
    title: str
    facts: Sequence[str]
    """Lines below the title."""
    values: Sequence[Value]
    label: str
    """Above the behaviors."""
    behaviors: Sequence[Weighted]
    """At most :data:`MOST_SHOWN` are drawn."""
    all_label: str = ""
    """Above the plot of all weights."""
    relevance: Float[ndarray, "behaviors"] | None = None
    """All weights, newest first; None: no plot."""


def draw_case(case: Case) -> Image.Image:
    """Return a case as a picture: the target and what is said of it, below them its behaviors, a bar for each."""
    shown = case.behaviors[:MOST_SHOWN]
    num_lines = math.ceil(len(shown) / COLUMNS)
    lines = _title_lines(case.title)
    told = LINE * len(lines) + SHORT_LINE * (len(case.facts) + len(case.values))
    top = max(HEAD, told) + 3 * GAP
    strip = LINE + num_lines * (SIDE + BAR + LINE + 2 * GAP)
    plot = 0 if case.relevance is None else LINE + PLOT + GAP
    sheet = Image.new("RGB", (WIDTH, top + strip + plot + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    _draw_head(sheet, draw, case, lines)
    write_line(draw, (GAP, top + LINE // 2), case.label, width=WIDTH - 2 * GAP, largest=TEXT)
    for number, behavior in enumerate(shown):
        row, column = divmod(number, COLUMNS)
        place = (GAP + column * (SIDE + GAP), top + LINE + row * (SIDE + BAR + LINE + 2 * GAP) + GAP // 2)
        _draw_behavior(sheet, draw, behavior, place=place)
    if case.relevance is not None:
        middle = top + strip + LINE // 2
        write_line(draw, (GAP, middle), case.all_label, width=WIDTH - 2 * GAP, largest=TEXT)
        _draw_weights(draw, case.relevance, top=top + strip + LINE)
    return sheet


def bar_length(relevance: float, *, width: int) -> int:
    """Return how many pixels long the bar of a weight is: all of ``width`` at 1 or -1; none without a vector."""
    return 0 if math.isnan(relevance) else round(min(abs(relevance), 1.0) * width)


def _title_lines(title: str) -> list[str]:
    shown = title if can_write(title) else UNWRITABLE
    return break_lines(shown, width=ROOM, size=TITLE, most=2)


def _draw_head(sheet: Image.Image, draw: ImageDraw.ImageDraw, case: Case, lines: Sequence[str]) -> None:
    """Draw the target, its title in ``lines`` and facts, and the bars of what is said of it."""
    _draw_tile(sheet, draw, case.image, place=(GAP, GAP), side=HEAD)
    middle = GAP + LINE // 2
    for line in lines:
        write_line(draw, (LEFT, middle), line, width=ROOM, largest=TITLE)
        middle += LINE
    for line in case.facts:
        write_line(draw, (LEFT, middle), line, width=ROOM, largest=SMALL)
        middle += SHORT_LINE
    name_room, number_room = 160, 90
    for value in case.values:
        write_line(draw, (LEFT, middle), value.name, width=name_room - GAP, largest=SMALL)
        whole = ROOM - name_room - number_room
        start = LEFT + name_room
        draw.rectangle((start, middle - 6, start + whole, middle + 6), fill=FRAME)
        length = round(value.value * whole)
        if length:
            draw.rectangle((start, middle - 6, start + length, middle + 6), fill=value.color)
        place = (start + whole + GAP, middle)
        write_line(draw, place, value.text, width=number_room - GAP, largest=SMALL)
        middle += SHORT_LINE


def _draw_behavior(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, behavior: Weighted, *, place: tuple[int, int]
) -> None:
    """Draw a behavior's picture, below it the bar of its weight and the number."""
    left, top = place
    missing = math.isnan(behavior.relevance)
    _draw_tile(sheet, draw, behavior.image, place=place, side=SIDE)
    bar = top + SIDE + GAP // 2
    length = bar_length(behavior.relevance, width=SIDE - 1)
    draw.rectangle((left, bar, left + SIDE - 1, bar + BAR), fill=PAPER if missing else FRAME, outline=FRAME)
    if length:
        color = POSITIVE if behavior.relevance > 0 else NEGATIVE
        draw.rectangle((left, bar, left + length, bar + BAR), fill=color)
    text = WITHOUT_VECTOR if missing else signed(behavior.relevance, 2)
    write_line(draw, (left, bar + BAR + LINE // 2), text, width=SIDE, largest=TEXT - 1)


def _draw_tile(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    data: bytes | None,
    *,
    place: tuple[int, int],
    side: int,
) -> None:
    left, top = place
    paste_picture(sheet, draw, data, place=place, side=side)
    draw.rectangle((left, top, left + side - 1, top + side - 1), outline=FRAME)


def _draw_weights(draw: ImageDraw.ImageDraw, relevance: Float[ndarray, "behaviors"], *, top: int) -> None:
    """Draw all weights as upright bars around a line at 0; a dot below the line where a vector is missing."""
    zero, half = top + PLOT // 2, PLOT // 2 - 1
    room = WIDTH - 2 * GAP
    draw.line((GAP, zero, GAP + room, zero), fill=INK)
    step = min(room / max(len(relevance), 1), 24.0)
    for number, weight in enumerate(relevance.tolist()):
        left, right = round(GAP + number * step) + 1, max(round(GAP + (number + 1) * step) - 2, 0)
        right = max(right, left)
        length = bar_length(weight, width=half)
        if math.isnan(weight):
            draw.rectangle((left, zero + 3, right, zero + 5), fill=FRAME)
        elif weight > 0 and length:
            draw.rectangle((left, zero - length, right, zero), fill=POSITIVE)
        elif length:
            draw.rectangle((left, zero, right, zero + length), fill=NEGATIVE)
