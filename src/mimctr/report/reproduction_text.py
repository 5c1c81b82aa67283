"""A reproduction as Markdown, and in short for a terminal."""

import itertools
from collections import Counter
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable

from mimctr.evaluate.paper.schema import Figure, Finding, Gallery, Part, Reproduction, Table
from mimctr.evaluate.written import duration
from mimctr.report.markdown import escaped, head_of_table, line_of_table, paragraph
from mimctr.report.reproduction_page import VERDICTS, section_places, split_findings, total_seconds, warnings
from mimctr.report.table import plain_text
from mimctr.report.units import (
    finding_confidence,
    finding_difference,
    finding_interval,
    write_cell,
)
from mimctr.report.wording import capitalized, counted, machine_words
from mimctr.report.words import WORDS

SHOWN = "table 2"
"""The table that a terminal gets."""
MOST_OF_A_CLAIM = 72
"""Letters of a finding in one line of a terminal."""


def reproduction_markdown(made: Reproduction, *, figures: str = "figures") -> str:
    """Return every table, figure, finding and picture as Markdown.

    Args:
        made: What is written.
        figures: Folder of the figures' files, relative to the text.
    """
    blocks = [f"# The paper's evaluation of MIM on {escaped(made.dataset)}", *_opening(made)]
    for table in made.tables:
        blocks += table_markdown(table, level=2)
    places = section_places(made)
    for figure in made.figures:
        blocks += _figure(figure, f"{figures}/{places['figure', figure.key]}.png")
    for gallery in made.galleries:
        blocks += _gallery(gallery)
    words = "\n".join(f"- **{escaped(word)}**: {escaped(meaning)}." for word, meaning in WORDS)
    return "\n\n".join([*blocks, "## Words", words, *_run(made)]) + "\n"


def reproduction_block(made: Reproduction) -> str:
    """Return findings and tables as a part of another Markdown text, one level below its sections."""
    blocks = _opening(made)
    for table in made.tables:
        blocks += table_markdown(table, level=3)
    return "\n\n".join([*blocks, f"`{made.command}`"])


def findings_markdown(findings: Sequence[Finding]) -> str:
    """Return findings as a table of Markdown."""
    heads = ("finding", "here", "confidence", "difference", "where", "the paper")
    lines = head_of_table(heads, numbers=(False, False, True, True, False, False))
    for one in findings:
        cells = (
            f"{one.claim}. {one.note}" if one.note else one.claim,
            one.verdict,
            finding_confidence(one),
            _difference(one),
            one.source,
            one.paper,
        )
        lines.append(line_of_table([escaped(cell) for cell in cells]))
    return "\n".join(lines)


def table_markdown(table: Table, *, level: int) -> list[str]:
    """Return a table as blocks of Markdown: its heading, what it says, the table, how it was measured."""
    grouped = any(row.group for row in table.rows)
    names = [*([""] if grouped else []), "", *(escaped(column.name) for column in table.columns)]
    words = len(names) - len(table.columns)
    lines = head_of_table(names, numbers=[place >= words for place in range(len(names))])
    for row in table.rows:
        if row.not_run is not None:
            cells = [f"not run: {row.not_run}", *[""] * (len(table.columns) - 1)]
        else:
            cells = [
                write_cell(cell, column.unit) for cell, column in zip(row.cells, table.columns, strict=True)
            ]
        opening = [row.group, row.label] if grouped else [row.label]
        lines.append(line_of_table([escaped(text) for text in [*opening, *cells]]))
    notes = [f"{capitalized(column.name)}: {column.note}." for column in table.columns if column.note]
    return [
        f"{'#' * level} {escaped(capitalized(table.key))}: {escaped(table.title)}",
        *(paragraph(sentence) for sentence in table.reading),
        "\n".join(lines),
        *([paragraph(" ".join(filter(None, [table.note, *notes])))] if table.note or notes else []),
    ]


def _opening(made: Reproduction) -> list[str]:
    claims, checks = split_findings(made.findings)
    verdicts = Counter(one.verdict for one in claims)
    tally = ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in VERDICTS)
    blocks = [
        f"{counted(len(made.seeds), 'seed')}. Of {counted(len(claims), 'finding')} of the paper: {tally}. "
        "In round brackets: 95 % intervals. In square ones: the paper's numbers."
    ]
    blocks += [*map(paragraph, warnings(made)), findings_markdown(claims)]
    return [*blocks, "Checks of our own:", findings_markdown(checks)] if checks else blocks


def _figure(figure: Figure, file: str) -> list[str]:
    return [
        f"## {escaped(capitalized(figure.key))}: {escaped(figure.title)}",
        *(paragraph(sentence) for sentence in figure.reading),
        f"![{escaped(figure.title)}]({file})",
        *([paragraph(figure.note)] if figure.note else []),
    ]


def _gallery(gallery: Gallery) -> list[str]:
    blocks = [f"## {escaped(gallery.title)}", *([paragraph(gallery.note)] if gallery.note else [])]
    for sheet in gallery.sheets:
        blocks.append(f"![{escaped(sheet.title)}](<{sheet.file}>)")
        blocks.append(f"**{escaped(sheet.title)}.** {escaped(sheet.caption)}")
    return blocks


def _run(made: Reproduction) -> list[str]:
    done = [step for step in made.steps if step.not_run is None]
    left = Counter(step.not_run for step in made.steps if step.not_run is not None)
    return [
        "## What was run",
        f"`{made.command}`",
        f"{len(done)} of {counted(len(made.steps), 'step')} made, {duration(total_seconds(made))} in all"
        + ("." if made.parts else f", on {_where(made)}"),
        *(f"Not run: {counted(count, 'step')}, {escaped(reason)}." for reason, count in left.items()),
        *(
            f"{', '.join(part.shows)}: `{part.command}`, {duration(part.seconds)} on {_where(part)}"
            for part in made.parts
        ),
    ]


def _where(made: Reproduction | Part) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in made.versions.items())
    return f"{escaped(machine_words(made.machine))}, {escaped(made.machine.system)}; {versions}."


def _difference(one: Finding) -> str:
    within = finding_interval(one)
    return finding_difference(one) + (f" ({within})" if within else "")


def reproduction_summary(made: Reproduction) -> str:
    """Return the findings, and Table 2 where it was asked for, as plain text for a terminal."""
    tables = [_rich_table(table) for table in made.tables if table.key == SHOWN]
    text = plain_text(*tables, _rich_findings(made))
    return "\n".join([text, *warnings(made)])


def _rich_findings(made: Reproduction) -> RichTable:
    title = f"MIM on {made.dataset}: what held"
    table = RichTable(box=SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    table.add_column("Finding", max_width=MOST_OF_A_CLAIM)
    for name in ("Where", "Here"):
        table.add_column(name, no_wrap=True)
    for name in ("confidence", "difference", "95 % interval"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in itertools.chain(*split_findings(made.findings)):
        source = "(our check)" if one.ours else one.source
        cells = (
            one.claim,
            source,
            one.verdict,
            finding_confidence(one),
            finding_difference(one),
            finding_interval(one),
        )
        table.add_row(*cells)
    return table


def _rich_table(table: Table) -> RichTable:
    title = f"{capitalized(table.key)}: {table.title}"
    shown = RichTable(box=SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    shown.add_column("", no_wrap=True)
    for column in table.columns:
        shown.add_column(column.name, justify="right", no_wrap=True)
    for row in table.rows:
        label = f"{row.group}: {row.label}" if row.group else row.label
        if row.not_run is not None:
            shown.add_row(label, f"not run: {row.not_run}")
        else:
            cells = zip(row.cells, table.columns, strict=True)
            shown.add_row(label, *(write_cell(cell, column.unit) for cell, column in cells))
    return shown
