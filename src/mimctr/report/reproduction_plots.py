"""Figures of a reproduction as matplotlib draws them: bars, lines or points with their intervals."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from mimctr.evaluate.paper.schema import Figure, Series
from mimctr.report.plots import COLORS, UBM_STYLES
from mimctr.report.svg import INK, Plot, legend_below, new_axes, styled, to_svg

MOST_UPRIGHT = 6
"""Names on the axis that are written upright only up to so many, or up to so many letters in all."""
MOST_LETTERS = 45


@styled
def draw(figure: Figure) -> Drawing:
    """Return a figure, drawn."""
    drawing, axes = new_axes(width=6.2, height=3.8)
    names = [str(point.x) for series in figure.series for point in series.points if isinstance(point.x, str)]
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    for number, series in enumerate(figure.series):
        _draw_series(axes, figure.kind, series, places, number=number, of=len(figure.series))
    if places:
        crowded = len(places) > MOST_UPRIGHT and sum(map(len, places)) > MOST_LETTERS
        axes.set_xticks(
            range(len(places)),
            list(places),
            rotation=30 if crowded else 0,
            ha="right" if crowded else "center",
        )
    if figure.kind == "bar" or any(point.y < 0 for series in figure.series for point in series.points):
        axes.axhline(0, color=INK, linewidth=0.8)
    if figure.kind == "bar" and min(_ends(figure)) > 0:
        axes.set_ylim(*_window(_ends(figure)))
    axes.set_xlabel(figure.x_label)
    axes.set_ylabel(figure.y_label)
    if len(figure.series) > 1:
        legend_below(axes)
    return drawing


@styled
def plot(figure: Figure, *, name: str) -> Plot:
    """Return a figure as SVG for the page; ``name`` opens its ids."""
    return Plot(to_svg(draw(figure), name=name, title=figure.title), figure.note)


def _ends(figure: Figure) -> list[float]:
    points = [point for series in figure.series for point in series.points]
    return [value for point in points for value in (point.y, point.low, point.high) if value is not None] or [
        0.0
    ]


def _window(values: list[float]) -> tuple[float, float]:
    """Return where the axis of bars begins and ends: at 0, unless they differ by little of what they are."""
    low, high = min(values), max(values)
    reach = high - low
    return (0.0, 1.05 * high) if reach > 0.2 * high else (low - 0.5 * reach - 1e-4, high + 0.2 * reach + 1e-4)


def _draw_series(
    axes: Axes, kind: str, series: Series, places: dict[str, int], *, number: int, of: int
) -> None:
    color, marker = (COLORS["mim"], "o") if of == 1 else UBM_STYLES[number % len(UBM_STYLES)]
    x = [places[point.x] if isinstance(point.x, str) else point.x for point in series.points]
    y = [point.y for point in series.points]
    if kind == "bar":
        width = 0.8 / of
        x = [place + width * (number - (of - 1) / 2) for place in x]
        axes.bar(x, y, width=0.9 * width, color=color, alpha=0.5, label=series.name)
    elif kind == "line":
        axes.plot(x, y, marker=marker, markersize=5, color=color, label=series.name)
    else:
        axes.plot(x, y, marker, markersize=5, color=color, label=series.name)
    for place, point in zip(x, series.points, strict=True):
        if point.low is not None and point.high is not None:
            axes.plot([place, place], [point.low, point.high], color=color, linewidth=1.6)
        if point.label:
            axes.annotate(
                point.label, (place, point.y), xytext=(5, 4), textcoords="offset points", fontsize=7.5
            )
