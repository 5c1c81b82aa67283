"""Tests that can fail: each mutant is one wrong line in a copy of the package, and a named test catches it."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import mimctr

PACKAGE = Path(mimctr.__file__).parent
ROOT = Path(__file__).parent.parent
TESTS_FAILED = 1  # pytest's exit status; 2 to 5 would mean that it could not run them


@dataclass(frozen=True)
class Mutant:
    name: str
    file: str
    right: str
    wrong: str
    test: str


MUTANTS = [
    Mutant(
        "a behavior of the same second leaks into the history",
        "data/histories.py",
        'side="left"',
        'side="right"',
        "tests/data/test_histories.py",
    ),
    Mutant(
        "users are sorted apart from the labels",
        "data/write.py",
        "array[:, position] = impressions.user",
        "array[:, position] = raw.impressions.user",
        "tests/data/test_dataset.py::test_every_row_keeps_its_user_label_fields_and_history",
    ),
    Mutant(
        "truncation keeps the oldest",
        "batch.py",
        "end[:, None] + offsets",
        "start[:, None] + kept[:, None] + offsets",
        "tests/data/test_dataset.py::test_truncation_keeps_the_newest_behaviors_at_the_end",
    ),
    Mutant(
        "padding reaches the output",
        "ubm/masking.py",
        "return x.masked_fill(~mask.unsqueeze(-1), 0.0)",
        "return x",
        "tests/ubm/test_contract.py",
    ),
    Mutant(
        "padding reaches Eq. (7)",
        "ubm/content_interest.py",
        "behaviors_content = zero_padding(behaviors_content, mask)",
        "behaviors_content = behaviors_content.clone()",
        "tests/ubm/test_contract.py",
    ),
    Mutant(
        "a missing vector stays in Eq. (7) and (8)",
        "ubm/content_module.py",
        "counted = in_scope & content.behaviors_known",
        "counted = in_scope",
        "tests/ubm/test_content_interest.py",
    ),
    Mutant(
        "a row of the encoder tables forgets its settings",
        "recipes/encoder_tables.py",
        "recipe.csft.model_dump() | row.csft",
        "recipe.csft.model_dump()",
        "tests/recipes/test_encoder_tables.py::test_every_row_differs_from_mim_in_what_it_says_and_in_nothing_else",
    ),
    Mutant(
        "the encoder's fingerprint is ignored",
        "center/snapshot.py",
        "if manifest.fingerprint != encoder:",
        "if not encoder:",
        "tests/center/test_snapshot.py::test_another_encoders_snapshot_is_refused",
    ),
    Mutant(
        "the constant 1 is missing in tensor fusion",
        "encoders/fusion.py",
        "return F.pad(view, (0, 1), value=1.0)",
        "return F.pad(view, (0, 1), value=0.0)",
        "tests/encoders/test_fusion.py",
    ),
    Mutant(
        "a second row of the positive's item stays a negative",
        "csft/loss.py",
        "excluded = keys[:count, None] == keys[None, start:stop]  # (N, block)",
        "excluded = torch.zeros(count, stop - start, dtype=torch.bool, device=keys.device)",
        "tests/csft/test_interest_loss.py",
    ),
    Mutant(
        "the streamed loss forgets what it has summed when a larger logit comes",
        "csft/loss.py",
        "total = total * (largest - shift).exp() + ",
        "total = total + ",
        "tests/csft/test_interest_loss.py::test_blocks_change_neither_loss_nor_gradient",
    ),
    Mutant(
        "a batch is enqueued before its loss",
        "recipes/csft.py",
        "        pool = memory.extend(own) if step >= config.memory_warmup_steps else own",
        "        memory.enqueue(own)\n        pool = memory.extend(own)",
        "tests/csft/test_csft_recipe.py::test_loss_is_written_out_with_the_memory_of_the_batches_before",
    ),
    Mutant(
        "vectors are permuted across categories in the leak control",
        "center/attach.py",
        'held[np.argsort(groups[held], kind="stable")]',
        "held",
        "tests/center/test_attach.py::test_the_leak_control_moves_vectors_within_their_category_only",
    ),
    Mutant(
        "a resumed run draws other random numbers",
        "train/seeds.py",
        "SeedSequence([seed, step])",
        "SeedSequence()",
        "tests/train/test_run.py::test_a_killed_run_ends_where_an_undisturbed_one_ends",
    ),
    Mutant(
        "a changed input does not change the key",
        "train/stage.py",
        '"config": settings, "inputs": keys}',
        '"config": settings}',
        "tests/train/test_stage.py::test_a_changed_setting_or_input_makes_it_anew",
    ),
    Mutant(
        "a tie counts as a win",
        "evaluate/metrics.py",
        "2 * (start[run] - group_start) + length[run] + 1",
        "2 * (start[run] - group_start + length[run])",
        "tests/evaluate/test_metrics.py",
    ),
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_mutant_changes_a_line_that_is_there_once(mutant):
    text = (PACKAGE / mutant.file).read_text()
    assert text.count(mutant.right) == 1, f"{mutant.file} has changed; name the line to mutate anew"


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_named_test_catches_the_mutant(mutant, tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "mimctr", ignore=shutil.ignore_patterns("__pycache__"))
    path = tmp_path / "mimctr" / mutant.file
    path.write_text(path.read_text().replace(mutant.right, mutant.wrong))

    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        mutant.test,
    ]
    run = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == TESTS_FAILED, (
        f"not caught: {mutant.name}\n{run.stdout[-2000:]}{run.stderr[-2000:]}"
    )
