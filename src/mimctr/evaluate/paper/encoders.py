"""Tables 3, 4 and 5, Figure 5: one user behavior model with the vectors of every encoder, and with less of Eq. (9)."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from mimctr.evaluate.cohorts import ALL
from mimctr.evaluate.compare import MIM, Contender
from mimctr.evaluate.encoder_results import EncoderResults, Estimate, RowResult
from mimctr.evaluate.paper.lookup import DEVIATION, NO_CONTENT, Lookup, is_sure
from mimctr.evaluate.paper.numbers import BASE, TABLE_3, TABLE_4, TABLE_5
from mimctr.evaluate.paper.schema import Cell, Column, Figure, Point, Series, Table, TableRow
from mimctr.evaluate.variants import ablated
from mimctr.evaluate.written import signed

TITLES = {3: "Pre-training", 4: "Signal and loss of C-SFT", 5: "Ablations"}
PAPER: Mapping[int, Mapping[str, float | None]] = {3: TABLE_3, 4: TABLE_4, 5: TABLE_5}
INTERESTS = ("id", "content", "fusion")
INTEREST_NAMES = {"id": "ID interest", "content": "content interest", "fusion": "fusion interest"}
EQUATIONS = {"id": "the user behavior model's own", "content": "Eq. (7)", "fusion": "Eq. (8)"}
RECALL = "recall@10"
EXCHANGE = "exchange rate"
"""Key of the figure of all encoders."""


class Encoders(NamedTuple):
    """What Tables 3 to 5 are made of."""

    found: Lookup
    """Of Base and of Base+MIM with the vectors of every encoder."""
    searched: EncoderResults
    """Held-out search with every encoder."""
    ubm: str

    def only(self, rows: Collection[str]) -> "Encoders":
        """Return what these rows are made of: a table is the same whatever other experiments were asked for."""
        kept = [row for row in self.searched.rows if row.name in rows]
        return self._replace(searched=self.searched.model_copy(update={"rows": kept}))

    def auc(self, row: str) -> Estimate | None:
        """Return the AUC of Base+MIM with a row's vectors."""
        return self.found.auc(self.ubm, Contender(MIM, row))

    def gain(self, row: str) -> Estimate | None:
        """Return what Base+MIM with a row's vectors gains over Base."""
        return self.found.difference(self.ubm, Contender(MIM, row), NO_CONTENT)

    def over(self, one: str, other: str) -> Estimate | None:
        """Return by how much the vectors of ``one`` are better than those of ``other``."""
        return self.found.difference(self.ubm, Contender(MIM, one), Contender(MIM, other))

    def without(self, interest: str) -> tuple[Estimate | None, Estimate | None]:
        """Return the AUC of Base+MIM without an interest, and what leaving it out costs."""
        less, whole = Contender(ablated(MIM, [interest]), MIM), Contender(MIM, MIM)
        return self.found.auc(self.ubm, less), self.found.difference(self.ubm, whole, less)

    def recall(self, row: str) -> Estimate | None:
        """Return the share of held-out purchases among the first ten of all items."""
        measure = self.searched.find(row, "test", ALL, RECALL)
        return None if measure is None else measure.value

    def kept(self, row: str) -> tuple[int, int]:
        """Return with how many seeds C-SFT never searched better than its start, which was kept, and of how many."""
        for one in self.searched.rows:
            if one.name == row:
                return one.kept_steps.count(0), len(one.kept_steps)
        return 0, 0


def table_3(encoders: Encoders) -> Table:
    """Return Table 3: what pre-training and C-SFT add, step by step."""
    table = _table(encoders, 3, "What each step adds; random weights are ours, for comparison.")
    return table.model_copy(update={"reading": _read_table_3(encoders)})


def _read_table_3(encoders: Encoders) -> list[str]:
    steps = {
        "plain foundation models": encoders.gain("plain"),
        "DDA": encoders.over("dda", "plain"),
        "DMA": encoders.over("dma", "dda"),
        "C-SFT": encoders.over(MIM, "dma"),
    }
    words = [
        f"{name} {signed(step.mean)}{'' if is_sure(step) else ' (not told from 0)'}"
        for name, step in steps.items()
        if step is not None
    ]
    return [f"What each step adds in AUC: {', '.join(words)}."] if words else []


def table_4(encoders: Encoders) -> Table:
    """Return Table 4: what C-SFT is trained on, and with what loss."""
    table = _table(encoders, 4, "All start from the encoders after DDA and DMA.")
    return table.model_copy(update={"reading": _read_table_4(encoders)})


def _read_table_4(encoders: Encoders) -> list[str]:
    wholly: list[str] = []
    partly: list[str] = []
    for row in encoders.searched.rows:
        kept, num_seeds = row.kept_steps.count(0), len(row.kept_steps)
        if 4 in row.labels and kept:
            (wholly if kept == num_seeds else partly).append(f"{row.labels[4]} ({kept} of {num_seeds} seeds)")
    sentences = [
        f"So it was with {'; '.join(rows)}. These rows {say} what DDA and DMA are worth, not their signal."
        for rows, say in ((wholly, "say"), (partly, "say partly"))
        if rows
    ]
    if not sentences:
        return []
    rule = "C-SFT is kept where held-out search is best, and its start stands where that never got better."
    return [" ".join([rule, *sentences])]


def table_5(encoders: Encoders) -> Table:
    """Return Table 5: MIM without each of its parts, those of C-SFT and those of Eq. (9)."""
    table = _table(encoders, 5, "Cost: what MIM has more, paired. Above, parts of C-SFT; below, of CiUBM.")
    rows = []
    for name in INTERESTS:
        auc, cost = encoders.without(name)
        cells = [
            Cell(ours=auc, paper=TABLE_5[name]),
            Cell(ours=cost, paper=TABLE_5[MIM] - TABLE_5[name]),
            Cell(),
        ]
        rows.append(TableRow(label=f"w/o {INTEREST_NAMES[name]}", cells=cells, group="CiUBM"))
    rows = [*table.rows, *rows]
    return table.model_copy(update={"rows": rows, "reading": _read_table_5(rows)})


def _read_table_5(rows: Sequence[TableRow]) -> list[str]:
    costs = {row.label.removeprefix("w/o "): row.cells[1].ours for row in rows if row.cells}
    known = {name: cost for name, cost in costs.items() if cost is not None}
    sure = sorted((name for name, cost in known.items() if is_sure(cost)), key=lambda name: -known[name].mean)
    if not known:
        return []
    costly = [f"{name} ({signed(known[name].mean)})" for name in sure if known[name].mean > 0]
    better = [f"{name} ({signed(known[name].mean)})" for name in sure if known[name].mean < 0]
    open_ones = [name for name in known if name not in sure]
    sentences = []
    if costly:
        sentences.append(f"Leaving out costs beyond doubt: {', '.join(costly)}.")
    if better:
        sentences.append(f"Without it the model is better: {', '.join(better)}.")
    if open_ones:
        sentences.append(f"Whether it matters is not told here: {', '.join(open_ones)}.")
    return sentences


def _table(encoders: Encoders, number: int, note: str) -> Table:
    ablations = number == 5
    shown = [row for row in encoders.searched.rows if number in row.labels]
    if ablations:
        shown.sort(key=lambda row: row.name != MIM)
    rows = [] if ablations else [_base(encoders)]
    rows += [_row(encoders, number, row) for row in shown]
    second = Column(name="cost", unit="gain") if ablations else Column(name="gain over Base", unit="gain")
    return Table(
        key=f"table {number}",
        title=TITLES[number],
        columns=[
            Column(name="test AUC", unit="auc"),
            second,
            Column(name=RECALL, unit="share", note="held-out purchases among the first ten of all items"),
        ],
        rows=rows,
        note=f"Base+MIM over {encoders.ubm.upper()} with the vectors of each encoder, mean over seeds, which vary "
        f"pre-training, C-SFT and the CTR model. {DEVIATION} 95 % intervals over users and seeds. {note}",
    )


def _base(encoders: Encoders) -> TableRow:
    base = encoders.found.auc(encoders.ubm, NO_CONTENT)
    return TableRow(label="Base", cells=[Cell(ours=base, paper=BASE), Cell(), Cell()])


def _row(encoders: Encoders, number: int, row: RowResult) -> TableRow:
    label, group = row.labels[number], "C-SFT" if number == 5 else ""
    if row.not_run is not None:
        return TableRow(label=label, group=group, not_run=row.not_run)
    paper = PAPER[number].get(row.name)
    if number == 5:
        second = encoders.over(MIM, row.name)
        printed = None if paper is None or row.name == MIM else TABLE_5[MIM] - paper
    else:
        second, printed = encoders.gain(row.name), None if paper is None else paper - BASE
    cells = [
        Cell(ours=encoders.auc(row.name), paper=paper),
        Cell(ours=second, paper=printed),
        Cell(ours=encoders.recall(row.name)),
    ]
    return TableRow(label=label, group=group, cells=cells)


def figure_5(encoders: Encoders, foundations: Sequence[tuple[str, str]]) -> Figure:
    """Return Figure 5: AUC of Base+MIM by foundation model.

    Args:
        encoders: Of Tables 3 to 5.
        foundations: What each is called, and the row that it makes.
    """
    points, missing = [], []
    reasons = {row.name: row.not_run for row in encoders.searched.rows}
    for label, row in foundations:
        auc, gain = encoders.auc(row), encoders.gain(row)
        if auc is None:
            missing.append(f"{label} ({reasons.get(row) or 'no time'})")
            continue
        reach = None if gain is None or gain.low is None or gain.high is None else (gain.low, gain.high)
        base = auc.mean - gain.mean if gain is not None else 0.0
        low, high = (None, None) if reach is None else (base + reach[0], base + reach[1])
        points.append(Point(x=label, y=auc.mean, low=low, high=high))
    not_run = f" Not run: {', '.join(missing)}." if missing else ""
    return Figure(
        key="figure 5",
        title="AUC by foundation model",
        kind="bar",
        x_label="foundation models",
        y_label="test AUC",
        series=[Series(name="Base+MIM", points=points)],
        note="Base+MIM after DDA, DMA and C-SFT from each pair of foundation models; intervals are those of the gain "
        f"over Base. The paper: 0.7045 to 0.7050 for the weakest, 0.7062 for the strongest.{not_run}",
        reading=_read_figure_5(points),
    )


def _read_figure_5(points: Sequence[Point]) -> list[str]:
    if len(points) < 2:
        return ["Only one pair of foundation models was run."] if points else []
    best, worst = max(points, key=lambda point: point.y), min(points, key=lambda point: point.y)
    return [f"{best.x} is best, {best.y:.4f}, {worst.x} weakest, {worst.y:.4f}."]


def figure_exchange(encoders: Encoders, further: Mapping[str, str]) -> Figure:
    """Return how the gain in AUC goes with visual search: every encoder a point.

    Args:
        encoders: Of Tables 3 to 5, and others.
        further: What the rows are called that stand in no table of the paper.
    """
    points = []
    for row in encoders.searched.rows:
        recall, gain = encoders.recall(row.name), encoders.gain(row.name)
        if recall is not None and gain is not None:
            label = next(iter(row.labels.values()), None) or further[row.name]
            points.append(Point(x=recall.mean, y=gain.mean, low=gain.low, high=gain.high, label=label))
    return exchange_figure(points)


def exchange_figure(points: Sequence[Point]) -> Figure:
    """Return the figure of :func:`figure_exchange` from its points, an encoder each; by recall."""
    points = sorted(points, key=lambda point: (point.x, point.y, point.label))
    return Figure(
        key=EXCHANGE,
        title="Visual search and AUC",
        kind="scatter",
        x_label="recall@10 of held-out purchases",
        y_label="gain in AUC over Base",
        series=[Series(name="encoders", points=points)],
        note="Does an encoder that finds what was bought also rank better? Every encoder of this report is a point.",
        reading=_read_exchange(points),
    )


def _read_exchange(points: Sequence[Point]) -> list[str]:
    x, y = np.array([point.x for point in points], dtype=float), np.array([point.y for point in points])
    if len(points) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return []
    slope = np.polyfit(x, y, 1)[0]
    share, words = (
        (0.01, "One percentage point") if np.ptp(x) >= 0.01 else (0.001, "A tenth of a percentage point")
    )
    correlation = np.corrcoef(_ranks(x), _ranks(y))[0, 1]
    return [
        f"{words} more recall@10 goes with {signed(slope * share)} AUC (a line through {len(points)} encoders); their "
        f"orders agree with a rank correlation of {signed(correlation, 2)}."
    ]


def _ranks(values: Float[ndarray, "rows"]) -> Float[ndarray, "rows"]:
    """Return the rank of each value; equal ones share the mean of theirs."""
    return (values[:, None] > values).sum(1) + (values[:, None] == values).sum(1) / 2
