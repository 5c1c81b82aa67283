"""Table 7 and Figure 6: what content gains by category, by item age, and by how often training saw the item."""

from mimctr.evaluate.compare import MIM, Contender
from mimctr.evaluate.encoder_results import Estimate
from mimctr.evaluate.paper.findings import finding
from mimctr.evaluate.paper.lookup import NO_CONTENT, Lookup, combined
from mimctr.evaluate.paper.numbers import ALL_CATEGORIES, TABLE_7
from mimctr.evaluate.paper.schema import Cell, Column, Figure, Finding, Point, Series, Table, TableRow
from mimctr.evaluate.results import POOLED
from mimctr.evaluate.written import signed

CONTENT_SENSITIVE = ("Clothes", "Home Decoration", "Toys")
LESS_SENSITIVE = ("Sports", "Pets", "Cars")
"""The categories whose clicks gained most and least online (Table 7)."""
MOST_CATEGORIES = 20
"""That a table shows; the largest."""


def table_7(found: Lookup, encoder: str) -> Table:
    """Return Table 7's first column: the gain in AUC by category, mean over user behavior models."""
    content = Contender(MIM, encoder)
    rows = [
        TableRow(
            label="All",
            cells=[Cell(ours=found.difference(whom(found), content, NO_CONTENT), paper=ALL_CATEGORIES.auc)],
        )
    ]
    for name in largest_categories(found):
        label = name.partition(":")[2]
        paper = TABLE_7.get(label)
        gain = found.difference(whom(found), content, NO_CONTENT, name)
        rows.append(TableRow(label=label, cells=[Cell(ours=gain, paper=paper and paper.auc)]))
    return Table(
        key="table 7",
        title="Gain by category",
        columns=[Column(name="gain in AUC", unit="gain")],
        rows=rows,
        note="Mean over the user behavior models of Table 2. Clicks and revenue are in the online experiment.",
        reading=_read_table_7(found, content),
    )


def _read_table_7(found: Lookup, content: Contender) -> list[str]:
    gains = {
        name: found.difference(whom(found), content, NO_CONTENT, name) for name in largest_categories(found)
    }
    known = {name.partition(":")[2]: gain.mean for name, gain in gains.items() if gain is not None}
    if len(known) < 2:
        return []
    most, least = max(known, key=lambda name: known[name]), min(known, key=lambda name: known[name])
    return [f"{most} gains most ({signed(known[most])}), {least} least ({signed(known[least])})."]


def figure_6(found: Lookup, encoder: str) -> Figure:
    """Return Figure 6: the gain by item age, S1 newest, mean over user behavior models."""
    return Figure(
        key="figure 6",
        title="Gain by item age",
        kind="bar",
        x_label="items by age, S1 newest",
        y_label="gain in AUC over Base",
        series=[_gains(found, encoder, "age")],
        note="Ten sets of equally many test items; 95 % intervals over users and seeds. The paper's curve has no "
        "numbers; it is highest for S1.",
    )


def figure_support(found: Lookup, encoder: str) -> Figure:
    """Return how AUC and gain depend on how often training has seen the target."""
    content = Contender(MIM, encoder)
    names = ["item:unseen", *found.slices("support")]
    series = []
    for label, contender in (("Base", NO_CONTENT), ("Base+MIM", content)):
        points = []
        for name in names:
            known = [value for value in (found.auc(ubm, contender, name) for ubm in found.ubms()) if value]
            if known:
                mean = sum(value.mean for value in known) / len(known)
                points.append(Point(x=_support(name), y=mean))
        series.append(Series(name=label, points=points))
    return Figure(
        key="data efficiency",
        title="AUC by impressions of the target in training",
        kind="line",
        x_label="training impressions of the target",
        y_label="test AUC",
        series=series,
        note="Mean over user behavior models and seeds. How many impressions an item needs until its ID knows what its "
        "picture told at once: where Base on the right is as high as Base+MIM on the left.",
    )


def slice_findings(found: Lookup, encoder: str) -> list[Finding]:
    """Return what Table 7 and Figure 6 claim."""
    content = Contender(MIM, encoder)
    return [
        finding(
            "newest_gain_most",
            source="Figure 6",
            claim="The newest items (S1) gain more than the oldest (S10)",
            difference=found.difference(whom(found), content, NO_CONTENT, "age:S1", minus="age:S10"),
        ),
        finding(
            "unseen_gain_more",
            source="Figure 6",
            claim="Items that training has not seen gain more than those it has",
            difference=found.difference(whom(found), content, NO_CONTENT, "item:unseen", minus="item:seen"),
        ),
        finding(
            "sensitive_categories_gain_most",
            source="Table 7",
            claim=f"{', '.join(CONTENT_SENSITIVE)} gain more than {', '.join(LESS_SENSITIVE)}",
            paper="clicks +4.4 to +8.7 % against +2.5 to +3.5 %",
            difference=_by_sensitivity(found, content),
        ),
    ]


def largest_categories(found: Lookup) -> list[str]:
    """Return the slices of the largest categories."""
    return sorted(found.slices("category"), key=lambda name: -found.size(name))[:MOST_CATEGORIES]


def whom(found: Lookup) -> str:
    """Return ``pooled`` where there are several user behavior models, else the one that there is."""
    ubms = found.ubms()
    return POOLED if len(ubms) > 1 else ubms[0]


def _by_sensitivity(found: Lookup, content: Contender) -> Estimate | None:
    """Return the mean gain of the sensitive categories minus that of the others, as if slices were independent."""
    parts = []
    for group, sign in ((CONTENT_SENSITIVE, 1), (LESS_SENSITIVE, -1)):
        for name in group:
            gain = found.difference(whom(found), content, NO_CONTENT, f"category:{name}")
            if gain is None:
                return None
            parts.append((sign / len(group), gain))
    return combined(parts)


def _support(name: str) -> str:
    return "0" if name == "item:unseen" else name.partition(":")[2]


def _gains(found: Lookup, encoder: str, kind: str) -> Series:
    points = []
    for name in found.slices(kind):
        gain = found.difference(whom(found), Contender(MIM, encoder), NO_CONTENT, name)
        if gain is not None:
            points.append(Point(x=name.partition(":")[2], y=gain.mean, low=gain.low, high=gain.high))
    return Series(name="Base+MIM over Base", points=points)
