"""The encoder tables as Markdown: every number where its heading says."""

import pytest

from mimctr.errors import DataError
from mimctr.evaluate.encoder_results import (
    EncoderResults,
    Estimate,
    Measure,
    RowResult,
    read_encoder_results,
    write_encoder_results,
)
from mimctr.report.encoder_tables import encoder_tables_markdown

METRICS = ("recall@1", "recall@10", "recall@100", "mrr", "cosine_auc")


def estimate(mean: float) -> Estimate:
    return Estimate(mean=mean, sd=0.01, low=mean - 0.1, high=mean + 0.1, p_value=None)


@pytest.fixture
def results() -> EncoderResults:
    """Two rows that were run, one that was not; every value is told apart from every other."""
    measures = [
        Measure(
            row=row,
            part=part,
            slice=name,
            metric=metric,
            num_pairs=10,
            by_seed=[0.1],
            value=estimate(0.3 + 0.1 * r + 0.05 * p + 0.02 * s + 0.001 * m),
            over_base=estimate(0.2) if row == "mim" else None,
            over_best=estimate(-0.2) if row == "plain" else None,
        )
        for r, row in enumerate(("plain", "mim"))
        for p, part in enumerate(("test", "validation"))
        for s, name in enumerate(("all", "item:unseen"))
        for m, metric in enumerate(METRICS)
    ]
    rows = [
        RowResult(name="plain", labels={3: "Plain FoM"}, not_run=None, chosen={}, kept_steps=[]),
        RowResult(
            name="mim",
            labels={3: "MIM", 5: "MIM"},
            not_run=None,
            chosen={"head_learning_rate": 0.003},
            kept_steps=[50, 100],
        ),
        RowResult(name="eva", labels={3: "EVA"}, not_run="no weights", chosen={}, kept_steps=[]),
    ]
    return EncoderResults(dataset="shop", seeds=[0, 1], num_resamples=7, rows=rows, measures=measures)


def cells(text: str, label: str, table: int) -> list[str]:
    lines = [line for line in text.splitlines() if line.startswith((f"| {label} |", "## "))]
    start = next(number for number, line in enumerate(lines) if line.startswith(f"## Table {table}"))
    return [cell.strip() for cell in lines[start + 1].strip("|").split("|")]


def test_every_number_stands_under_its_heading(results):
    text = encoder_tables_markdown(results)
    assert "shop, 2 seeds" in text
    heads = next(line for line in text.splitlines() if line.startswith("| Encoder")).strip("|").split("|")
    found = dict(zip([head.strip() for head in heads], cells(text, "MIM", 3), strict=True))
    assert found == {
        "Encoder": "MIM",
        "recall@10": "0.4010 (0.3010 to 0.5010)",
        "over plain": "+0.2000 (+0.1000 to +0.3000)",
        "over MIM": "",
        "unseen items": "0.4210 (0.3210 to 0.5210)",
        "recall@1": "0.4000 (0.3000 to 0.5000)",
        "recall@100": "0.4020 (0.3020 to 0.5020)",
        "MRR": "0.4030 (0.3030 to 0.5030)",
        "cosine AUC": "0.4040 (0.3040 to 0.5040)",
        "C-SFT": "head_learning_rate 0.003; step 50, 100",
    }
    assert cells(text, "Plain FoM", 3)[3] == "−0.2000 (−0.3000 to −0.1000)"
    assert cells(text, "MIM", 5) == cells(text, "MIM", 3)


def test_what_was_not_run_says_why(results):
    text = encoder_tables_markdown(results)
    assert cells(text, "EVA", 3)[1] == "not run: no weights"
    assert {line.count("|") for line in text.splitlines() if line.startswith("|")} == {11}


def test_results_are_read_as_they_were_written(results, tmp_path):
    write_encoder_results(tmp_path / "r.json", results)
    assert read_encoder_results(tmp_path / "r.json") == results
    (tmp_path / "r.json").write_text('{"dataset": "shop"}')
    with pytest.raises(
        DataError, match=r"r\.json: \d+ values do not follow the schema of encoder_tables\.json"
    ):
        read_encoder_results(tmp_path / "r.json")
