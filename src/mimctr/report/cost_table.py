"""The paper's Table 6 for a terminal: training, inference, a line for each side, ours with the paper's in brackets."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable

from mimctr.evaluate.paper.schema import Cell, Table, Unit
from mimctr.report.table import plain_text
from mimctr.report.units import write_value


def plain_cost_table(tables: Sequence[Table]) -> str:
    """Return both halves as plain text, what they say and how it was measured below."""
    shown = [plain_text(_rich(table)) for table in tables]
    notes = [table.note for table in tables if table.note]
    return "\n".join([*shown, *notes, *(sentence for table in tables for sentence in table.reading)])


def _rich(table: Table) -> RichTable:
    shown = RichTable(
        box=SIMPLE_HEAD,
        title=f"{table.title} (paper's in brackets)",
        title_justify="left",
        pad_edge=False,
    )
    shown.add_column("", no_wrap=True)
    for column in table.columns:
        shown.add_column(column.name, justify="right", no_wrap=True)
    group = ""
    for row in table.rows:
        if row.group != group:
            shown.add_section()
            shown.add_row(row.group)
        group = row.group
        units = [column.unit for column in table.columns]
        texts = [_text(cell, unit) for cell, unit in zip(row.cells, units, strict=True)] if row.cells else []
        shown.add_row(row.label, *(texts if texts else [row.not_run or ""]))
    return shown


def _text(cell: Cell, unit: Unit) -> str:
    ours = "" if cell.ours is None else write_value(cell.ours.mean, unit)
    return ours if cell.paper is None else f"{ours} ({write_value(cell.paper, unit)})"
