"""AUC and its gain by item age (paper Figure 6) and by category (Table 7), from results.json alone."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from mimctr.evaluate.compare import BASE, Contender
from mimctr.evaluate.results import Comparison
from mimctr.report.summary import Summary
from mimctr.report.svg import INK, Plot, legend_below, new_axes, styled, to_svg
from mimctr.report.wording import slice_name, ubm_name, variant_name

COLORS = {
    "base": "#8b919b",
    "mim": "#2f7ed8",
    "mim_plus": "#8957d6",
    "mim_permuted": "#c98312",
    "ceiling": "#1a9c6b",
}
UBM_STYLES = (
    ("#e0703a", "o"),
    ("#8957d6", "s"),
    ("#1a9c6b", "^"),
    ("#c98312", "D"),
    ("#c7457f", "v"),
    ("#4aa3b8", "P"),
)
MOST_CATEGORIES = 20


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
    """Return AUC per age set of Base, Base+MIM and the ceiling, mean over UBMs and seeds."""
    names = summary.slices_of("age")
    contenders = _main_contenders(summary)
    if not names or not contenders:
        return None
    figure, axes = new_axes()
    for contender in contenders:
        axes.plot(
            range(len(names)),
            [_mean_auc(summary, contender, name) for name in names],
            marker="o",
            markersize=4,
            color=_color(contender),
            label=variant_name(contender.variant),
        )
    ceilings = _ceilings(summary, names)
    if ceilings:
        axes.plot(range(len(names)), ceilings, linestyle=":", color=COLORS["ceiling"], label="Ceiling")
    axes.set_xticks(range(len(names)), [name.partition(":")[2] for name in names])
    axes.set_xlabel("items by age, S1 newest")
    axes.set_ylabel("test AUC")
    axes.set_title("AUC by item age")
    legend_below(axes)
    return Plot(to_svg(figure, name="auc-age", title="AUC by item age"), "Mean over UBMs and seeds.")


@styled
def gain_by_category(summary: Summary) -> Plot | None:
    """Return the gain per category, largest first (paper Table 7)."""
    names = [name for name in _largest_categories(summary) if summary.overall_gain(name)]
    if not names:
        return None
    names.sort(key=lambda name: summary.overall_gain(name).difference)  # type: ignore[union-attr]
    figure, axes = new_axes(height=max(3.4, 1.3 + 0.3 * len(names)))
    _gains(axes, summary, names, vertical=True)
    axes.set_yticks(range(len(names)), [_short(slice_name(name)) for name in names])
    axes.set_xlabel("gain in AUC over Base")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_title("Gain by category")
    legend_below(axes)
    return Plot(
        to_svg(figure, name="gain-category", title="Gain in AUC by category"), _category_words(summary, names)
    )


@styled
def auc_by_category(summary: Summary) -> Plot | None:
    """Return AUC per category of Base, Base+MIM and the ceiling, mean over UBMs and seeds."""
    names = _largest_categories(summary)
    contenders = _main_contenders(summary)
    if not names or not contenders:
        return None
    names.sort(key=lambda name: _mean_auc(summary, contenders[-1], name))
    figure, axes = new_axes(height=max(3.4, 1.3 + 0.3 * len(names)))
    for place, name in enumerate(names):
        ends = [_mean_auc(summary, contender, name) for contender in contenders]
        axes.plot(ends, [place] * len(ends), color=INK, alpha=0.3, linewidth=1.5, zorder=1)
    for contender in contenders:
        values = [_mean_auc(summary, contender, name) for name in names]
        label, color = variant_name(contender.variant), _color(contender)
        axes.plot(values, range(len(names)), "o", color=color, label=label)
    ceilings = _ceilings(summary, names)
    if ceilings:
        axes.plot(ceilings, range(len(names)), "|", markersize=10, color=COLORS["ceiling"], label="Ceiling")
    axes.set_yticks(range(len(names)), [_short(slice_name(name)) for name in names])
    axes.set_xlabel("test AUC")
    axes.set_title("AUC by category")
    legend_below(axes)
    return Plot(to_svg(figure, name="auc-category", title="AUC by category"), "Mean over UBMs and seeds.")


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
            axes.plot(*across, marker, markersize=4, color=color, alpha=0.8, label=ubm_name(ubm), zorder=2)
    (axes.axvline if vertical else axes.axhline)(0, color=INK, linewidth=0.8)


def _error_bars(axes: Axes, gains: Sequence[Comparison | None], *, vertical: bool, label: str) -> None:
    shown = [(place, gain) for place, gain in enumerate(gains) if gain]
    places, values = [place for place, _ in shown], [gain.difference for _, gain in shown]
    color = COLORS["mim"]
    if vertical:
        axes.barh(places, values, color=color, alpha=0.35, label=label, zorder=1)
    else:
        axes.bar(places, values, color=color, alpha=0.35, label=label, zorder=1)
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


def _main_contenders(summary: Summary) -> list[Contender]:
    """Return Base and the contender that the report is about, those that there are."""
    base = [contender for contender in summary.contenders if contender.variant == BASE]
    return base + ([summary.content] if summary.content else [])


def _color(contender: Contender) -> str:
    """Return the color of one of the main contenders."""
    return COLORS["base" if contender.variant == BASE else "mim"]


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
