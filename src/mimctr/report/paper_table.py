"""A table of a reproduction for a terminal, with what it says and how it was measured."""

from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable

from mimctr.evaluate.paper.schema import Finding, Table
from mimctr.report.table import plain_text
from mimctr.report.units import finding_confidence, write_cell


def plain_table(table: Table) -> str:
    """Return a table as plain text, what it says and its note below."""
    shown = RichTable(box=SIMPLE_HEAD, title=table.title, title_justify="left", pad_edge=False)
    shown.add_column("", no_wrap=True)
    for column in table.columns:
        shown.add_column(column.name, justify="right", no_wrap=True)
    group = ""
    for row in table.rows:
        if row.group != group:
            shown.add_section()
            shown.add_row(row.group)
        group = row.group
        texts = [
            write_cell(cell, column.unit) for cell, column in zip(row.cells, table.columns, strict=False)
        ]
        shown.add_row(row.label, *(texts if row.not_run is None else [f"not run: {row.not_run}"]))
    return "\n".join([plain_text(shown), *table.reading, "", table.note])


def plain_findings(findings: list[Finding]) -> str:
    """Return findings as plain text, a line each."""
    shown = RichTable(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("finding", "here"):
        shown.add_column(name, no_wrap=True)
    shown.add_column("confidence", justify="right", no_wrap=True)
    for one in findings:
        shown.add_row(one.claim, one.verdict, finding_confidence(one))
    return plain_text(shown)
