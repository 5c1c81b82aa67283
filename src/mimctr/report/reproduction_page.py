"""reproduction.json and its pictures -> one HTML page that needs nothing else."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from mimctr.evaluate import written
from mimctr.evaluate.paper.schema import Cell, Column, Finding, Reproduction, Verdict
from mimctr.report import units, wording
from mimctr.report.interval_marks import interval_marks
from mimctr.report.page import data_address
from mimctr.report.reproduction_plots import plot
from mimctr.report.words import ONE_SEED, TWO_PRECISIONS, WORDS, lacking_words

VERDICTS: tuple[Verdict, ...] = ("held", "undecided", "not held", "not run")
"""In the order in which they are counted and sorted."""


def render_reproduction(reproduction: Reproduction, pictures: Path) -> str:
    """Return the report as HTML: style, script, plots and pictures inside, no address of anything outside.

    Args:
        reproduction: What is shown.
        pictures: Folder that the files of its galleries are relative to.

    Raises:
        RunError: a picture is missing, or neither PNG nor JPEG.
    """
    environment = Environment(
        loader=PackageLoader("mimctr.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=keep_percent,
    )
    environment.filters.update(
        anchor=anchor,
        duration=written.duration,
        machine=wording.machine_words,
        sentence=wording.capitalized,
        short=units.write_point,
    )
    claims, checks = split_findings(reproduction.findings)
    verdicts = Counter(finding.verdict for finding in claims)
    places = section_places(reproduction)
    return environment.get_template("reproduction.html.jinja").render(
        made=reproduction,
        claims=claims,
        checks=checks,
        warnings=warnings(reproduction),
        words=WORDS,
        verdicts=[(verdict, verdicts[verdict]) for verdict in VERDICTS],
        order={verdict: place for place, verdict in enumerate(VERDICTS)},
        places=places,
        marks=interval_marks(reproduction.findings),
        plots={
            figure.key: plot(figure, name=f"plot-{places['figure', figure.key]}")
            for figure in reproduction.figures
        },
        galleries=[
            (gallery, [(sheet, data_address(pictures / sheet.file)) for sheet in gallery.sheets])
            for gallery in reproduction.galleries
        ],
        seconds=total_seconds(reproduction),
        left=Counter(step.not_run for step in reproduction.steps if step.not_run is not None),
        notes=column_notes(reproduction),
        sort_value=sort_value,
        units=units,
    )


def split_findings(findings: Sequence[Finding]) -> tuple[list[Finding], list[Finding]]:
    """Return what the paper claims, and the checks of our own."""
    return [one for one in findings if not one.ours], [one for one in findings if one.ours]


def warnings(reproduction: Reproduction) -> list[str]:
    """Return what has to be known before anything else: one seed, encoders that are not the same, what is lacking."""
    parts = reproduction.parts
    one_seed = ONE_SEED if len(reproduction.seeds) == 1 else ""
    two_precisions = TWO_PRECISIONS if len({part.machine.has_bfloat16 for part in parts}) > 1 else ""
    lacking = lacking_words(reproduction.lacking, joined=bool(parts))
    return [text for text in (one_seed, two_precisions, lacking) if text]


def total_seconds(reproduction: Reproduction) -> float:
    """Return what all steps took; what several parts needed counts for each of them."""
    parts = [part.seconds for part in reproduction.parts]
    return sum(parts or [step.seconds or 0.0 for step in reproduction.steps])


def keep_percent(value: object) -> object:
    """Return what a template shows with a space before every percent sign at which no line ends."""
    return value.replace(" %", "\N{NO-BREAK SPACE}%") if isinstance(value, str) else value


def anchor(key: str) -> str:
    """Return a key as the name of a place on the page: ``table-2``."""
    return re.sub(r"[^a-z0-9]+", "-", key.lower()).strip("-")


def section_places(reproduction: Reproduction) -> dict[tuple[str, str], str]:
    """Return the name of every section's place on the page by kind and key; no two are the same."""
    keys = {
        "table": [table.key for table in reproduction.tables],
        "figure": [figure.key for figure in reproduction.figures],
        "gallery": [gallery.key for gallery in reproduction.galleries],
    }
    places = {("page", "findings"): "findings", ("page", "run"): "run"}
    for kind, of_kind in keys.items():
        for number, key in enumerate(of_kind, start=1):
            wanted = anchor(key) or f"{kind}-no-{number}"
            places[kind, key] = wanted if wanted not in places.values() else f"{wanted}-{kind}"
    return places


def column_notes(reproduction: Reproduction) -> dict[str, list[Column]]:
    """Return the columns that need a word, by table."""
    return {table.key: [column for column in table.columns if column.note] for table in reproduction.tables}


def sort_value(cell: Cell, column: Column) -> str:
    """Return what a column is sorted by: ours, or the paper's where there is none of ours, or the words."""
    if column.unit == "text" or cell.text is not None:
        text = cell.text or ""
        number = text.replace(",", "")
        return number if number.isdigit() else text
    value = cell.ours.mean if cell.ours is not None else cell.paper
    return "" if value is None else repr(value)
