"""A reproduction as Markdown, and in short for a terminal."""

from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable

from mimctr.evaluate.paper.schema import Reproduction, Table
from mimctr.report.reproduction_page import anchor
from mimctr.report.table import plain_text
from mimctr.report.units import confidence_words, write_cell, write_interval, write_value


def reproduction_markdown(made: Reproduction, *, figures: str = "figures") -> str:
    """Return every table, figure and finding as Markdown.

    Args:
        made: What is written.
        figures: Folder of the figures' files, relative to the text.
    """
    lines = [
        f"# MIM reproduced: {made.dataset}",
        "",
        f"{len(made.seeds)} seeds. In square brackets: the paper's numbers. In round ones: 95 % intervals.",
        "",
        *findings_markdown(made),
    ]
    for table in made.tables:
        lines += ["", *table_markdown(table)]
    for figure in made.figures:
        lines += ["", f"## {figure.key.capitalize()}: {figure.title}", "", *figure.reading]
        lines += [f"![{figure.title}]({figures}/{anchor(figure.key)}.png)", "", figure.note]
    lines += ["", "## What was run", "", f"`{made.command}`"]
    return "\n".join(lines) + "\n"


def findings_markdown(made: Reproduction) -> list[str]:
    """Return the findings as lines of Markdown."""
    lines = [
        "| finding | where | here | difference | confidence | the paper |",
        "|---|---|---|---:|---:|---|",
    ]
    for one in made.findings:
        difference = ""
        if one.difference is not None:
            within = write_interval(one.difference, one.unit)
            difference = write_value(one.difference.mean, one.unit) + (f" ({within})" if within else "")
        cells = (one.claim, one.source, one.verdict, difference, confidence_words(one.confidence), one.paper)
        lines.append(_line(cells))
    return lines


def table_markdown(table: Table) -> list[str]:
    """Return a table as lines of Markdown."""
    heads = ["", *(column.name for column in table.columns)]
    lines = [
        f"## {table.key.capitalize()}: {table.title}",
        "",
        *table.reading,
        *([""] if table.reading else []),
    ]
    lines += [_line(heads), f"|---{'|---:' * len(table.columns)}|"]
    for row in table.rows:
        if row.not_run is not None:
            cells = [f"not run: {row.not_run}", *[""] * (len(table.columns) - 1)]
        else:
            cells = [
                write_cell(cell, column.unit) for cell, column in zip(row.cells, table.columns, strict=True)
            ]
        lines.append(_line([f"{row.group}: {row.label}" if row.group else row.label, *cells]))
    return [*lines, "", table.note]


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def reproduction_summary(made: Reproduction) -> str:
    """Return the findings as plain text for a terminal."""
    table = RichTable(box=SIMPLE_HEAD, pad_edge=False, title=f"MIM on {made.dataset}", title_justify="left")
    for name in ("finding", "where", "here"):
        table.add_column(name, no_wrap=True)
    for name in ("difference", "95 % interval", "confidence"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in made.findings:
        known = one.difference
        difference = "" if known is None else write_value(known.mean, one.unit)
        within = "" if known is None else write_interval(known, one.unit)
        table.add_row(
            one.claim, one.source, one.verdict, difference, within, confidence_words(one.confidence)
        )
    return plain_text(table)
