"""Whether predicted click rates are the observed ones, from results.json alone."""

from mimctr.report.plots import UBM_STYLES, contender_looks
from mimctr.report.summary import Summary
from mimctr.report.svg import INK, Plot, legend_below, new_axes, styled, to_svg, verbatim
from mimctr.report.wording import ubm_name


@styled
def reliability_plots(summary: Summary) -> list[Plot]:
    """Return, per UBM, observed against predicted click rate: a line per contender, and the diagonal."""
    plots: list[Plot] = []
    looks = contender_looks(summary)
    for ubm in summary.ubms:
        lines = {contender: summary.reliability(ubm, contender) for contender in summary.contenders}
        lines = {contender: points for contender, points in lines.items() if points}
        if not lines:
            continue
        figure, axes = new_axes()
        highest = max(max(point) for points in lines.values() for point in points)
        axes.plot([0, highest], [0, highest], linestyle=":", color=INK, linewidth=1)
        for (contender, points), (_, marker) in zip(lines.items(), UBM_STYLES * len(lines), strict=False):
            predicted, observed = zip(*points, strict=True)
            color, line = looks[contender]
            label = summary.label(contender)
            axes.plot(predicted, observed, line, marker=marker, markersize=4, color=color, label=label)
        axes.set_xlabel("predicted click rate")
        axes.set_ylabel("observed click rate")
        axes.set_title(verbatim(ubm_name(ubm)))
        legend_below(axes)
        title = f"{ubm_name(ubm)}: observed by predicted click rate"
        plots.append(Plot(to_svg(figure, name=f"reliability-{len(plots)}", title=title), ""))
    return plots
