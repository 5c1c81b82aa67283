"""A case's picture: bars as long as weights, nothing cut, files of limited size."""

import io
import math

import numpy as np
import pytest
from PIL import Image

from mimctr.report.cases import (
    BAR,
    COLUMNS,
    GAP,
    HEAD,
    LINE,
    MOST_SHOWN,
    NEGATIVE,
    SIDE,
    UNWRITABLE,
    WIDTH,
    Case,
    Value,
    Weighted,
    bar_length,
    draw_case,
)
from mimctr.report.drawing import POSITIVE, break_lines, can_write, encode_jpeg, font_of

STRIP = HEAD + 3 * GAP + LINE + GAP // 2


def picture(color):
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40), color).save(buffer, "PNG")
    return buffer.getvalue()


def case(weights=(), *, title="a title", image=None, num_facts=1):
    behaviors = [Weighted(image=picture("#0000ff"), relevance=weight) for weight in weights]
    return Case(
        image=image,
        title=title,
        facts=["a fact"] * num_facts,
        values=[Value(name="Base", value=0.25, text="25.0 %", color="#ff00ff")],
        label="Behaviors",
        behaviors=behaviors,
        all_label="All weights",
        relevance=np.array(weights) if weights else None,
    )


def rgb(color):
    return tuple(int(color[place : place + 2], 16) for place in (1, 3, 5))


def bar(sheet, number, color):
    """Return how many pixels of a behavior's bar have a color."""
    row, column = divmod(number, COLUMNS)
    top = STRIP + row * (SIDE + BAR + LINE + 2 * GAP) + SIDE + GAP // 2 + BAR // 2
    left = GAP + column * (SIDE + GAP)
    return int((np.asarray(sheet)[top, left : left + SIDE] == rgb(color)).all(axis=1).sum())


def test_every_bar_is_as_long_as_its_weight_and_has_the_color_of_its_sign():
    weights = [1.0, 0.5, 0.1, -0.25, -1.0, math.nan, 0.0, 0.75]
    sheet = draw_case(case(weights))
    for number, weight in enumerate(weights):
        green, red = bar(sheet, number, POSITIVE), bar(sheet, number, NEGATIVE)
        assert green == pytest.approx(max(weight, 0) * SIDE, abs=1.5) if weight > 0 else green == 0
        assert red == pytest.approx(max(-weight, 0) * SIDE, abs=1.5) if weight < 0 else red == 0


def test_a_weight_that_rounding_left_above_one_stays_within_its_bar():
    assert bar_length(1.0000002, width=96) == bar_length(-1.0000002, width=96) == 96


def test_a_missing_vector_is_told_from_a_weight_of_zero():
    zero, missing = (np.asarray(draw_case(case([weight]))) for weight in (0.0, math.nan))
    label = slice(STRIP + SIDE + BAR + GAP, STRIP + SIDE + BAR + LINE)
    assert (zero[label] != missing[label]).any()


def test_more_behaviors_than_there_is_room_for_are_only_in_the_plot_of_all_weights():
    few, many = draw_case(case([0.5] * MOST_SHOWN)), draw_case(case([0.5] * 200))
    assert many.size == few.size
    assert (np.asarray(few)[: -2 * GAP - 72] == np.asarray(many)[: -2 * GAP - 72]).all()


def test_a_target_without_picture_and_behaviors_is_drawn_as_such():
    sheet = draw_case(case())
    inside = np.asarray(sheet.convert("L"))[GAP + 2 : GAP + HEAD - 2, GAP + 2 : GAP + HEAD - 2]
    assert (inside < 128).any()  # the words "no image"
    assert sheet.height < HEAD + 10 * GAP


@pytest.mark.parametrize("title", ["word " * 60, "w" * 300, ""])
def test_titles_of_any_length_stay_on_the_sheet(title):
    sheet = np.asarray(draw_case(case([0.5], title=title, num_facts=9)).convert("L"))
    assert sheet.shape[1] == WIDTH
    assert (sheet[:, -GAP + 1 :] > 250).all()


def test_a_head_of_many_lines_pushes_the_behaviors_down():
    """Mutant: the strip begins below the picture; the last line of text then runs into it."""
    short, long = (draw_case(case([0.5], num_facts=number)) for number in (1, 9))
    assert long.height > short.height
    assert (np.asarray(long)[-300:, :] == np.asarray(short)[-300:, :]).mean() > 0.9


def test_a_title_that_the_font_has_not_is_named_in_the_caption_alone():
    assert can_write("Élan für Ζωή, шапка \N{MINUS SIGN}1 …")
    assert not can_write("帽子 hat")
    foreign, told = draw_case(case(title="帽子 hat")), draw_case(case(title=UNWRITABLE))
    assert (np.asarray(foreign) == np.asarray(told)).all()


def test_lines_are_broken_between_words():
    lines = break_lines("one two three four five six seven", width=90, size=18, most=3)
    assert len(lines) == 3
    assert " ".join(lines) == "one two three four five six seven"
    assert all(font_of(18).getlength(line) <= 90 for line in lines[:-1])
    assert break_lines("", width=90, size=18, most=2) == []


def test_a_file_is_never_larger_than_its_limit():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (600, 736, 3), dtype=np.uint8))
    data = encode_jpeg(noise, limit=150_000)
    assert len(data) <= 150_000
    shown = Image.open(io.BytesIO(data))
    assert shown.width / shown.height == pytest.approx(736 / 600, rel=0.01)
    plain = Image.new("RGB", (736, 600), "#336699")
    assert Image.open(io.BytesIO(encode_jpeg(plain, limit=150_000))).size == (736, 600)
