"""The schema of ``reproduction.json``: every table and figure of the paper, ours beside the paper's.

Every experiment says what it found in the same few parts, tables, figures, findings and galleries, so that the report
only writes them down. A value that does not exist is null, never a made-up number.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from mimctr.evaluate.encoder_results import Estimate
from mimctr.evaluate.results import Machine, PictureSheet, Record, read_record
from mimctr.files import write_json

FORMAT: Literal[1] = 1

Unit = Literal[
    "auc", "gain", "share", "count", "ratio", "flop", "bytes", "seconds", "rate", "money", "number", "text"
]
"""How a number is written: ``auc`` 0.6411 (log loss and calibration too), ``gain`` +0.0277 (a difference of AUCs),
``share`` 12.3 % (given as 0.123), ``count`` 4,000, ``ratio`` 1.59 (times), ``flop`` floating-point operations,
``bytes`` in MB or GB, ``seconds``, ``rate`` a share with a sign (+3.1 %), ``money`` in the market's currency,
``number`` anything else, ``text`` words."""

Verdict = Literal["held", "not held", "undecided", "not run"]


class Cell(Record):
    """One value of a table: ours, the paper's, or words."""

    ours: Estimate | None = None
    paper: float | None = None
    text: str | None = None


class Column(Record):
    """One column of a table."""

    name: str
    unit: Unit
    note: str = ""
    """What it is, where the name does not say it."""


class TableRow(Record):
    """One row of a table."""

    label: str
    cells: list[Cell] = Field([])
    """One a column; empty where it was not run."""
    group: str = ""
    """Rows of one group stand together under it: a UBM, a category."""
    not_run: str | None = None
    """Why it was not run; null where it was."""
    summary: bool = False
    """Of the other rows of its group, as their mean is: it keeps its place when these are sorted."""


class Table(Record):
    """One table."""

    key: str
    """``table 2``, or a word for those that the paper has not: ``extensions``."""
    title: str
    columns: list[Column]
    rows: list[TableRow]
    note: str
    """How it was measured, in a sentence or two."""
    reading: list[str] = Field([])
    """What it says, in plain words, a sentence each."""


class Point(Record):
    """One point of a figure."""

    x: float | str
    """A number, or the name of a place on the axis."""
    y: float
    low: float | None = None
    """Of the 95 % interval."""
    high: float | None = None
    label: str = ""
    """Written beside the point."""


class Series(Record):
    """Points of one color."""

    name: str
    points: list[Point]


class Figure(Record):
    """One figure."""

    key: str
    title: str
    kind: Literal["line", "bar", "scatter"]
    x_label: str
    y_label: str
    series: list[Series]
    note: str
    reading: list[str] = Field([])


class Finding(Record):
    """One claim of the paper, or a check of our own, and whether it holds here."""

    key: str
    """A stable name, ``ubm_gains:din``."""
    source: str
    """Where the paper says it: ``Table 2``."""
    claim: str
    """In words."""
    paper: str
    """The paper's numbers for it, in words; empty where it gives none."""
    difference: Estimate | None
    """Ours; the claim is that it is above 0. Null where it was not run."""
    unit: Unit = "gain"
    """Of the difference."""
    measured: str = ""
    """What was measured, in words, where the difference alone does not tell it."""
    ours: bool = False
    """A check of our own: the paper does not claim it."""
    note: str = ""
    """What else has to be known of it."""
    confidence: float | None
    """Probability, by the estimate's own error, that the true difference is above 0; null where that is not known."""
    verdict: Verdict
    """``held`` from :data:`SURE` on, ``not held`` where the opposite is as sure, else ``undecided``."""


SURE = 0.975
"""Confidence from which a finding has held: where its two-sided 95 % interval lies above 0."""


class Gallery(Record):
    """Pictures of one sort."""

    key: str
    title: str
    note: str
    sheets: list[PictureSheet]
    """Their files are relative to ``reproduction.json``."""


class Step(Record):
    """One step of the plan, as it was run."""

    name: str
    """Its folder, relative to the run."""
    kind: str
    serves: list[str]
    """Keys of the tables and figures that need it."""
    seconds: float | None
    """Null where it was not run."""
    not_run: str | None
    """Why; null where it was."""


class Part(Record):
    """What one machine made of a reproduction that is joined from several."""

    shows: list[str]
    """Keys of its tables and figures."""
    seconds: float
    """Of its steps; what several parts needed, each of them made."""
    command: str
    versions: dict[str, str]
    machine: Machine


class Reproduction(Record):
    """All of ``reproduction.json``."""

    format: Literal[1] = FORMAT
    dataset: str
    """As shown to people."""
    seeds: list[int]
    tables: list[Table]
    figures: list[Figure]
    findings: list[Finding]
    galleries: list[Gallery] = Field([])
    lacking: list[str] = Field([])
    """Experiments that were asked for and of which there is nothing yet: their steps were not made."""
    steps: list[Step]
    command: str
    """That makes it again, or goes on."""
    versions: dict[str, str]
    machine: Machine
    data: str = ""
    """Hash of what the dataset was made of: raw tables, pictures, split; empty: not known."""
    settings: dict[str, Any] | None = None
    """That decide numbers and are not the default, by name; null: not known."""
    parts: list[Part] = Field([])
    """That it was joined from; none where it was made at once."""


def write_reproduction(path: Path, reproduction: Reproduction) -> None:
    """Write ``reproduction`` as JSON, atomically."""
    write_json(path, reproduction.model_dump(mode="json"))


def read_reproduction(path: Path) -> Reproduction:
    """Read what :func:`write_reproduction` wrote.

    Raises:
        RunError: the file is missing or not JSON.
        DataError: it does not follow the schema.
    """
    return read_record(path, Reproduction, schema="reproduction.json", again="mimctr reproduce")
