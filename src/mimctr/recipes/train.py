"""Train one CTR model, with or without content interest: MIM's third stage (Section 3.4).

mimctr train dataset --content embed --set ubm=din --set variant=mim --out model
"""

import logging
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from mimctr.batch import CtrBatch
from mimctr.center.attach import ContentTable
from mimctr.data.checksums import verify_dataset
from mimctr.data.dataset import CtrDataset
from mimctr.data.split import Part
from mimctr.distributed import from_main, is_main
from mimctr.errors import ConfigError, DataError
from mimctr.files import write_json
from mimctr.recipes.ctr_config import Config, Ubm, Variant, check_settings
from mimctr.recipes.ctr_fitting import Task, fit, measure, predict, rank_metrics
from mimctr.recipes.ctr_model import RECORD, WEIGHTS, build_model, field_sizes
from mimctr.recipes.device import pick_device
from mimctr.recipes.embed import open_content
from mimctr.train.memory import explain_out_of_memory
from mimctr.train.run import Run
from mimctr.ubm.content_interest import cosine
from mimctr.ubm.masking import masked_mean
from mimctr.ubm.sharded import count_parameters, whole_state
from mimctr.weights import save_tensors

__all__ = ["Config", "Ubm", "Variant", "main"]

logger = logging.getLogger(__name__)

PREDICTIONS = "predictions.safetensors"
CHECKPOINTS = "checkpoint*.safetensors"


def main(dataset: Path, content: Path | None, out: Path, config: Config) -> dict[str, float]:
    """Train a model and score the test part once with its best weights; return the validation metrics.

    Written to ``out``: ``model.json``, ``model.safetensors``, ``metrics.jsonl`` and ``predictions.safetensors``
    (``score_test_part``). A call after an interruption goes on from the checkpoint there.

    Args:
        dataset: Written by ``mimctr prepare``.
        content: Written by ``mimctr embed``; None for Base.
        out: Created if missing.
        config: Settings.

    Raises:
        ConfigError: the variant reads content and none is given, or a setting is for another variant.
        RunError: a file of the dataset is damaged.
        DataError: the training part is empty, or it or the validation part has one class only.
    """
    check_settings(config)
    data = open_dataset(dataset)
    vectors = open_vectors(data, content, config)
    task = Task(dataset=data, content=vectors, config=config, device=pick_device(config.device))
    out.mkdir(parents=True, exist_ok=True)
    if config.variant == "untrained_cosine":
        facts, validation = score_untrained(task, out)
    else:
        facts, validation = train(task, out)
    if is_main():
        write_json(out / RECORD, describe(task) | facts | {"validation": validation})
        for checkpoint in out.glob(CHECKPOINTS):
            checkpoint.unlink()
    logger.info("train %s %s: validation AUC %.4f", config.ubm, config.variant, validation["auc"])
    return validation


def open_dataset(folder: Path) -> CtrDataset:
    """Open a dataset in which there is something to learn, and something to rank for the early stop.

    Raises:
        RunError: the folder is no dataset, or a file of it is damaged.
        DataError: the training part is empty, or it or the validation part has clicks only, or none.
    """
    from_main(lambda: verify_dataset(folder))
    dataset = CtrDataset.open(folder)
    if not len(dataset.rows("train")):
        raise DataError(
            f"{folder}: its training part has no impressions. Let the validation part start later."
        )
    parts: tuple[Part, ...] = ("train", "validation")
    for part in parts:
        rows = dataset.rows(part)
        clicks = int(dataset.impressions.click[rows.start : rows.stop].sum())
        if clicks in (0, len(rows)):
            raise DataError(
                f"{dataset.folder}: all {len(rows):,} impressions of its {part} part have the label {int(clicks > 0)}, "
                "and a training needs both. Correct the labels, or prepare it with another split."
            )
    return dataset


def train(task: Task, out: Path) -> tuple[dict[str, int], dict[str, float]]:
    """Train, save the best weights and score the test part; return facts for the record and validation metrics."""
    content_dim = None if task.content is None else task.content.dim
    with explain_out_of_memory(
        f"{out}: the model", "Choose a smaller embedding_dim or hidden_dims, or a larger min_count."
    ):
        model = build_model(task.dataset, task.config, content_dim=content_dim).to(task.device)
    with closing(make_run(out, task.config)) as run:
        progress = fit(model, run, task)
    weights = whole_state(model)
    if is_main():
        save_tensors(out / WEIGHTS, weights)
    del weights
    score_test_part(task, out, partial(predict, model))
    facts = {"num_parameters": count_parameters(model), "best_step": progress.best_step}
    return facts, measure(model, task)


def make_run(folder: Path, config: Config) -> Run:
    """Return the record of a training in ``folder``."""
    return Run(folder, checkpoint_seconds=config.checkpoint_seconds, tensorboard=config.tensorboard)


def score_untrained(task: Task, out: Path) -> tuple[dict[str, int], dict[str, float]]:
    """Score the test part by the mean cosine; return what :func:`train` returns."""
    score_test_part(task, out, untrained_cosine)
    rows = task.dataset.rows("validation")
    return {"num_parameters": 0}, rank_metrics(task.dataset, rows, untrained_cosine(task, rows))


def score_test_part(task: Task, out: Path, scored: Callable[[Task, range], Float[ndarray, "rows"]]) -> None:
    """Write ``predictions.safetensors``: ``row`` of each impression of the test part and its ``logit``.

    With content, ``shuffled_logit`` is what the same model says when the items' vectors are permuted within category:
    what it then loses is what it owes to them.

    Args:
        task: Whose dataset and content are scored.
        out: Folder of the model.
        scored: The model's logits of some rows of a task.
    """
    rows = task.dataset.rows("test")
    tensors = {"row": torch.arange(rows.start, rows.stop), "logit": torch.from_numpy(scored(task, rows))}
    if task.content is not None:
        # Not the leak control's own permutation: twice the same brings some vectors home.
        shuffled = permute(task.content, task.dataset, seed=task.config.seed + 1)
        tensors["shuffled_logit"] = torch.from_numpy(scored(replace(task, content=shuffled), rows))
    if is_main():
        save_tensors(out / PREDICTIONS, tensors, meta={"part": "test"})


def describe(task: Task) -> dict[str, Any]:
    """Return what ``model.json`` says whatever the variant: enough to build the model again and to name its data."""
    config, data, content = task.config, task.dataset, task.content
    return {
        "ubm": config.ubm,
        "variant": config.variant,
        "encoder": config.encoder,
        "seed": config.seed,
        "dataset": data.folder.resolve().name,
        "dataset_hash": data.manifest.source_hash,
        "training_hash": data.manifest.training_hash(),
        "content_fingerprint": None if content is None else content.snapshot.fingerprint,
        "content_snapshot": None if content is None else content.snapshot.manifest.digest,
        "content_dim": None if content is None else content.dim,
        "fields": field_sizes(data),
        "config": config.model_dump(mode="json"),
    }


def open_vectors(dataset: CtrDataset, content: Path | None, config: Config) -> ContentTable | None:
    """Return the content vectors that the variant reads; None for Base.

    Raises:
        ConfigError: the variant reads content and ``content`` is None.
    """
    if config.variant == "base":
        return None
    if content is None:
        raise ConfigError(
            f"content: the variant '{config.variant}' reads content vectors, and none are given. "
            "Name the folder that 'mimctr embed' wrote, or train the variant 'base'."
        )
    table = open_content(dataset, content)
    if config.variant == "mim_permuted":
        return permute(table, dataset, seed=config.seed)
    return table


def permute(table: ContentTable, dataset: CtrDataset, *, seed: int) -> ContentTable:
    """Return ``table`` with the items' vectors permuted within category."""
    return table.permuted(dataset.item_fields[:, 0], seed=seed)


def untrained_cosine(task: Task, rows: range) -> Float[ndarray, "rows"]:
    """Return the mean cosine of target and behaviors, with no training; 0 where there is no history or no vector."""

    def mean_cosine(batch: CtrBatch) -> Float[Tensor, "batch"]:
        content = batch.content
        assert content is not None, "open_vectors refuses this variant without content"
        counted = content.behaviors_known & content.target_known.unsqueeze(1)
        return masked_mean(cosine(content.target, content.behavior_vectors()), counted)

    return task.score(rows, mean_cosine)
