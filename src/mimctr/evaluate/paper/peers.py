"""Other libraries on the same impressions, histories and split: the schema of ``peers.json``, and its table."""

import statistics
from pathlib import Path
from typing import Literal

from mimctr.evaluate.encoder_results import Estimate, alone
from mimctr.evaluate.paper.lookup import is_sure, mean_of
from mimctr.evaluate.paper.schema import Cell, Column, Table, TableRow
from mimctr.evaluate.results import Machine, Record, read_record
from mimctr.evaluate.written import interval, signed
from mimctr.files import write_json

FORMAT: Literal[2] = 2
OURS = "mimctr"
COLUMNS = [
    Column(name="test AUC", unit="auc", note="exact, from each library's scores, mean over seeds"),
    Column(name="test GAUC", unit="auc", note="within users, weighted by impressions"),
    Column(name="minus best peer", unit="gain", note="AUC, paired over users and seeds"),
    Column(name="fit", unit="seconds", note="median over seeds, early stop included"),
    Column(name="epoch", unit="seconds", note="fit divided by the epochs that it took, median"),
    Column(name="peak memory", unit="bytes", note="largest resident set, its imports and loaders included"),
    Column(name="learning rate", unit="number", note="chosen on the validation part"),
]


class PeerRow(Record):
    """One model of one library."""

    library: str
    row: str
    """Model and variant: ``din``, ``din-mim``."""
    versions: dict[str, str]
    tried: dict[str, float]
    """Validation AUC by learning rate, with the first seed."""
    learning_rate: float
    """With the best of them."""
    auc: list[float]
    """On the test part, by seed."""
    gauc: list[float]
    """Empty where no user has both classes."""
    validation_auc: list[float]
    fit_seconds: list[float]
    epochs: list[int]
    peak_memory_bytes: list[int]
    over_best_peer: Estimate | None = None
    """Test AUC minus the best peer's of the same model, judged by validation AUC; null for that peer, and without
    one."""


class PeerResults(Record):
    """All of ``peers.json``."""

    format: Literal[2] = FORMAT
    dataset: str
    source_hash: str
    """Of the dataset's manifest: the raw tables that all libraries were trained on."""
    seeds: list[int]
    num_impressions: dict[str, int]
    """By part."""
    settings: dict[str, int | float | str | list[int] | list[float]]
    """The same for all libraries."""
    not_read: list[str]
    """What some library cannot read, in words."""
    ceiling_auc: float | None
    """Test AUC of the true click probabilities; null where they are unknown."""
    rows: list[PeerRow]
    command: str
    machine: Machine


def peers_table(results: PeerResults) -> Table:
    """Return the table of the report: a group a model, a row a library and variant."""
    ceiling = (
        "" if results.ceiling_auc is None else f" True click probabilities: AUC {results.ceiling_auc:.4f}."
    )
    return Table(
        key="peers",
        title="Other libraries on the same data",
        columns=COLUMNS,
        rows=[_row(row) for row in results.rows],
        note=f"Dataset {results.dataset}, seeds {', '.join(map(str, results.seeds))}: the same impressions, histories "
        "and split, sizes, optimizer, batch size and number of epochs at most; early stop and learning rate by the "
        f"validation part in each library.{ceiling} {' '.join(results.not_read)}",
        reading=[sentence for row in results.rows if (sentence := _reading(row)) is not None],
    )


def group_of(row: str) -> str:
    """Return the model of a row: ``din`` of ``din-mim``."""
    return row.partition("-")[0]


def best_peer(rows: list[PeerRow], model: str) -> PeerRow | None:
    """Return the other library's row with the highest mean validation AUC: the test part chooses nothing."""
    peers = [row for row in rows if row.library != OURS and group_of(row.row) == model]
    return max(peers, key=lambda row: statistics.mean(row.validation_auc), default=None)


def write_peers(path: Path, results: PeerResults) -> None:
    """Write ``results`` as JSON, atomically."""
    write_json(path, results.model_dump(mode="json"))


def read_peers(path: Path) -> PeerResults:
    """Read what :func:`write_peers` wrote.

    Raises:
        RunError: the file is missing or not JSON.
        DataError: it does not follow the schema.
    """
    return read_record(path, PeerResults, schema="peers.json", again="python benchmarks/bench_peers_data.py")


def _row(row: PeerRow) -> TableRow:
    per_epoch = [seconds / epochs for seconds, epochs in zip(row.fit_seconds, row.epochs, strict=True)]
    return TableRow(
        label=_label(row),
        group=group_of(row.row).upper(),
        cells=[
            Cell(ours=mean_of(row.auc)),
            Cell(ours=mean_of(row.gauc) if row.gauc else None),
            Cell(ours=row.over_best_peer),
            Cell(ours=alone(statistics.median(row.fit_seconds))),
            Cell(ours=alone(statistics.median(per_epoch))),
            Cell(ours=alone(max(row.peak_memory_bytes))),
            Cell(ours=alone(row.learning_rate)),
        ],
    )


def _label(row: PeerRow) -> str:
    variant = " Base+MIM" if row.row.endswith("-mim") else " Base"
    package = row.library.replace("_", "-")
    return f"{row.library}{variant if row.library == OURS else ''} {row.versions.get(package, '')}".rstrip()


def _reading(row: PeerRow) -> str | None:
    found = row.over_best_peer
    if row.library != OURS or found is None:
        return None
    within = interval(found.low, found.high)
    between = f" (95 %: {within})" if within else ""
    verdict = "" if is_sure(found) else ", which may be chance"
    return (
        f"{_label(row)}, {row.row}: AUC {signed(found.mean)} beside the best other library{between}{verdict}."
    )
