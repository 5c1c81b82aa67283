"""The paper's Table 6 for a terminal: a line for each side and mode, ours with the paper's in brackets."""

from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable

from mimctr.evaluate.paper.schema import Cell, Table, Unit
from mimctr.evaluate.written import memory
from mimctr.report.table import plain_text


def plain_cost_table(table: Table) -> str:
    """Return the table as plain text, its note and what it says below."""
    half = len(table.columns) // 2
    texts = [plain_text(_rich(table, slice(first, first + half))) for first in (0, half)]
    return "\n".join([*texts, table.note, *table.reading])


def _rich(table: Table, part: slice) -> RichTable:
    shown = RichTable(
        box=SIMPLE_HEAD,
        title=f"{table.title} (paper's in brackets)",
        title_justify="left",
        pad_edge=False,
    )
    shown.add_column("", no_wrap=True)
    for column in table.columns[part]:
        shown.add_column(column.name, justify="right", no_wrap=True)
    group = ""
    for row in table.rows:
        if row.group != group:
            shown.add_section()
            shown.add_row(row.group)
        group = row.group
        units = [column.unit for column in table.columns]
        texts = [_text(cell, unit) for cell, unit in zip(row.cells, units, strict=True)] if row.cells else []
        shown.add_row(row.label, *(texts[part] if texts else [row.not_run or ""]))
    return shown


def _text(cell: Cell, unit: Unit) -> str:
    ours = "" if cell.ours is None else _number(cell.ours.mean, unit)
    return ours if cell.paper is None else f"{ours} ({_number(cell.paper, unit)})"


def _number(value: float, unit: Unit) -> str:
    if unit == "bytes":
        return memory(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
