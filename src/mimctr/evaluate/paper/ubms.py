"""Table 2: user behavior models with and without content, overall and by category."""

from collections.abc import Mapping

from mimctr.evaluate.compare import MIM, Contender
from mimctr.evaluate.encoder_results import alone
from mimctr.evaluate.paper.findings import finding
from mimctr.evaluate.paper.lookup import DEVIATION, NO_CONTENT, Lookup, is_sure
from mimctr.evaluate.paper.numbers import TABLE_2
from mimctr.evaluate.paper.schema import Cell, Column, Finding, Table, TableRow
from mimctr.evaluate.paper.slices import largest_categories
from mimctr.evaluate.results import POOLED
from mimctr.evaluate.written import percent, signed


def table_2(found: Lookup, names: Mapping[str, str], encoder: str) -> Table:
    """Return Table 2: AUC of every user behavior model, without and with content.

    Args:
        found: Of Base and Base+MIM.
        names: How user behavior models are written.
        encoder: Whose vectors Base+MIM reads.
    """
    content = Contender(MIM, encoder)
    rows = []
    for ubm in found.ubms():
        paper = TABLE_2.get(ubm)
        base, mim = found.auc(ubm, NO_CONTENT), found.auc(ubm, content)
        gain = found.difference(ubm, content, NO_CONTENT)
        cells = [
            Cell(ours=base, paper=paper and paper.base),
            Cell(ours=mim, paper=paper and paper.mim),
            Cell(ours=gain, paper=paper and paper.gain),
        ]
        rows.append(TableRow(label=names.get(ubm, ubm), cells=cells))
    pooled = found.difference(POOLED, content, NO_CONTENT)
    if pooled is not None:
        both = [ubm for ubm in found.ubms() if found.difference(ubm, content, NO_CONTENT) is not None]
        printed = [TABLE_2[ubm].gain for ubm in both if ubm in TABLE_2]
        mean_gain = sum(printed) / len(printed) if printed else None
        rows.append(
            TableRow(
                label=names.get(POOLED, POOLED),
                cells=[Cell(), Cell(), Cell(ours=pooled, paper=mean_gain)],
                summary=True,
            )
        )
    ceiling = found.ceiling()
    if ceiling is not None:
        rows.append(
            TableRow(
                label="Ceiling (true probabilities)",
                cells=[Cell(), Cell(ours=alone(ceiling)), Cell()],
                summary=True,
            )
        )
    return Table(
        key="table 2",
        title="User behavior models without and with content",
        columns=[
            Column(name="Base", unit="auc"),
            Column(name="Base+MIM", unit="auc"),
            Column(name="gain", unit="gain"),
        ],
        rows=rows,
        note=f"Test AUC, mean over seeds. {DEVIATION} Gains are paired by seed and user; 95 % intervals over users and "
        "seeds. Base+MIM is exactly Eq. (7) to (9), with Base's settings.",
        reading=_read_table_2(found, names, content),
    )


def _read_table_2(found: Lookup, names: Mapping[str, str], content: Contender) -> list[str]:
    gains = {ubm: found.difference(ubm, content, NO_CONTENT) for ubm in found.ubms()}
    known = {ubm: gain for ubm, gain in gains.items() if gain is not None}
    if not known:
        return []
    sure = [ubm for ubm, gain in known.items() if gain.low is not None and gain.low > 0]
    best = max(known, key=lambda ubm: known[ubm].mean)
    words = [
        f"Content adds to {len(sure)} of {len(known)} user behavior models beyond doubt (the interval is above 0); "
        f"most to {names.get(best, best)}, {signed(known[best].mean)}."
    ]
    pooled, ceiling = found.difference(POOLED, content, NO_CONTENT), found.ceiling()
    bases = [base.mean for base in (found.auc(ubm, NO_CONTENT) for ubm in known) if base is not None]
    way = ceiling - sum(bases) / len(bases) if ceiling is not None and bases else 0.0
    if pooled is not None and pooled.mean > 0 and way > 0:
        share = percent(pooled.mean / way, 0)
        words.append(
            f"Their mean, {signed(pooled.mean)}, is {share} of the way from Base to the ceiling, what a perfect model "
            "would reach."
        )
    return words


def table_2_by_category(found: Lookup, names: Mapping[str, str], encoder: str) -> Table:
    """Return the gain of every user behavior model in every category, the largest categories first."""
    content = Contender(MIM, encoder)
    ubms = found.ubms()
    rows = [
        TableRow(
            label=name.partition(":")[2],
            cells=[
                Cell(text=f"{found.size(name):,}"),
                *(Cell(ours=found.difference(ubm, content, NO_CONTENT, name)) for ubm in ubms),
            ],
        )
        for name in largest_categories(found)
    ]
    return Table(
        key="table 2, by category",
        title="Gain of content by category",
        columns=[
            Column(name="test impressions", unit="text"),
            *(Column(name=names.get(ubm, ubm), unit="gain") for ubm in ubms),
        ],
        rows=rows,
        note="Slices of the same models' predictions, not trainings of their own. The paper gives ranges over seven "
        "categories: +0.0017 to +0.0123 (Avg Pooling), +0.0028 to +0.0062 (DIN), +0.0029 to +0.0063 (DIEN), +0.0035 to "
        "+0.0068 (BST), +0.0023 to +0.0054 (SIM), +0.0009 to +0.0042 (TWIN).",
        reading=_read_categories(rows),
    )


def _read_categories(rows: list[TableRow]) -> list[str]:
    gains = [cell.ours for row in rows for cell in row.cells if cell.ours is not None]
    if not gains:
        return []
    up = sum(gain.mean > 0 for gain in gains)
    sure = sum(gain.mean > 0 and is_sure(gain) for gain in gains)
    return [
        f"Content gains in {up} of the {len(gains)} pairs of a category and a user behavior model, in {sure} of them "
        "beyond doubt."
    ]


def ubm_findings(found: Lookup, names: Mapping[str, str], encoder: str) -> list[Finding]:
    """Return what Table 2 claims."""
    content = Contender(MIM, encoder)
    return [
        finding(
            f"ubm_gains:{ubm}",
            source="Table 2",
            claim=f"Base+MIM beats Base with {names.get(ubm, ubm)}",
            paper=f"{paper.base:.4f} to {paper.mim:.4f}",
            difference=found.difference(ubm, content, NO_CONTENT),
        )
        for ubm, paper in TABLE_2.items()
    ]
