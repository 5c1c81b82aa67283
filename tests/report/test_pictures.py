"""Neighbors by cosine against a loop, and the sheets they are drawn on."""

import io

import numpy as np
import pytest
from PIL import Image

from mimctr.errors import DataError
from mimctr.report.pictures import GAP, LABEL, POSITIVE, TILE, Strip, draw_sheet, nearest, rank_of


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
