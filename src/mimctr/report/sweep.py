"""A sweep as a table and as a picture."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.box import SIMPLE_HEAD
from rich.table import Table

from mimctr.evaluate.sweeps import Choices, Space, Sweep, Trial
from mimctr.report.plots import COLORS
from mimctr.report.svg import styled, verbatim
from mimctr.report.table import plain_text

MOST_ROWS = 10
COLUMNS = 3
"""Of the picture."""
STATE_COLORS = {
    "finished": COLORS["mim"],
    "pruned": COLORS["mim_permuted"],
    "unfinished": COLORS["base"],
}
BEST_COLOR = COLORS["ceiling"]


def sweep_table(sweep: Sweep) -> str:
    """Return the best trials as plain text, and how many there were of each kind."""
    table = Table(
        box=SIMPLE_HEAD, title="Best trials by validation AUC", title_justify="left", pad_edge=False
    )
    for name in ("Trial", "AUC", "Seconds", *sweep.search):
        table.add_column(name, justify="right", no_wrap=True)
    for trial in sweep.ranked[:MOST_ROWS]:
        found = [_short(trial.settings[name]) for name in sweep.search]
        table.add_row(str(trial.number), f"{trial.validation_auc:.4f}", f"{trial.seconds:.0f}", *found)
    counts = Counter[str](trial.state for trial in sweep.trials)
    kinds = ("finished", "pruned", "failed", "unfinished")
    words = ", ".join(f"{counts[kind]} {kind}" for kind in kinds if counts[kind])
    return f"{plain_text(table)}\n\n{words}"


@styled
def sweep_figure(sweep: Sweep) -> Figure:
    """Return validation AUC by trial, and by the value of each setting that was searched."""
    num_rows = math.ceil((1 + len(sweep.search)) / COLUMNS)
    figure = Figure(figsize=(4.2 * COLUMNS, 3.2 * num_rows), layout="constrained")
    shown = [trial for trial in sweep.trials if trial.validation_auc is not None]
    axes = figure.add_subplot(num_rows, COLUMNS, 1)
    _points(axes, shown, [trial.number for trial in shown])
    ranked = sorted(sweep.ranked, key=lambda trial: trial.number)
    best = [max(t.validation_auc or 0.0 for t in ranked[: i + 1]) for i in range(len(ranked))]
    axes.step([t.number for t in ranked], best, where="post", color=BEST_COLOR, label="best so far")
    axes.set_title("By trial")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("validation AUC")
    for number, (name, space) in enumerate(sweep.search.items(), start=2):
        axes = figure.add_subplot(num_rows, COLUMNS, number)
        _points(axes, shown, _places(axes, space, [trial.settings[name] for trial in shown]))
        axes.set_title(verbatim(name))
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def _points(axes: Axes, trials: Sequence[Trial], places: Sequence[float]) -> None:
    for state, color in STATE_COLORS.items():
        chosen = [(x, t.validation_auc) for x, t in zip(places, trials, strict=True) if t.state == state]
        if chosen:
            axes.plot(*zip(*chosen, strict=True), "o", markersize=4, color=color, label=state)


def _places(axes: Axes, space: Space, values: Sequence[Any]) -> list[float]:
    """Return where values stand on the horizontal axis, and name it."""
    if isinstance(space, Choices):
        axes.set_xticks(range(len(space.values)), [verbatim(_short(value)) for value in space.values])
        axes.set_xlim(-0.5, len(space.values) - 0.5)
        return [space.values.index(value) for value in values]
    if space.scale == "log":
        axes.set_xscale("log")
    return [float(value) for value in values]


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
