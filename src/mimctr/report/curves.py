"""Training curves: CTR models, and the encoders' losses and recall by stage, from results.json alone."""

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from mimctr.evaluate.results import Curve
from mimctr.report.plots import COLORS, UBM_STYLES
from mimctr.report.summary import Summary
from mimctr.report.svg import INK, Plot, legend_below, new_axes, styled, to_svg
from mimctr.report.wording import variant_name

FEW_POINTS = 15


@styled
def ctr_curves(summary: Summary) -> list[Plot]:
    """Return one plot per metric that the CTR models logged: every model a line, colored by variant."""
    models = {model.folder: model for model in summary.results.models}
    curves = [curve for curve in summary.results.curves if curve.folder in models]
    plots = []
    for number, metric in enumerate(dict.fromkeys(curve.metric for curve in curves)):
        figure, axes = new_axes()
        named: set[str] = set()
        for curve in (curve for curve in curves if curve.metric == metric):
            variant = models[curve.folder].variant
            label = variant_name(variant) if variant not in named else None
            named.add(variant)
            color = COLORS.get(variant, INK)
            _line(axes, curve, color=color, label=label, thin=True)
        axes.set_xlabel("step")
        axes.set_title(_metric_words(metric))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        legend_below(axes)
        svg = to_svg(figure, name=f"ctr-{number}", title=f"CTR models: {metric} by step")
        plots.append(Plot(svg, "One line per UBM and seed."))
    return plots


@styled
def encoder_curves(summary: Summary) -> list[Plot]:
    """Return, per encoder training, one plot of its losses and one of its other metrics (recall ...)."""
    models = {model.folder for model in summary.results.models}
    curves = [curve for curve in summary.results.curves if curve.folder not in models]
    plots = []
    for number, folder in enumerate(dict.fromkeys(curve.folder for curve in curves)):
        own = [curve for curve in curves if curve.folder == folder]
        losses = [curve for curve in own if curve.metric.endswith("loss")]
        others = [curve for curve in own if curve not in losses]
        for kind, group in [("loss", losses), ("quality", others)]:
            if not group:
                continue
            figure, axes = new_axes()
            for curve, (color, _) in zip(group, UBM_STYLES * len(group), strict=False):
                _line(axes, curve, color=color, label=_metric_words(curve.metric))
            axes.set_xlabel("step")
            axes.set_title(f"{folder}: {kind}")
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            legend_below(axes)
            svg = to_svg(figure, name=f"encoder-{number}-{kind}", title=f"{folder}: {kind} by step")
            plots.append(Plot(svg, ""))
    return plots


def _line(axes: Axes, curve: Curve, *, color: str, label: str | None, thin: bool = False) -> None:
    """Draw a curve; with few points each is marked."""
    axes.plot(
        curve.steps,
        curve.values,
        color=color,
        label=label,
        alpha=0.7 if thin else 1.0,
        linewidth=1.2 if thin else 1.8,
        marker="o" if len(curve.steps) <= FEW_POINTS else None,
        markersize=3 if thin else 4,
    )


def _metric_words(metric: str) -> str:
    return metric.replace("_", " ").replace("auc", "AUC")
