"""Neighbors by cosine against a loop, and the sheets they are drawn on."""

import io

import numpy as np
import pytest
from PIL import Image

from mimctr.errors import DataError
from mimctr.report.pictures import (
    GAP,
    LABEL,
    POSITIVE,
    TILE,
    Strip,
    draw_sheet,
    nearest,
    rank_of,
    stack_sheets,
)


def picture(color, size=(40, 20)):
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def vectors():
    generator = np.random.default_rng(0)
    items = generator.normal(size=(30, 4)).astype(np.float32) * generator.uniform(0.1, 9, (30, 1))
    known = generator.random(30) < 0.8
    return generator.normal(size=4), items.astype(np.float32), known


def cosines(query, items):
    return [float(row @ query / np.sqrt(row @ row) / np.sqrt(query @ query)) for row in items]


def test_neighbors_are_the_known_items_of_highest_cosine(vectors):
    query, items, known = vectors
    order = sorted(np.flatnonzero(known).tolist(), key=lambda row: -cosines(query, items)[row])
    assert nearest(query, items, known, num=6).tolist() == order[:6]
    assert nearest(query, items, known, num=99).tolist() == order


def test_the_rank_counts_the_items_that_are_nearer(vectors):
    query, items, known = vectors
    values = cosines(query, items)
    for row in np.flatnonzero(known):
        expected = 1 + sum(bool(known[other]) and values[other] > values[row] for other in range(30))
        assert rank_of(row, query, items, known) == expected


def test_a_tie_counts_against_the_rank():
    items = np.ones((3, 2), dtype=np.float32)
    assert rank_of(0, np.ones(2), items, np.array([True, True, False])) == 2


def test_a_sheet_shows_query_positive_and_strips_in_their_places():
    red, green, blue = "#ff0000", "#00ff00", "#0000ff"
    strips = [
        Strip(label="before", images=[picture(blue), None], positive=[False, False]),
        Strip(label="after", images=[picture(green), picture(blue)], positive=[True, False]),
    ]
    sheet = draw_sheet(picture(red), picture(green), strips, label="purchase")
    line = LABEL + TILE + GAP

    def center(column, row):
        left = GAP if column == 0 else TILE + 4 * GAP + (column - 1) * (TILE + GAP)
        return left + TILE // 2, row * line + GAP + LABEL + TILE // 2

    found = {place: sheet.getpixel(center(*place)) for place in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 1)]}
    assert found == {
        (0, 0): (255, 0, 0),
        (0, 1): (0, 255, 0),
        (1, 0): (0, 0, 255),
        (1, 1): (0, 255, 0),
        (2, 1): (0, 0, 255),
    }
    frame = tuple(int(POSITIVE[place : place + 2], 16) for place in (1, 3, 5))
    left, top = center(1, 1)
    assert sheet.getpixel((left - TILE // 2 + 1, top)) == frame  # the positive is framed
    left, top = center(2, 1)
    assert sheet.getpixel((left - TILE // 2 + 1, top)) != frame
    assert sheet.width >= center(2, 1)[0] + TILE // 2


def test_a_damaged_picture_is_an_error():
    strip = Strip(label="before", images=[b"no picture"], positive=[False])
    with pytest.raises(DataError, match="its 10 bytes are not JPEG"):
        draw_sheet(picture("#ffffff"), None, [strip], label="purchase")


def ink(sheet):
    """Return where a sheet is not white."""
    return np.asarray(sheet.convert("L")) < 250


@pytest.mark.parametrize(
    "label", ["buy", "added_to_shopping_cart", "a kind of behavior whose name does not end"]
)
def test_labels_stay_in_their_columns(label):
    """Mutant: one font size for all; a long kind then runs into the label of the strip beside it."""
    strips = [
        Strip(
            label=f"{name}: rank 1,234,567 of 2,345,678 and more words than there is room for",
            images=[],
            positive=[],
        )
        for name in ("before", "after")
    ]
    shown = ink(draw_sheet(picture("red"), None, strips, label=label))
    bare = ink(draw_sheet(picture("red"), None, [Strip(label="", images=[], positive=[])] * 2, label=label))
    line = slice(GAP + TILE + LABEL + GAP + 1, GAP + TILE + LABEL + GAP + LABEL)
    assert bare[line, :TILE].any()
    assert not bare[line, TILE + 3 * GAP :].any()
    assert shown[line, TILE + 4 * GAP :].any()
    assert not shown[:, -GAP:].any()


@pytest.mark.parametrize(
    ("size", "box"), [((1, 5000), (1, TILE)), ((5000, 1), (TILE, 1)), ((1, 1), (TILE, TILE))]
)
def test_a_thin_picture_is_still_seen(size, box):
    """Mutant: round its narrow side to zero pixels."""
    red = picture("#ff0000", size)
    sheet = np.asarray(draw_sheet(red, None, [Strip(label="", images=[], positive=[])], label=""))
    inside = sheet[GAP + LABEL + 1 : GAP + LABEL + TILE - 1, GAP + 1 : GAP + TILE - 1]
    seen = (inside == [255, 0, 0]).all(axis=2)
    assert (seen.any(0).sum(), seen.any(1).sum()) == tuple(min(side, TILE - 2) for side in box)


def test_stacked_sheets_keep_every_pixel():
    wide = Image.effect_noise((90, 30), 60).convert("RGB")
    high = Image.effect_noise((50, 70), 60).convert("RGB")
    stacked = stack_sheets([wide, high])
    assert np.array_equal(np.asarray(stacked)[:30, :90], np.asarray(wide))
    assert np.array_equal(np.asarray(stacked)[30 + 2 * GAP :, :50], np.asarray(high))
    assert stacked.size == (90, 100 + 2 * GAP)
