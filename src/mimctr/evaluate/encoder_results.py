"""The schema of ``encoder_tables.json``: held-out visual search of every encoder of the paper's Tables 3, 4 and 5."""

from pathlib import Path
from typing import Any, Literal

from mimctr.evaluate.results import Record, read_record
from mimctr.files import write_json

FORMAT: Literal[1] = 1


class Estimate(Record):
    """A number with its uncertainty over users and seeds."""

    mean: float
    """Over seeds."""
    sd: float | None
    """Over seeds (n - 1); null for one seed."""
    low: float | None
    """Lower end of the 95 % interval; null where the resamples say nothing."""
    high: float | None
    p_value: float | None
    """Two-sided, for 0; of differences only."""


def alone(value: float, sd: float | None = None) -> Estimate:
    """Return a number without interval: a level, or what was measured once."""
    return Estimate(mean=value, sd=sd, low=None, high=None, p_value=None)


class Measure(Record):
    """One metric of one row on one slice of a part."""

    row: str
    part: str
    slice: str
    metric: str
    """``recall@1``, ``recall@10``, ``recall@100``, ``mrr`` or ``cosine_auc``."""
    num_pairs: int
    """Pairs of the slice; impressions for ``cosine_auc``."""
    by_seed: list[float]
    value: Estimate
    over_base: Estimate | None
    """Minus the plain row's, same seed and users; null for itself."""
    over_best: Estimate | None
    """Minus MIM's, likewise."""


class RowResult(Record):
    """One row."""

    name: str
    labels: dict[int, str]
    """By table of the paper."""
    not_run: str | None
    """Why it was not run; null where it was."""
    chosen: dict[str, Any]
    """What the grid chose; empty without C-SFT or without a grid."""
    kept_steps: list[int]
    """By seed: the step of C-SFT that was best on validation; 0 is the plain geometry. Empty without C-SFT."""


class EncoderResults(Record):
    """Everything."""

    format: Literal[1] = FORMAT
    dataset: str
    seeds: list[int]
    num_resamples: int
    rows: list[RowResult]
    measures: list[Measure]

    def find(self, row: str, part: str, name: str, metric: str) -> Measure | None:
        """Return one measure; None where it does not exist."""
        wanted = (row, part, name, metric)
        return next((m for m in self.measures if (m.row, m.part, m.slice, m.metric) == wanted), None)


def write_encoder_results(path: Path, results: EncoderResults) -> None:
    """Write ``results`` as JSON, atomically."""
    write_json(path, results.model_dump(mode="json"))


def read_encoder_results(path: Path) -> EncoderResults:
    """Read what :func:`write_encoder_results` wrote.

    Raises:
        RunError: the file is missing or not JSON.
        DataError: it does not follow the schema.
    """
    return read_record(path, EncoderResults, schema="encoder_tables.json", again="mimctr encoder-tables")
