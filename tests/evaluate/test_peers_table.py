"""The table of other libraries: what the best peer is, and what the rows say of it."""

import json
from pathlib import Path

import pytest

from mimctr.errors import DataError
from mimctr.evaluate.encoder_results import Estimate
from mimctr.evaluate.paper.peers import (
    PeerResults,
    PeerRow,
    best_peer,
    peers_table,
    read_peers,
    write_peers,
)
from mimctr.evaluate.results import Machine


def row(library: str, name: str, *, validation: list[float], auc: list[float], over: Estimate | None = None):
    return PeerRow(
        library=library,
        row=name,
        versions={library.replace("_", "-"): "1.2"},
        tried={"0.001": validation[0], "0.005": 0.5},
        learning_rate=0.001,
        auc=auc,
        gauc=auc,
        validation_auc=validation,
        fit_seconds=[30.0, 10.0],
        epochs=[3, 2],
        peak_memory_bytes=[100, 300],
        over_best_peer=over,
    )


@pytest.fixture
def results() -> PeerResults:
    gain = Estimate(mean=0.02, sd=0.001, low=0.015, high=0.025, p_value=0.001)
    return PeerResults(
        dataset="small",
        source_hash="0123456789abcdef",
        seeds=[0, 1],
        num_impressions={"train": 8, "validation": 1, "test": 1},
        settings={"batch_size": 1024},
        not_read=["Nobody reads the tea leaves."],
        ceiling_auc=0.8,
        rows=[
            row("fuxictr", "din", validation=[0.62, 0.64], auc=[0.60, 0.61]),
            row("deepctr_torch", "din", validation=[0.60, 0.61], auc=[0.69, 0.70]),
            row("mimctr", "din", validation=[0.7, 0.7], auc=[0.60, 0.62]),
            row("mimctr", "din-mim", validation=[0.7, 0.7], auc=[0.62, 0.64], over=gain),
        ],
        command="python bench_peers_data.py",
        machine=Machine(system="Linux", processor="x", num_cores=2, memory_bytes=None),
    )


def test_the_best_peer_is_chosen_by_validation_and_is_never_ours(results: PeerResults) -> None:
    """Mutants: chosen by test AUC; ours among the peers."""
    found = best_peer(results.rows, "din")
    assert found is not None
    assert found.library == "fuxictr"
    assert best_peer(results.rows, "dien") is None


def test_the_table_shows_what_was_measured(results: PeerResults) -> None:
    """Mutant: seconds of an epoch from the seconds of all seeds and one seed's epochs."""
    table = peers_table(results)
    assert [one.label for one in table.rows] == [
        "fuxictr 1.2", "deepctr_torch 1.2", "mimctr Base 1.2", "mimctr Base+MIM 1.2",
    ]  # fmt: skip
    assert {one.group for one in table.rows} == {"DIN"}
    values = [None if cell.ours is None else cell.ours.mean for cell in table.rows[3].cells]
    assert values == pytest.approx([0.63, 0.63, 0.02, 20.0, (30 / 3 + 10 / 2) / 2, 300, 0.001])
    assert all(len(one.cells) == len(table.columns) for one in table.rows)
    assert "0.8000" in table.note
    assert "tea leaves" in table.note
    assert table.reading == [
        "mimctr Base+MIM 1.2, din-mim: AUC +0.0200 beside the best other library (95 %: +0.0150 to +0.0250)."
    ]


def test_what_is_written_is_read_again_and_another_file_is_refused(
    results: PeerResults, tmp_path: Path
) -> None:
    write_peers(tmp_path / "peers.json", results)
    assert read_peers(tmp_path / "peers.json") == results
    older = results.model_dump(mode="json", exclude={"source_hash"}) | {"format": 1}
    (tmp_path / "older.json").write_text(json.dumps(older))
    with pytest.raises(
        DataError, match=r"older\.json: 2 values .* Run 'python benchmarks/bench_peers_data\.py' again"
    ):
        read_peers(tmp_path / "older.json")
    (tmp_path / "other.json").write_text('{"format": 1}')
    with pytest.raises(DataError, match=r"other\.json: \d+ values do not follow the schema of peers\.json"):
        read_peers(tmp_path / "other.json")
