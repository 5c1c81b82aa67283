"""Table 7 and Figure 6: what content gains by category, by item age, and by how often training shows the item."""

from collections.abc import Sequence

from mimctr.evaluate.compare import MIM, Contender
from mimctr.evaluate.contrasts import BY_SENSITIVITY, CATEGORY, CONTENT_SENSITIVE, LESS_SENSITIVE
from mimctr.evaluate.online import Change
from mimctr.evaluate.paper.findings import finding
from mimctr.evaluate.paper.lookup import NO_CONTENT, Lookup, is_sure
from mimctr.evaluate.paper.numbers import ALL_CATEGORIES, TABLE_7
from mimctr.evaluate.paper.schema import Cell, Column, Figure, Finding, Point, Series, Table, TableRow
from mimctr.evaluate.results import POOLED, Comparison
from mimctr.evaluate.written import signed

FEWEST_IMPRESSIONS = 500
"""Test impressions of a place on the axis of support: of fewer an AUC is mostly chance."""
MOST_CATEGORIES = 20
"""That a table shows; the largest."""
PAPERS_GROUPS = (BY_SENSITIVITY.name, str(BY_SENSITIVITY.minus_name))
"""Slices that the paper's numbers are about."""


def table_7(found: Lookup, encoder: str) -> Table:
    """Return Table 7's first column: the gain in AUC by category, mean over user behavior models."""
    content = Contender(MIM, encoder)
    rows = [
        TableRow(
            label="All",
            cells=[
                Cell(
                    ours=found.difference(whom(found, content), content, NO_CONTENT), paper=ALL_CATEGORIES.auc
                )
            ],
            summary=True,
        )
    ]
    for name in largest_categories(found):
        label = name.partition(":")[2]
        paper = TABLE_7.get(label)
        gain = found.difference(whom(found, content), content, NO_CONTENT, name)
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
        name: found.difference(whom(found, content), content, NO_CONTENT, name)
        for name in largest_categories(found)
    }
    known = {name.partition(":")[2]: gain.mean for name, gain in gains.items() if gain is not None}
    if len(known) < 2:
        return []
    most, least = max(known, key=lambda name: known[name]), min(known, key=lambda name: known[name])
    return [f"{most} gains most ({signed(known[most])}), {least} least ({signed(known[least])})."]


def figure_6(found: Lookup, encoder: str) -> Figure:
    """Return Figure 6: the gain by item age, S1 newest, mean over user behavior models."""
    points = _gains(found, Contender(MIM, encoder), found.slices("age"))
    return Figure(
        key="figure 6",
        title="Gain by item age",
        kind="bar",
        x_label="items by age, S1 newest",
        y_label="gain in AUC over Base",
        series=[Series(name="Base+MIM over Base", points=points)],
        note=f"{len(points)} sets of equally many test items; 95 % intervals over users and seeds. The paper's curve "
        "has no numbers; it is highest for S1.",
        reading=_read_figure_6(points),
    )


def _read_figure_6(points: list[Point]) -> list[str]:
    if len(points) < 2:
        return []
    most, least = max(points, key=lambda point: point.y), min(points, key=lambda point: point.y)
    newest = points[0]
    words = f"{most.x} gains most, {signed(most.y)}, {least.x} least, {signed(least.y)}"
    others = newest.x not in (most.x, least.x)
    return [f"{words}; the newest items, {newest.x}, {signed(newest.y)}." if others else f"{words}."]


def figure_support(found: Lookup, encoder: str) -> Figure:
    """Return how the gain depends on how often training shows the target, as target or behavior."""
    points = [
        point.model_copy(update={"x": _support(name)})
        for name in _support_slices(found)
        for point in _gains(found, Contender(MIM, encoder), [name])
    ]
    return Figure(
        key="gain by support",
        title="Gain by how often training shows the item",
        kind="bar",
        x_label="times that training shows the item, as target or behavior",
        y_label="gain in AUC over Base",
        series=[Series(name="Base+MIM over Base", points=points)],
        note="Mean over user behavior models and seeds, 95 % intervals over users and seeds. "
        f"{_sizes(found)}",
        reading=_read_support(points),
    )


def figure_support_auc(found: Lookup, encoder: str) -> Figure:
    """Return how AUC depends on how often training shows the target, beside the ceiling where that is known."""
    content = Contender(MIM, encoder)
    names = _support_slices(found)
    contenders = {"Base": NO_CONTENT, "Base+MIM": content}
    lines = {label: _mean_aucs(found, content, one, names) for label, one in contenders.items()}
    ceilings = {name: found.ceiling(name) for name in names}
    lines["ceiling"] = [Point(x=_support(name), y=auc) for name, auc in ceilings.items() if auc is not None]
    return Figure(
        key="data efficiency",
        title="AUC by how often training shows the item",
        kind="line",
        x_label="times that training shows the item, as target or behavior",
        y_label="test AUC",
        series=[Series(name=label, points=points) for label, points in lines.items() if points],
        note="Mean over user behavior models and seeds. Each place has other items, some easier to rank (the ceiling "
        "shows it where it is known): a line compares places only roughly. What lies between the lines is the gain. "
        f"{_sizes(found)}",
        reading=_read_support_auc(lines["Base"], lines["Base+MIM"]),
    )


def _mean_aucs(found: Lookup, content: Contender, contender: Contender, names: list[str]) -> list[Point]:
    """Return the AUC of a contender on every slice, mean over the user behavior models that were compared."""
    points = []
    for name in names:
        aucs = [found.auc(ubm, contender, name) for ubm in _compared(found, content)]
        known = [auc.mean for auc in aucs if auc is not None]
        if known:
            points.append(Point(x=_support(name), y=sum(known) / len(known)))
    return points


def _support_slices(found: Lookup) -> list[str]:
    """Return the slices by support that are large enough for an AUC to mean something."""
    return [name for name in _all_support(found) if found.size(name) >= FEWEST_IMPRESSIONS]


def _all_support(found: Lookup) -> list[str]:
    return [name for name in ("item:unseen", *found.slices("support")) if found.size(name)]


def _sizes(found: Lookup) -> str:
    """Return how many test impressions each place has, and which have too few."""
    told = {name: f"{found.size(name):,} on {_support(name)}" for name in _all_support(found)}
    shown = _support_slices(found)
    few = ", ".join(text for name, text in told.items() if name not in shown)
    sizes = ", ".join(told[name] for name in shown)
    return f"Test impressions: {sizes}.{f' Left out as too few: {few}.' if few else ''}"


def _read_support_auc(base: Sequence[Point], mim: Sequence[Point]) -> list[str]:
    if len(base) < 2 or len(base) != len(mim) or base[0].x != "0":
        return []
    reached = next((point.x for point in base if point.y >= mim[0].y), None)
    new = f"On items that training has never shown, as target or behavior, Base+MIM reaches {mim[0].y:.4f}"
    if reached is None:
        return [f"{new}, more than Base on items however often shown."]
    return [f"{new}; Base gets there on items shown {reached} times."]


def _read_support(points: list[Point]) -> list[str]:
    by_place = {point.x: point for point in points}
    last = points[-1] if points else None
    if last is None or "0" not in by_place or last.x == "0":
        return []
    new, known = ("" if is_sure(point) else " (not told from 0)" for point in (by_place["0"], last))
    return [
        f"Content adds {signed(by_place['0'].y)} AUC{new} on items that training has never shown, as target or "
        f"behavior, and {signed(last.y)}{known} on those that it has shown {last.x} times."
    ]


def table_7_findings(found: Lookup, encoder: str) -> list[Finding]:
    """Return what Table 7 claims."""
    content = Contender(MIM, encoder)
    groups = first, second = contrasted_groups(found.results.comparisons)
    printed = [
        sum(TABLE_7[name].auc for name in group) / len(group) for group in (CONTENT_SENSITIVE, LESS_SENSITIVE)
    ]
    ours = groups != PAPERS_GROUPS
    return [
        finding(
            "sensitive_categories_gain_most",
            source="Table 7",
            claim=f"{first.removeprefix(CATEGORY)} gain more than {second.removeprefix(CATEGORY)}",
            paper="" if ours else " against ".join(f"{signed(mean)}" for mean in printed),
            difference=found.difference(whom(found, content), content, NO_CONTENT, first, minus=second),
            ours=ours,
        )
    ]


def contrasted_groups(records: Sequence[Comparison] | Sequence[Change]) -> tuple[str, str]:
    """Return the two groups of categories that were contrasted; the paper's where none were."""
    for one in records:
        if one.minus_slice is not None and one.slice.startswith(CATEGORY):
            return one.slice, one.minus_slice
    return PAPERS_GROUPS


def figure_6_findings(found: Lookup, encoder: str) -> list[Finding]:
    """Return what Figure 6 claims, and the same of items that training has seen or not."""
    content = Contender(MIM, encoder)
    ages = found.slices("age")
    oldest = ages[-1] if ages else "age:"
    return [
        finding(
            "newest_gain_most",
            source="Figure 6",
            claim=f"The newest items (S1) gain more than the oldest ({oldest.partition(':')[2]})",
            paper="a curve without numbers, highest for S1",
            difference=found.difference(whom(found, content), content, NO_CONTENT, "age:S1", minus=oldest),
        ),
        finding(
            "unseen_gain_more",
            source="Figure 6",
            claim="Items that training has not seen gain more than those it has",
            difference=found.difference(
                whom(found, content), content, NO_CONTENT, "item:unseen", minus="item:seen"
            ),
            ours=True,
        ),
    ]


def largest_categories(found: Lookup) -> list[str]:
    """Return the slices of the largest categories."""
    return sorted(found.slices("category"), key=lambda name: -found.size(name))[:MOST_CATEGORIES]


def whom(found: Lookup, content: Contender) -> str:
    """Return whose gain stands for all: ``pooled`` where several user behavior models were compared, else the one."""
    compared = _compared(found, content)
    return compared[0] if len(compared) == 1 else POOLED


def _compared(found: Lookup, content: Contender) -> list[str]:
    """Return the user behavior models that there are without and with content."""
    return [ubm for ubm in found.ubms() if found.difference(ubm, content, NO_CONTENT) is not None]


def _support(name: str) -> str:
    return "0" if name == "item:unseen" else name.partition(":")[2]


def _gains(found: Lookup, content: Contender, names: list[str]) -> list[Point]:
    points = []
    for name in names:
        gain = found.difference(whom(found, content), content, NO_CONTENT, name)
        if gain is not None:
            points.append(Point(x=name.partition(":")[2], y=gain.mean, low=gain.low, high=gain.high))
    return points
