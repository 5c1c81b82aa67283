"""The table of Base and Base+MIM per UBM, for terminals and for Markdown."""

import io

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from mimctr.evaluate.results import Results
from mimctr.evaluate.written import interval, percent, plus_minus, signed
from mimctr.report.summary import Cell, Summary
from mimctr.report.wording import SHORT_NAMES, ubm_name

WIDEST = 200
"""Far beyond what the table needs: nothing is ever cut off."""


def results_table(results: Results) -> str:
    """Return the main table as plain text, about 100 characters wide.

    One row per UBM and variant: the test AUC (mean ± standard deviation over seeds) and its gain over Base, on all
    items, on the newest and on those unseen in training; the ceiling below, where it is known. Then, where it was
    measured, a row per model with content: what shuffled vectors cost it, and how many targets and behaviors have one.
    """
    return plain_text(rich_table(results), *([rich_content_table(results)] if results.content_use else []))


def plain_text(*tables: Table) -> str:
    """Return tables as plain text, one below the other; their texts stand as they are, brackets and colons too."""
    text = io.StringIO()
    console = Console(
        file=text, width=WIDEST, color_system=None, legacy_windows=False, markup=False, emoji=False
    )
    for table in tables:
        console.print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def rich_table(results: Results) -> Table:
    """Return the main table for a rich console."""
    summary = Summary(results)
    table = Table(
        box=SIMPLE_HEAD, title=f"Test AUC, {results.dataset.name}", title_justify="left", pad_edge=False
    )
    table.add_column("UBM", no_wrap=True)
    table.add_column("Model", no_wrap=True)
    for name in summary.table_slices:
        table.add_column(SHORT_NAMES[name], justify="right", no_wrap=True)
        table.add_column("gain", justify="right", no_wrap=True)
    before = None
    for row in summary.table():
        if before is not None and row.ubm != before:
            table.add_section()
        ubm = ubm_name(row.ubm) if row.ubm != before else ""
        table.add_row(ubm, row.label, *(text for cell in row.cells for text in _texts(cell)))
        before = row.ubm
    if summary.ceiling(summary.table_slices[0]) is not None:
        table.add_section()
        table.add_row(
            "", "Ceiling", *(text for name in summary.table_slices for text in (_ceiling(summary, name), ""))
        )
    return table


def rich_content_table(results: Results) -> Table:
    """Return what shuffled vectors cost each model with content, for a rich console."""
    table = Table(
        box=SIMPLE_HEAD,
        title="Are content vectors used? What the AUC loses when they are shuffled within category",
        title_justify="left",
        pad_edge=False,
    )
    table.add_column("UBM", no_wrap=True)
    table.add_column("Model", no_wrap=True)
    for name in ("AUC lost", "95 % interval", "targets with a vector", "behaviors with a vector"):
        table.add_column(name, justify="right", no_wrap=True)
    for line in Summary(results).content_lines():
        use = line.use
        table.add_row(
            ubm_name(line.ubm),
            line.label,
            plus_minus(use.drop, use.sd),
            interval(use.low, use.high),
            percent(line.targets),
            percent(line.behaviors),
        )
    return table


def results_markdown(results: Results) -> str:
    """Return the main table as Markdown."""
    summary = Summary(results)
    heads = [text for name in summary.table_slices for text in (SHORT_NAMES[name], "gain")]
    lines = [
        f"| UBM | Model | {' | '.join(heads)} |",
        f"|---|---|{'---:|' * len(heads)}",
    ]
    for row in summary.table():
        cells = [text for cell in row.cells for text in _texts(cell)]
        lines.append(f"| {' | '.join([ubm_name(row.ubm), row.label, *cells])} |")
    if summary.ceiling(summary.table_slices[0]) is not None:
        cells = [text for name in summary.table_slices for text in (_ceiling(summary, name), "")]
        lines.append(f"| {' | '.join(['', 'Ceiling', *cells])} |")
    return "\n".join(lines)


def _texts(cell: Cell) -> tuple[str, str]:
    auc = plus_minus(cell.auc.mean, cell.auc.sd) if cell.auc else ""
    return auc, signed(cell.gain.difference) if cell.gain else ""


def _ceiling(summary: Summary, name: str) -> str:
    value = summary.ceiling(name)
    return "" if value is None else f"{value:.4f}"
