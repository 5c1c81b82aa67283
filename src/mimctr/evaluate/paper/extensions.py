"""Beyond the paper: what each extension adds to Base+MIM, and what more purchase pairs add to C-SFT."""

from collections.abc import Sequence

from mimctr.evaluate.compare import MIM, MIM_PLUS, Contender
from mimctr.evaluate.paper.encoders import Encoders
from mimctr.evaluate.paper.lookup import NO_CONTENT, Lookup
from mimctr.evaluate.paper.schema import Cell, Column, Figure, Point, Series, Table, TableRow
from mimctr.evaluate.variants import labeled


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
        rows.append(TableRow(label=f"+ {label}" if label else "MIM+ (the recipe's)", cells=cells))
    return Table(
        key="extensions",
        title="Extensions of Base+MIM",
        columns=[
            Column(name="test AUC", unit="auc"),
            Column(name="over Base", unit="gain"),
            Column(name="over Base+MIM", unit="gain"),
        ],
        rows=rows,
        note=f"{ubm.upper()}; Base+MIM and one thing more. SimTier: histogram of cosines (2407.19467); search by "
        "content and MUSE attention: 2512.07216; docs/departures.md.",
    )


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
    )
