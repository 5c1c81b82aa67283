"""mimctr center as it is typed."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from mimctr.cli import app
from mimctr.cli.center import COMMANDS, EXAMPLES


def run(*words: object, stdin: str | None = None):
    return CliRunner().invoke(app, ["--quiet", "center", *map(str, words)], input=stdin)


def told(result) -> dict[str, str]:
    """Return the lines of a summary."""
    assert result.exit_code == 0, result.output
    return dict(line.split(maxsplit=1) for line in result.stdout.splitlines())


@pytest.fixture
def vectors(tmp_path) -> Path:
    path = tmp_path / "clip.parquet"
    rows = np.random.default_rng(0).normal(size=(30, 4)).tolist()
    pl.DataFrame({"item_id": range(30), "vector": rows}).write_parquet(path)
    return path


def test_from_a_lake_of_vectors_to_a_generation_that_is_served(tmp_path, vectors):
    folder = tmp_path / "center"
    assert told(run("init", folder))["num_partitions"] == "16"
    assert told(run("import", folder, vectors, "--encoder", "clip"))["state"] == "building"
    assert told(run("seal", folder, 1))["num_vectors"] == "30"
    assert told(run("activate", folder, 1)) == {"active": "1"}
    assert told(run("verify", folder)) == {"verified": "center"}
    shown = json.loads(run("status", folder, "--json").stdout)
    assert shown["generation 1"]["state"] == "active"
    assert told(run("export", folder, "--out", tmp_path / "out.parquet")) == {"num_vectors": "30"}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["status", "nowhere"], "nowhere/center.sqlite: no such file. Run 'mimctr center init' first."),
        (["seal", "CENTER", 7], "has no generation 7. There are: none yet."),
        (["rollback", "CENTER"], "no generation was active before; there is nothing to go back to."),
        (
            ["export", "CENTER", "--out", "x.parquet"],
            "has no generation yet. Run 'mimctr center build' or 'import'.",
        ),
        (["init", "CENTER"], "holds a center already. Choose another folder."),
        (["import", "CENTER", "none.parquet"], "none.parquet: no such file."),
        (
            ["import", "CENTER", "none.parquet", "--dtype", "int4"],
            "--dtype: 'int4' is not one of float16, int8, float32.",
        ),
        (["ingest", "CENTER", "none.csv"], "none.csv: not readable"),
        (["publish", "CENTER"], "publish: no store is named. Add --store redis://HOST:PORT/0"),
        (["status", "CENTER", "--store", "http://x"], "http://x: not the URL of a parameter store."),
    ],
)
def test_a_wrong_call_is_one_line(tmp_path, words, line):
    folder = tmp_path / "center"
    run("init", folder)
    result = run(*[folder if word == "CENTER" else word for word in words])
    assert result.exit_code == 1
    assert result.stdout == ""
    (found,) = result.stderr.splitlines()
    assert found.startswith("mimctr: ")
    assert line in found


def test_an_item_that_is_refused_is_told_and_is_an_error(tmp_path, vectors):
    folder = tmp_path / "center"
    run("init", folder)
    run("import", folder, vectors)
    result = run("ingest", folder, "-", stdin='{"item_id": 3, "deleted": true}\n{"item_id": -1}\n')
    assert result.exit_code == 1
    assert "num_items    1" in result.stdout
    assert "row 1: item -1: an id must not be negative." in result.stdout


def test_a_plan_says_what_it_rests_on():
    """Closed form: 1,000 items of 128 dimensions in int8 are 1,000 times (21 + 4 + 128) bytes of snapshot."""
    shown = json.loads(run("plan", "--items", "1e3", "--dtype", "int8", "--json").stdout)
    assert shown["snapshot_bytes"] == 1000 * (21 + 4 + 128)
    assert shown["store_peak_bytes"] == 4 * shown["store_bytes"]
    assert (shown["shards"], shown["bytes_per_shard"]) == (1, 2 * shown["store_bytes"])
    large = json.loads(run("plan", "--items", "1.42e9", "--memory", 10, "--fill", 0.5, "--json").stdout)
    assert large["items"] == 1_420_000_000
    assert (
        large["bytes_per_shard"] <= 5e9 < large["bytes_per_shard"] * large["shards"] / (large["shards"] - 1)
    )
    assert any("measured on a cluster of Redis" in line for line in shown["assumptions"])


def test_every_command_has_an_example_that_parses():
    """The words of each example are options that the command has."""
    assert COMMANDS.keys() == EXAMPLES.keys()
    for name, example in EXAMPLES.items():
        shown = run(name, "--help").stdout
        assert example.split()[:3] == ["mimctr", "center", name]
        for word in example.split():
            assert not word.startswith("--") or word in shown


def test_help_is_quick():
    """Mutant: PyTorch is imported to say what commands there are."""
    code = "import sys; from mimctr.cli import app; print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"
