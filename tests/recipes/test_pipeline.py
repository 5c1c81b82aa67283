"""The whole road on the tiny bazaar: it ends, an unchanged run does nothing, a killed one ends the same."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from fastapi.testclient import TestClient

from mimctr.center.center import Center
from mimctr.evaluate.results import read_results
from mimctr.recipes import bundle, center_build, serve
from mimctr.recipes.embed_config import Config as EmbedConfig
from mimctr.serve.app import create_app
from mimctr.weights import load_tensors

NO_FIELDS = {"user_id", "query_image"}
RECIPE = """
name = "tiny"
[source]
kind = "bazaar"
size = "tiny"
[foundation]
image_steps = 3
text_steps = 3
batch_size = 8
[pretrain]
masked_image_steps = 2
language_steps = 2
alignment_steps = 2
batch_size = 8
[csft]
num_steps = 4
evaluate_every = 2
batch_size = 8
num_memory_batches = 2
memory_warmup_steps = 1
max_held_out_pairs = 20
[models]
ubms = ["mean"]
variants = ["base", "mim", "mim_permuted"]
[train]
batch_size = 512
checkpoint_seconds = 0.0
[evaluate]
num_resamples = 10
num_pictures = 2
"""


def run(recipe: Path, out: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "mimctr", "run", str(recipe), "--out", str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def finished(recipe, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    process = run(recipe, out)
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    return out, stdout


def predictions(out: Path) -> dict[str, list[float]]:
    return {
        path.parent.name: load_tensors(path)[0]["logit"].tolist()
        for path in sorted(out.glob("train/*/predictions.safetensors"))
    }


@pytest.mark.slow
def test_it_ends_with_the_table_and_the_paths_of_report_and_results(finished):
    out, stdout = finished
    assert "Base+MIM" in stdout
    assert str(out / "report" / "report.html") in stdout
    results = read_results(out / "evaluate" / "results.json")
    assert {row.variant for row in results.rows} == {"base", "mim", "mim_permuted"}
    ceiling = next(row.ceiling_auc for row in results.rows if row.slice == "all")
    assert 0.7 < ceiling < 0.9
    assert all(row.auc < ceiling for row in results.rows if row.slice == "all")


@pytest.mark.slow
def test_an_unchanged_run_makes_nothing_again(finished, recipe):
    out, stdout = finished
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    again, stderr = run(recipe, out).communicate()
    assert again == stdout
    assert stderr.count("unchanged") == len(list(out.rglob("stage.json")))
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before


def asked(row: dict, behaviors: pl.DataFrame) -> dict:
    """Return a raw impression of the bazaar as a caller of the service asks."""

    def fields(side: str) -> dict[str, str | None]:
        names = [name for name in row if name.startswith(f"{side}_") and name not in NO_FIELDS]
        return {name: None if row[name] is None else str(row[name]) for name in names}

    mine = behaviors.filter(pl.col("user_id") == row["user_id"])
    return {
        "user": row["user_id"],
        "candidates": [row["item_id"]],
        "history": mine.select("item_id", "time", "kind").to_dicts(),
        "time": row["time"],
        **{f"{side}_fields": fields(side) for side in ("user", "query", "context")},
    }


@pytest.mark.slow
def test_the_service_says_what_evaluation_said(finished, tmp_path):
    """No training-serving skew, end to end: raw rows over HTTP, vectors from a center that was built for itself."""
    out, _ = finished
    center = Center.create(tmp_path / "center")
    config = EmbedConfig(device="cpu", num_workers=1)
    number = center_build.main(center.folder, out / "dataset", out / "csft", config).number
    center.seal(number, {})
    center.log.generations.activate(number)
    rows, behaviors = (pl.read_parquet(out / "tables" / name) for name in ("impressions", "behaviors"))
    for name in ("mean-base-seed0", "mean-mim-csft-seed0"):
        bundle.main(out / "train" / name, out / "dataset", tmp_path / name, onnx=False)
        said = load_tensors(out / "train" / name / "predictions.safetensors")[0]
        service = serve.make_service(str(tmp_path / name), center.folder, serve.Config())
        with TestClient(create_app(service, deadline=60.0)) as client:
            for row, logit in list(zip(said["row"].tolist(), said["logit"].double(), strict=True))[:50]:
                answer = client.post("/score", json=asked(rows.row(row, named=True), behaviors))
                assert answer.status_code == 200, answer.text
                (score,) = answer.json()["scores"]
                assert score["probability"] == pytest.approx(logit.sigmoid().item(), abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "sign",
    [
        "tables/stage.started.json",
        "dataset/stage.started.json",
        "foundation/run",
        "csft/metrics.jsonl",
        "train/mean-mim-csft-seed0/checkpoint.safetensors",
    ],
)
def test_a_killed_run_ends_as_if_nothing_had_happened(finished, recipe, tmp_path, sign):
    """Mutant: anything drawn from a running generator; a checkpoint that lacks a part."""
    process = run(recipe, tmp_path / "run")
    while not (tmp_path / "run" / sign).exists() and process.poll() is None:
        time.sleep(0.01)  # waits for the sign; nothing is measured
    process.send_signal(signal.SIGKILL)
    process.communicate()
    process = run(recipe, tmp_path / "run")
    _, stderr = process.communicate()
    assert process.returncode == 0, stderr
    assert predictions(tmp_path / "run") == predictions(finished[0])
    whole, resumed = (
        json.loads((out / "csft" / "search.json").read_text()) for out in (finished[0], tmp_path / "run")
    )
    assert resumed == whole
