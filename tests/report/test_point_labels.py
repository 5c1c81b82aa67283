"""Words beside points: they stand apart, inside the axes, and say what they are given."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from mimctr.evaluate.paper.schema import Figure, Point, Series
from mimctr.report.reproduction_plots import draw
from mimctr.report.svg import new_axes, styled, to_svg, verbatim


def scatter(num_points: int) -> Figure:
    """Points so near to one another that labels all to the right would cover each other."""
    generator = np.random.default_rng(3)
    points = [
        Point(x=float(x), y=float(y), low=float(y) - 0.2, high=float(y) + 0.2, label=f"w/o encoder {place}")
        for place, (x, y) in enumerate(generator.normal(size=(num_points, 2)) * 0.3)
    ]
    return Figure(
        key="f",
        title="t",
        kind="scatter",
        x_label="x",
        y_label="y",
        series=[Series(name="s", points=points)],
        note="",
    )


@pytest.mark.parametrize("num_points", [2, 14])
def test_labels_cover_neither_one_another_nor_the_edge(num_points):
    figure = scatter(num_points)
    drawing = draw(figure)
    drawing.draw_without_rendering()
    (axes,) = drawing.axes
    labels = [text for text in axes.texts if text.get_text()]
    assert sorted(text.get_text() for text in labels) == sorted(
        point.label for point in figure.series[0].points
    )
    boxes = [Text.get_window_extent(label) for label in labels]  # without the lines that lead to them
    for one, other in combinations(boxes, 2):
        both = Bbox.intersection(one, other)
        assert both is None or both.width * both.height < 1
    frame = axes.get_window_extent()
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)


def test_the_line_of_zero_strikes_no_label_out():
    """Mutant: labels know of points and intervals alone."""
    figure = scatter(2)
    points = [
        Point(x=0.0, y=-1.0, label="below"),
        Point(x=1.0, y=0.0, label="on it"),
        Point(x=2.0, y=1.0, label="above"),
    ]
    drawing = draw(figure.model_copy(update={"series": [Series(name="s", points=points)]}))
    drawing.draw_without_rendering()
    (axes,) = drawing.axes
    _, height = axes.transData.transform((0.0, 0.0))
    boxes = [Text.get_window_extent(text) for text in axes.texts if text.get_text()]
    assert not any(box.y0 < height < box.y1 for box in boxes)


def test_bars_that_would_look_alike_are_points_and_bars_begin_at_0():
    def bars(values):
        points = [Point(x=f"S{place}", y=value) for place, value in enumerate(values)]
        return Figure(
            key="f",
            title="t",
            kind="bar",
            x_label="x",
            y_label="y",
            series=[Series(name="s", points=points)],
            note="",
        )

    (axes,) = draw(bars([0.61, 0.62])).axes
    assert (len(axes.patches), len(axes.lines)) == (0, 1)
    assert axes.get_ylim()[0] > 0.5
    (axes,) = draw(bars([0.1, 0.3])).axes
    assert (len(axes.patches), axes.get_ylim()[0]) == (2, 0)


@styled
def test_dollars_are_no_formula_and_quotes_end_no_attribute():
    figure, axes = new_axes()
    axes.set_xlabel(verbatim("from $5 to $10"))
    text = to_svg(figure, name="a", title='5" & more')
    assert ">from $5 to $10<" in text
    assert 'aria-label="5&quot; &amp; more"' in text
