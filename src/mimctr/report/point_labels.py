"""Words beside points of a plot, each where it covers least."""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox
from numpy import ndarray

from mimctr.report.svg import INK, verbatim

FONT_SIZE = 7.5
REACH = 4.0
"""Half the size of a point's mark, and the least distance of its label, in typographic points."""
DISTANCES = (0, 9, 18, 27, 40, 54)
"""How far above or below its point a label may stand."""
FAR = 12
"""From here on a thin line leads from the label to its point."""
COSTS = {"label": 10.0, "mark": 5.0, "bar": 0.5, "outside": 20.0}
"""Of covering one square unit of each, against one unit of distance."""


class Place(NamedTuple):
    """Where a label may stand, in typographic points from its point."""

    x: float
    y: float
    alignment: str


PLACES = [
    Place(side * (REACH + 1), up * distance, "left" if side > 0 else "right")
    for distance, side, up in product(DISTANCES, (1, -1), (1, -1))
    if distance or up > 0
]
"""Nearest first, right before left, above before below."""


class Labelled(NamedTuple):
    """A point and what is written beside it."""

    x: float
    y: float
    text: str


def place_labels(
    drawing: Figure,
    axes: Axes,
    points: Sequence[Labelled],
    *,
    bars: Sequence[tuple[float, float, float]] = (),
    across: Sequence[float] = (),
) -> None:
    """Write labels one after the other, from left to right, each where it covers least of what stands already.

    Args:
        drawing: The figure.
        axes: Its axes, with their final limits; the labels change them no more.
        points: All points; those without text are only kept clear.
        bars: Intervals, as x, low and high.
        across: Heights of lines from side to side.
    """
    drawing.draw_without_rendering()
    unit = drawing.dpi / 72
    marks = [_around(axes.transData.transform((x, y)), REACH * unit) for x, y, _ in points]
    lines = [Bbox(axes.transData.transform([(x, low), (x, high)])).padded(unit) for x, low, high in bars]
    sides = axes.get_xlim()
    lines += [Bbox(axes.transData.transform([(x, y) for x in sides])).padded(unit) for y in across]
    taken: list[Bbox] = []
    for point in sorted((point for point in points if point.text), key=lambda point: point.x):
        trials = [(place, _box(axes, point, place)) for place in PLACES]
        place, box = min(
            trials,
            key=lambda trial: abs(trial[0].y) * unit + _cost(trial[1], axes.bbox, taken, marks, lines),
        )
        _write(axes, point, place, line=abs(place.y) >= FAR)
        taken.append(box)


def _cost(
    box: Bbox, inside: Bbox, taken: Sequence[Bbox], marks: Sequence[Bbox], lines: Sequence[Bbox]
) -> float:
    covered = {
        "label": sum(_overlap(box, other) for other in taken),
        "mark": sum(_overlap(box, other) for other in marks),
        "bar": sum(_overlap(box, other) for other in lines),
        "outside": box.width * box.height - _overlap(box, inside),
    }
    return sum(COSTS[name] * area for name, area in covered.items())


def _box(axes: Axes, point: Labelled, place: Place) -> Bbox:
    """Return where the words would stand, in pixels."""
    trial = _write(axes, point, place, line=False)
    box = trial.get_window_extent()
    trial.remove()
    return box


def _write(axes: Axes, point: Labelled, place: Place, *, line: bool) -> Annotation:
    leader = {"arrowstyle": "-", "color": INK, "alpha": 0.4, "linewidth": 0.6, "shrinkA": 0}
    label = axes.annotate(
        verbatim(point.text),
        (point.x, point.y),
        xytext=(place.x, place.y),
        textcoords="offset points",
        ha=place.alignment,
        va="center",
        fontsize=FONT_SIZE,
        arrowprops=leader if line else None,
    )
    label.set_in_layout(False)
    return label


def _around(center: ndarray, reach: float) -> Bbox:
    x, y = center
    return Bbox([(x - reach, y - reach), (x + reach, y + reach)])


def _overlap(one: Bbox, other: Bbox) -> float:
    both = Bbox.intersection(one, other)
    return 0.0 if both is None else both.width * both.height
