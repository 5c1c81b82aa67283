"""Figures of a reproduction as matplotlib draws them: bars, lines or points with their intervals."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import MaxNLocator

from mimctr.evaluate.paper.schema import Figure, Point, Series
from mimctr.report.plots import COLORS, UBM_STYLES, bar_look
from mimctr.report.point_labels import Labelled, place_labels
from mimctr.report.svg import INK, Plot, legend_below, new_axes, styled, to_svg, verbatim

MOST_UPRIGHT = 6
"""Names on the axis that are written upright only up to so many, or up to so many letters in all."""
MOST_LETTERS = 45
MOST_TICKS = 5
"""Stretches of an axis of numbers, so that long ones stand beside each other."""
FEWEST_PLACES = 4
"""Names on the axis that there is room for even where there are fewer."""
TELLING = 0.2
"""Bars that differ by less than this share of the highest are drawn as points: bars begin at 0."""


@styled
def draw(figure: Figure) -> Drawing:
    """Return a figure, drawn."""
    drawing, axes = new_axes()
    names = [str(point.x) for series in figure.series for point in series.points if isinstance(point.x, str)]
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    for number, series in enumerate(figure.series):
        _draw_series(axes, _kind(figure), series, places, number=number, of=len(figure.series))
    if places:
        _name_places(axes, list(places))
    if _has_zero_line(figure):
        axes.axhline(0, color=INK, linewidth=0.8)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    if not places:
        axes.xaxis.set_major_locator(MaxNLocator(MOST_TICKS, steps=[1, 2, 2.5, 5, 10]))
    axes.set_xlabel(verbatim(figure.x_label))
    axes.set_ylabel(verbatim(figure.y_label))
    if len(figure.series) > 1:
        legend_below(axes)
    _label_points(drawing, axes, figure, places)
    return drawing


@styled
def plot(figure: Figure, *, name: str) -> Plot:
    """Return a figure as SVG for the page; ``name`` opens its ids."""
    return Plot(to_svg(draw(figure), name=name, title=figure.title), figure.note)


def _kind(figure: Figure) -> str:
    """Return how the figure is drawn: as it asks, but no bars that would all look alike from 0 on."""
    low, high = min(_ends(figure)), max(_ends(figure))
    return "dots" if figure.kind == "bar" and low > 0 and high - low < TELLING * high else figure.kind


def _has_zero_line(figure: Figure) -> bool:
    ends = _ends(figure)
    return _kind(figure) == "bar" or min(ends) < 0 < max(ends)


def _ends(figure: Figure) -> list[float]:
    points = [point for series in figure.series for point in series.points]
    return [value for point in points for value in (point.y, point.low, point.high) if value is not None] or [
        0.0
    ]


def _name_places(axes: Axes, names: list[str]) -> None:
    crowded = len(names) > MOST_UPRIGHT and sum(map(len, names)) > MOST_LETTERS
    axes.set_xticks(
        range(len(names)),
        [verbatim(name) for name in names],
        rotation=30 if crowded else 0,
        ha="right" if crowded else "center",
    )
    room = max(0.0, (FEWEST_PLACES - len(names)) / 2)
    axes.set_xlim(-0.6 - room, len(names) - 0.4 + room)


def _draw_series(
    axes: Axes, kind: str, series: Series, places: dict[str, int], *, number: int, of: int
) -> None:
    color, marker = (COLORS["mim"], "o") if of == 1 else UBM_STYLES[number % len(UBM_STYLES)]
    beside = 0.8 / of * (number - (of - 1) / 2) if kind in ("bar", "dots") else 0.0
    x = [_place(point, places) + beside for point in series.points]
    y = [point.y for point in series.points]
    if kind == "bar":
        axes.bar(x, y, width=0.72 / of, label=series.name, **bar_look(color))
    else:
        axes.plot(
            x, y, f"{marker}-" if kind == "line" else marker, markersize=5, color=color, label=series.name
        )
    for place, point in zip(x, series.points, strict=True):
        if point.low is not None and point.high is not None:
            axes.plot([place, place], [point.low, point.high], color=color, linewidth=1.6)


def _label_points(drawing: Drawing, axes: Axes, figure: Figure, places: dict[str, int]) -> None:
    points = [point for series in figure.series for point in series.points]
    if not any(point.label for point in points):
        return
    axes.margins(x=0.15)
    place_labels(
        drawing,
        axes,
        [Labelled(_place(point, places), point.y, point.label) for point in points],
        bars=[
            (_place(point, places), point.low, point.high)
            for point in points
            if point.low is not None and point.high is not None
        ],
        across=[0.0] if _has_zero_line(figure) else [],
    )


def _place(point: Point, places: dict[str, int]) -> float:
    return places[point.x] if isinstance(point.x, str) else point.x
