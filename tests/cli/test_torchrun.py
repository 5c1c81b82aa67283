"""The same command under torchrun: one result, one voice."""

import subprocess
import sys
from pathlib import Path

import pytest
from csft.shop import write_encoders, write_shop

from mimctr.encoders.item import ItemEncoder

ROOT = Path(__file__).parent.parent.parent
SETTINGS = ("dim=4", "batch_size=8", "num_steps=4", "num_memory_batches=1", "memory_warmup_steps=1")


def torchrun(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [*command, "-m", "mimctr", *map(str, words)], capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_csft_in_two_processes_prints_once_and_keeps_its_result(tmp_path: Path):
    dataset, encoders, out = write_shop(tmp_path), write_encoders(tmp_path / "encoders"), tmp_path / "csft"
    words = ["csft", dataset, "--encoders", encoders, "--out", out]
    words += [word for setting in SETTINGS for word in ("--set", setting)]
    made = torchrun(*words)
    assert made.returncode == 0, made.stderr
    assert made.stdout == f"{out}\n"
    assert made.stderr.count("visual search, validation:") == 1
    assert ItemEncoder.load(out).dim == 4
    again = torchrun(*words)
    assert again.returncode == 0
    assert again.stderr.count("unchanged, kept") == 1

    odd = torchrun(*words[:-8], "--set", "batch_size=9", "--set", "dim=4", "--out", tmp_path / "odd")
    assert odd.returncode == 1
    assert (
        "mimctr: batch of 9 rows: does not divide over 2 processes. Choose a batch_size that does."
        in odd.stderr
    )


@pytest.mark.slow
def test_a_whole_recipe_with_a_grid_runs_in_two_processes(tmp_path: Path):
    """Mutant: every process copies what the grid chose; the second finds the folder taken."""
    settings = {
        "source.size": "tiny",
        **{f"foundation.{name}_steps": 3 for name in ("image", "text")},
        **{f"pretrain.{name}_steps": 2 for name in ("masked_image", "language", "alignment")},
        "csft.num_steps": 2,
        "csft.batch_size": 32,
        "models.ubms": '["mean"]',
        "models.seeds": "[0]",
        "models.grid": "{learning_rate = [0.003, 0.01]}",
    }
    words = ["run", ROOT / "recipes" / "demo.toml", "--out", tmp_path]
    words += [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    done = torchrun(*words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Test AUC, bazaar small") == 1
    assert (tmp_path / "report" / "report.html").is_file()
