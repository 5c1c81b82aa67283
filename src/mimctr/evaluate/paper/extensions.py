"""Beyond the paper: what each extension adds to Base+MIM, and what more purchase pairs add to C-SFT."""

from collections.abc import Sequence

from mimctr.evaluate.compare import MIM, MIM_PLUS, Contender
from mimctr.evaluate.paper.encoders import Encoders
from mimctr.evaluate.paper.lookup import DEVIATION, NO_CONTENT, Lookup, is_sure
from mimctr.evaluate.paper.schema import Cell, Column, Figure, Point, Series, Table, TableRow
from mimctr.evaluate.variants import labeled
from mimctr.evaluate.written import percent, signed

WHOLE = "MIM+ (the recipe's)"
"""Label of the row with all extensions."""


def table_extensions(found: Lookup, ubm: str, labels: Sequence[str]) -> Table:
    """Return what MIM+ gains with one extension, and with all.

    Args:
        found: Of Base, Base+MIM and MIM+.
        ubm: The user behavior model.
        labels: Of the extensions.
    """
    whole = Contender(MIM, MIM)
    rows = [
        TableRow(
            label="Base+MIM",
            cells=[
                Cell(ours=found.auc(ubm, whole)),
                Cell(ours=found.difference(ubm, whole, NO_CONTENT)),
                Cell(),
            ],
        )
    ]
    for label in (*labels, ""):
        other = Contender(labeled(MIM_PLUS, label), MIM)
        cells = [
            Cell(ours=found.auc(ubm, other)),
            Cell(ours=found.difference(ubm, other, NO_CONTENT)),
            Cell(ours=found.difference(ubm, other, whole)),
        ]
        rows.append(TableRow(label=f"+ {label}" if label else WHOLE, cells=cells))
    return Table(
        key="extensions",
        title="Extensions of Base+MIM",
        columns=[
            Column(name="test AUC", unit="auc"),
            Column(name="over Base", unit="gain"),
            Column(name="over Base+MIM", unit="gain"),
        ],
        rows=rows,
        note=f"{ubm.upper()}; Base+MIM and one thing more. Scalars: mean and largest cosine of target and behaviors, "
        "and their number. SimTier: a histogram of the cosines (arXiv 2407.19467). Softmax: interests weighted by the "
        "cosines' softmax. Query: cosines of the query's vector with target and behaviors. Target vector: itself, "
        "projected. Search by content and MUSE attention: arXiv 2512.07216. More in docs/departures.md. "
        f"{DEVIATION} 95 % intervals over users and seeds.",
        reading=_read_extensions(rows[1:]),
    )


def _read_extensions(rows: Sequence[TableRow]) -> list[str]:
    added = {row.label: row.cells[2].ours for row in rows}
    known = {label: gain for label, gain in added.items() if gain is not None}
    single = {label.removeprefix("+ "): gain for label, gain in known.items() if label.startswith("+ ")}
    sentences = []
    if single:
        best = max(single, key=lambda name: single[name].mean)
        sure = [name for name, gain in single.items() if is_sure(gain) and gain.mean > 0]
        sentences.append(
            f"Of single extensions {best} adds most, {signed(single[best].mean)}. Beyond doubt: "
            f"{', '.join(sure) if sure else 'none'}."
        )
    if WHOLE in known:
        sentences.append(f"Together they add {signed(known[WHOLE].mean)}.")
    return sentences


def figure_pairs(encoders: Encoders, shares: Sequence[tuple[float, str]]) -> Figure:
    """Return how the gain grows with purchase pairs.

    Args:
        encoders: With a row for each share.
        shares: Of the training pairs, 0 to 1, and the row; 0 is the encoder without C-SFT.
    """
    points = []
    for share, row in shares:
        gain = encoders.gain(row)
        if gain is not None:
            points.append(Point(x=share, y=gain.mean, low=gain.low, high=gain.high))
    return Figure(
        key="pairs",
        title="Gain by number of purchase pairs",
        kind="line",
        x_label="share of the training pairs that C-SFT sees",
        y_label="gain in AUC over Base",
        series=[Series(name="Base+MIM", points=points)],
        note="C-SFT with as many steps each time, on a part of the pairs; at 0 the vectors after DDA and DMA.",
        reading=_read_pairs(points),
    )


def _read_pairs(points: Sequence[Point]) -> list[str]:
    whole = next((point for point in points if point.x == 1), None)
    parts = [point for point in points if isinstance(point.x, float) and 0 < point.x < 1]
    if whole is None or not parts:
        return []
    told = ", ".join(f"{signed(point.y)} with {percent(float(point.x), 0)}" for point in parts)
    return [f"The gain is {told} of the pairs, {signed(whole.y)} with all."]
