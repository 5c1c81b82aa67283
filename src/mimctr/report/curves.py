"""Training curves: CTR models, and the encoders' losses and recall by stage, from results.json alone."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from mimctr.evaluate.compare import Contender
from mimctr.evaluate.results import Curve
from mimctr.report.plots import UBM_STYLES, Look, contender_looks
from mimctr.report.summary import Summary
from mimctr.report.svg import Plot, legend_below, new_axes, styled, to_svg, verbatim
from mimctr.report.wording import metric_words

FEW_POINTS = 15


@styled
def ctr_curves(summary: Summary) -> list[Plot]:
    """Return one plot per metric that the CTR models logged: every model a line, colored by contender."""
    looks = contender_looks(summary)
    models = {model.folder: model for model in summary.results.models}
    curves = [curve for curve in summary.results.curves if curve.folder in models]
    plots: list[Plot] = []
    for number, metric in enumerate(dict.fromkeys(curve.metric for curve in curves)):
        figure, axes = new_axes()
        named: set[Contender] = set()
        for curve in (curve for curve in curves if curve.metric == metric):
            contender = Contender(models[curve.folder].variant, models[curve.folder].encoder)
            label = None if contender in named else summary.label(contender)
            named.add(contender)
            _line(axes, curve, look=looks[contender], label=label, thin=True)
        axes.set_xlabel("step")
        axes.set_title(verbatim(metric_words(metric)))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        legend_below(axes)
        svg = to_svg(figure, name=f"ctr-{number}", title=f"CTR models: {metric} by step")
        plots.append(Plot(svg, "One line per UBM and seed."))
    return plots


@styled
def encoder_curves(summary: Summary) -> list[Plot]:
    """Return, per encoder training, a plot of its losses, one of its search metrics, and one of each other metric."""
    models = {model.folder for model in summary.results.models}
    stages = [stage.folder for stage in summary.results.stages]
    curves = [curve for curve in summary.results.curves if curve.folder not in models]
    curves.sort(key=lambda curve: _stage_number(curve.folder, stages))
    plots: list[Plot] = []
    for folder in dict.fromkeys(curve.folder for curve in curves):
        groups: dict[str, list[Curve]] = {}
        for curve in curves:
            if curve.folder == folder and (len(set(curve.values)) > 1 or "chance" in curve.metric):
                groups.setdefault(_group(curve.metric), []).append(curve)
        for group, members in groups.items():
            figure, axes = new_axes()
            for curve, (color, _) in zip(members, UBM_STYLES * len(members), strict=False):
                _line(axes, curve, look=Look(color, "-"), label=metric_words(curve.metric))
            axes.set_xlabel("step")
            axes.set_title(verbatim(f"{folder.replace('/run/', ', ')}: {group}"))
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            legend_below(axes)
            svg = to_svg(figure, name=f"encoder-{len(plots)}", title=f"{folder}: {group} by step")
            plots.append(Plot(svg, ""))
    return plots


def _stage_number(folder: str, stages: Sequence[str]) -> int:
    """Return the place of the stage that ``folder`` belongs to in the order in which they ran; last where unknown."""
    return next((n for n, stage in enumerate(stages) if f"{folder}/".startswith(f"{stage}/")), len(stages))


def _group(metric: str) -> str:
    """Return the plot that a metric belongs on: those of one scale share one."""
    if metric.endswith("loss"):
        return "loss"
    return "held-out search" if "recall" in metric or metric.endswith("mrr") else metric_words(metric)


def _line(axes: Axes, curve: Curve, *, look: Look, label: str | None, thin: bool = False) -> None:
    """Draw a curve; with few points each is marked."""
    axes.plot(
        curve.steps,
        curve.values,
        look.line,
        color=look.color,
        label=label,
        linewidth=1.2 if thin else 1.8,
        marker="o" if len(curve.steps) <= FEW_POINTS else None,
        markersize=3 if thin else 4,
    )
