"""AUC and its gain by item age (paper Figure 6) and by category (Table 7), from results.json alone."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from mimctr.evaluate.compare import Contender
from mimctr.evaluate.results import Comparison
from mimctr.report.summary import MIM, Summary
from mimctr.report.svg import INK, Plot, legend_below, new_axes, styled, to_svg, verbatim
from mimctr.report.wording import slice_name, ubm_name

COLORS = {
    "base": "#7c838e",
    "mim": "#2f7ed8",
    "mim_plus": "#8957d6",
    "mim_permuted": "#b87810",
    "ceiling": "#1a9c6b",
}
"""Of variants. These and the next have a contrast of 3 or more with the page's panels, light and dark (WCAG 1.4.11)."""
SPARE_COLORS = ("#d4602b", "#c7457f", "#2f8ca3")
UBM_STYLES = (
    (SPARE_COLORS[0], "o"),
    (COLORS["mim_plus"], "s"),
    (COLORS["ceiling"], "^"),
    (COLORS["mim_permuted"], "D"),
    (SPARE_COLORS[1], "v"),
    (SPARE_COLORS[2], "P"),
)
LINES = ("-", "--", "-.", ":")
FILL = 0.25
"""Opacity of a bar within its outline."""
MOST_CATEGORIES = 20


class Look(NamedTuple):
    """How a contender is drawn."""

    color: str
    line: str


def contender_looks(summary: Summary) -> dict[Contender, Look]:
    """Return how each contender is drawn, no two alike: in the color of its variant, the second of one variant apart.

    What the report is about has the color of Base+MIM in every plot.
    """
    apart = itertools.cycle(Look(color, line) for line in LINES for color in SPARE_COLORS)
    free, looks = dict(COLORS), {}
    for contender in sorted(summary.contenders, key=lambda one: one != summary.content):
        color = free.pop(MIM if contender == summary.content else contender.variant, None)
        looks[contender] = Look(color, "-") if color else next(apart)
    return looks


def bar_look(color: str) -> dict[str, Any]:
    """Return the look of bars: a light fill within an outline that is seen on any background."""
    return {"facecolor": (color, FILL), "edgecolor": color, "linewidth": 1.0}


@styled
def gain_by_age(summary: Summary) -> Plot | None:
    """Return the gain of content interest per age set, S1 newest (paper Figure 6); None where there is none."""
    names = summary.slices_of("age")
    if not names or summary.content is None or summary.overall_gain(names[0]) is None:
        return None
    figure, axes = new_axes()
    labels = [name.partition(":")[2] for name in names]
    _gains(axes, summary, names, vertical=False)
    axes.set_xticks(range(len(names)), labels)
    axes.set_xlabel("items by age, S1 newest")
    axes.set_ylabel("gain in AUC over Base")
    axes.set_title("Gain by item age")
    legend_below(axes)
    return Plot(
        to_svg(figure, name="gain-age", title="Gain in AUC by item age"),
        f"Ten sets of equally many test items. {_interval_words(summary)}"
        if len(names) == 10
        else f"{len(names)} sets of equally many test items. {_interval_words(summary)}",
    )


@styled
def auc_by_age(summary: Summary) -> Plot | None:
    """Return AUC per age set of Base, Base+MIM and the ceiling, mean over the models that both have."""
    names = summary.slices_of("age")
    contenders = summary.main_contenders
    if not names or not contenders:
        return None
    figure, axes = new_axes()
    looks = contender_looks(summary)
    for contender in contenders:
        axes.plot(
            range(len(names)),
            [_mean_auc(summary, contender, name) for name in names],
            marker="o",
            markersize=4,
            color=looks[contender].color,
            label=summary.label(contender),
        )
    ceilings = _ceilings(summary, names)
    if ceilings:
        axes.plot(range(len(names)), ceilings, linestyle=":", color=COLORS["ceiling"], label="Ceiling")
    axes.set_xticks(range(len(names)), [name.partition(":")[2] for name in names])
    axes.set_xlabel("items by age, S1 newest")
    axes.set_ylabel("test AUC")
    axes.set_title("AUC by item age")
    legend_below(axes)
    return Plot(to_svg(figure, name="auc-age", title="AUC by item age"), f"{summary.mean_words}.")


@styled
def gain_by_category(summary: Summary) -> Plot | None:
    """Return the gain per category, largest first (paper Table 7)."""
    names = [name for name in _largest_categories(summary) if summary.overall_gain(name)]
    if not names:
        return None
    names.sort(key=lambda name: summary.overall_gain(name).difference)  # type: ignore[union-attr]
    figure, axes = new_axes(height=max(3.4, 1.3 + 0.3 * len(names)))
    _gains(axes, summary, names, vertical=True)
    _name_categories(axes, names)
    axes.set_xlabel("gain in AUC over Base")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_title("Gain by category")
    legend_below(axes)
    return Plot(
        to_svg(figure, name="gain-category", title="Gain in AUC by category"), _category_words(summary, names)
    )


@styled
def auc_by_category(summary: Summary) -> Plot | None:
    """Return AUC per category of Base, Base+MIM and the ceiling, mean over the models that both have."""
    names = _largest_categories(summary)
    contenders = summary.main_contenders
    if not names or not contenders:
        return None
    names.sort(key=lambda name: _mean_auc(summary, contenders[-1], name))
    figure, axes = new_axes(height=max(3.4, 1.3 + 0.3 * len(names)))
    for place, name in enumerate(names):
        ends = [_mean_auc(summary, contender, name) for contender in contenders]
        axes.plot(ends, [place] * len(ends), color=INK, alpha=0.5, linewidth=1.5, zorder=1)
    looks = contender_looks(summary)
    for contender in contenders:
        values = [_mean_auc(summary, contender, name) for name in names]
        label = summary.label(contender)
        axes.plot(values, range(len(names)), "o", color=looks[contender].color, label=label)
    ceilings = _ceilings(summary, names)
    if ceilings:
        axes.plot(ceilings, range(len(names)), "|", markersize=10, color=COLORS["ceiling"], label="Ceiling")
    _name_categories(axes, names)
    axes.set_xlabel("test AUC")
    axes.set_title("AUC by category")
    legend_below(axes)
    return Plot(to_svg(figure, name="auc-category", title="AUC by category"), f"{summary.mean_words}.")


def _gains(axes: Axes, summary: Summary, names: Sequence[str], *, vertical: bool) -> None:
    """Draw the overall gain with its interval, and each UBM's as a small mark beside it."""
    content = summary.content
    assert content is not None, "only called where there is a gain"
    overall = [summary.overall_gain(name) for name in names]
    _error_bars(axes, overall, vertical=vertical, label=_overall_label(overall))
    ubms = [ubm for ubm in summary.ubms if summary.gain(ubm, content, names[0])]
    if len(ubms) > 1:
        for number, (ubm, (color, marker)) in enumerate(zip(ubms, UBM_STYLES, strict=False)):
            beside = 0.5 * ((number + 0.5) / len(ubms) - 0.5)
            points = [(place + beside, summary.gain(ubm, content, name)) for place, name in enumerate(names)]
            places = [place for place, gain in points if gain]
            values = [gain.difference for _, gain in points if gain]
            across = (values, places) if vertical else (places, values)
            axes.plot(*across, marker, markersize=4, color=color, label=ubm_name(ubm), zorder=2)
    (axes.axvline if vertical else axes.axhline)(0, color=INK, linewidth=0.8)


def _error_bars(axes: Axes, gains: Sequence[Comparison | None], *, vertical: bool, label: str) -> None:
    shown = [(place, gain) for place, gain in enumerate(gains) if gain]
    places, values = [place for place, _ in shown], [gain.difference for _, gain in shown]
    color = COLORS["mim"]
    if vertical:
        axes.barh(places, values, label=label, zorder=1, **bar_look(color))
    else:
        axes.bar(places, values, label=label, zorder=1, **bar_look(color))
    for place, gain in shown:
        if gain.low is not None and gain.high is not None:
            ends = ([gain.low, gain.high], [place, place])
            axes.plot(*(ends if vertical else ends[::-1]), color=color, linewidth=2, zorder=3)


def _overall_label(gains: Sequence[Comparison | None]) -> str:
    first = next(gain for gain in gains if gain)
    return ubm_name(first.ubm)


def _interval_words(summary: Summary) -> str:
    known = summary.overall_gain(summary.slices_of("age")[0])
    return "Lines: 95 % interval over users and seeds." if known and known.low is not None else ""


def _category_words(summary: Summary, names: Sequence[str]) -> str:
    words = "Lines: 95 % interval over users and seeds."
    all_of_them = len(summary.slices_of("category"))
    return (
        words
        if len(names) == all_of_them
        else f"The {len(names)} largest of {all_of_them} categories. {words}"
    )


def _largest_categories(summary: Summary) -> list[str]:
    sizes = {
        row.slice: row.num_impressions for row in summary.results.rows if row.slice.startswith("category:")
    }
    return sorted(sizes, key=lambda name: -sizes[name])[:MOST_CATEGORIES]


def _name_categories(axes: Axes, names: Sequence[str]) -> None:
    """Write the names of slices up the vertical axis."""
    axes.set_yticks(range(len(names)), [verbatim(_short(slice_name(name))) for name in names])


def _ceilings(summary: Summary, names: Sequence[str]) -> list[float]:
    """Return the ceiling of every slice; empty where they are unknown."""
    values = [summary.ceiling(name) for name in names]
    return [value for value in values if value is not None]


def _mean_auc(summary: Summary, contender: Contender, name: str) -> float:
    value = summary.mean_over_ubms(contender, name)
    assert value is not None, "every contender is measured on every slice"
    return value


def _short(name: str, most: int = 26) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
