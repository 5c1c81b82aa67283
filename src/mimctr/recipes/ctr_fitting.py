"""The training loop of CTR models: early stop on validation, best weights kept, exact resume."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from mimctr import distributed
from mimctr.batch import CtrBatch
from mimctr.center.attach import ContentTable
from mimctr.data.dataset import CtrDataset
from mimctr.errors import RunError
from mimctr.evaluate.metrics import auc, grouped_auc, log_loss, sigmoid
from mimctr.files import hash_json
from mimctr.precision import autocast
from mimctr.progress import track
from mimctr.recipes.ctr_config import Config
from mimctr.train.adam import LazyAdam, clip_gradients
from mimctr.train.run import Run
from mimctr.train.schedule import set_learning_rate, warmup_cosine
from mimctr.train.seeds import seed_step
from mimctr.ubm.ciubm import CiUBM, CtrOutput
from mimctr.ubm.regularization import add_penalty, count_impressions


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a model is trained on, and how; the same from the first step to the last."""

    dataset: CtrDataset
    content: ContentTable | None
    config: Config
    device: torch.device

    def batches(self, rows: range, **order: Any) -> Iterator[CtrBatch]:
        """Yield batches on the device, with content attached; ``order`` is that of ``CtrDataset.batches``."""
        order = {"seed": None} | order
        size, length = self.config.batch_size, self.config.max_length
        for batch in self.dataset.batches(rows, batch_size=size, max_length=length, **order):
            yield (batch if self.content is None else self.content.attach(batch)).to(self.device)

    def score(
        self, rows: range, of_batch: Callable[[CtrBatch], Float[Tensor, "batch"]]
    ) -> Float[ndarray, "rows"]:
        """Return what ``of_batch`` says of every impression in ``rows``, float32.

        Each process asks for its part of every batch, so that all ask as often: tables may be held in parts.
        """
        scores = torch.zeros(len(rows))
        number, count = part = distributed.rank(), distributed.size()
        size = self.config.batch_size
        for first, batch in zip(range(0, len(rows), size), self.batches(rows, part=part), strict=True):
            scores[first : first + size].tensor_split(count)[number].copy_(of_batch(batch))
        return distributed.total(scores).numpy()

    def forward(self, model: CiUBM, batch: CtrBatch) -> CtrOutput:
        """Return the model's output in training, in bfloat16 where the config says so and the device can."""
        with autocast(self.device, bf16=self.config.bf16):
            return model(batch)


@dataclass(kw_only=True)
class Progress:
    """What a training knows besides weights and optimizer; part of every checkpoint."""

    best: dict[str, Tensor] = field(default_factory=dict)
    """Weights with the best validation AUC so far."""
    best_auc: float = -math.inf
    best_step: int = -1
    num_worse: int = 0
    """Looks at the validation part since the best one."""
    stopped: bool = False
    """Early stop: nothing is left to train."""
    losses: list[float] = field(default_factory=list)
    """Training losses since the last look."""

    def look(self, step: int, validation_auc: float, model: CiUBM, *, patience: int) -> None:
        """Take note of a look at the validation part after ``step``."""
        self.num_worse += 1
        if validation_auc > self.best_auc:
            self.best_auc, self.best_step, self.num_worse = validation_auc, step, 0
            self.best = {name: value.detach().clone() for name, value in model.state_dict().items()}
        self.stopped = self.num_worse >= patience
        self.losses = []

    def meta(self, config: Config) -> dict[str, object]:
        """Return what a checkpoint keeps as JSON."""
        return {
            "config": hash_json(config.model_dump(mode="json")),
            "best_auc": self.best_auc if self.best else None,
            "best_step": self.best_step,
            "num_worse": self.num_worse,
            "stopped": self.stopped,
            "losses": self.losses,
        }


Watch = Callable[[int, float], None]
"""Hears of every look at the validation part: its number, from 1, and the AUC. What it raises ends the training."""


def fit(model: CiUBM, run: Run, task: Task, *, watch: Watch | None = None) -> Progress:
    """Train ``model``; a call after an interruption ends bit for bit where an undisturbed one ends.

    The validation part decides when to stop and which weights are kept; the test part is not looked at.

    Args:
        model: On the task's device. Ends with the best weights.
        run: Where metrics and checkpoint go.
        task: What to train on.
        watch: Told of every look; after a resume, once more of those after the checkpoint.

    Raises:
        RunError: the loss is not finite, or the checkpoint belongs to another config, or to tables held in other parts.
    """
    config = task.config
    optimizer = make_optimizer(model, config)
    counts = count_rows(model, task) if config.embedding_l2_scope == "batch" else None
    step, progress = restore(model, optimizer, run, config)
    rows = task.dataset.rows("train")
    steps_per_epoch = math.ceil(len(rows) / config.batch_size)
    num_steps = config.epochs * steps_per_epoch
    look_every = math.ceil(steps_per_epoch / config.evaluations_per_epoch)
    batches = remaining_batches(task, rows, start=step, num_steps=num_steps, steps_per_epoch=steps_per_epoch)
    for batch in track(batches, total=num_steps, description=f"train {run.folder.name}", start=step):
        if progress.stopped:
            break
        seed_step(config.seed, step)
        progress.losses.append(
            take_step(model, optimizer, batch, task, step=step, num_steps=num_steps, counts=counts)
        )
        if (step + 1) % look_every == 0 or step + 1 == num_steps:
            metrics = measure(model, task)
            validation = {f"validation_{name}": value for name, value in metrics.items()}
            run.log(step, train_loss=float(np.mean(progress.losses)), **validation)
            progress.look(step, metrics["auc"], model, patience=config.patience)
            if watch is not None:
                watch(math.ceil((step + 1) / look_every), metrics["auc"])
        step += 1
        save = run.checkpoint if progress.stopped else run.checkpoint_if_due
        save(step, {"model": model}, optimizer, extra=progress.best, meta=progress.meta(config))
    model.load_state_dict(progress.best)
    return progress


def remaining_batches(
    task: Task, rows: range, *, start: int, num_steps: int, steps_per_epoch: int
) -> Iterator[CtrBatch]:
    """Yield this process's part of the training batches from step ``start`` on, epoch after epoch."""
    part = distributed.rank(), distributed.size()
    for epoch in range(start // steps_per_epoch, num_steps // steps_per_epoch):
        first = max(start - epoch * steps_per_epoch, 0)
        yield from task.batches(rows, seed=task.config.seed, epoch=epoch, start=first, part=part)


def make_optimizer(model: CiUBM, config: Config) -> LazyAdam:
    """Return Adam, lazy for large tables, with an L2 penalty for tables, if it is for all rows, and one for others."""
    embedding_l2 = config.embedding_l2 if config.embedding_l2_scope == "all" else 0.0
    groups = [
        {"params": list(model.embedding.parameters()), "weight_decay": embedding_l2},
        {"params": list(model.dense.parameters()), "weight_decay": config.dense_l2},
    ]
    groups = [group | {"peak_lr": config.learning_rate} for group in groups]
    return LazyAdam(groups, lr=config.learning_rate, fused=True)


def count_rows(model: CiUBM, task: Task) -> dict[str, Int[Tensor, "rows"]]:
    """Return in how many training impressions each row of the tables appears."""
    rows, size, length = task.dataset.rows("train"), task.config.batch_size, task.config.max_length
    batches = task.dataset.batches(rows, batch_size=size, max_length=length, seed=None)
    return count_impressions(model.embedding, (batch.to(task.device) for batch in batches))


def take_step(
    model: CiUBM,
    optimizer: LazyAdam,
    batch: CtrBatch,
    task: Task,
    *,
    step: int,
    num_steps: int,
    counts: dict[str, Int[Tensor, "rows"]] | None,
) -> float:
    """Make one optimizer step; return the click loss of all processes in nats.

    Args:
        model: On the batch's device.
        optimizer: Of the model.
        batch: This process's part, with content where the model reads it.
        task: What the model is trained on.
        step: From 0.
        num_steps: Of the whole training.
        counts: From :func:`count_rows`, where the L2 penalty of the tables is for the batch's rows.

    Raises:
        RunError: the loss is not finite.
    """
    config = task.config
    if config.schedule == "cosine":
        warmup_steps = math.ceil(config.warmup_share * num_steps)
        set_learning_rate(optimizer, warmup_cosine(step, num_steps=num_steps, warmup_steps=warmup_steps))
    model.train()
    output = task.forward(model, batch)
    losses = F.binary_cross_entropy_with_logits(output.logit.float(), batch.clicks, reduction="none")
    clicks = distributed.mean_share(losses.sum(), torch.tensor(len(batch), device=losses.device))
    share = clicks
    if output.auxiliary is not None:
        share = clicks + config.auxiliary_weight * output.auxiliary.loss_share(batch.clicks)
    optimizer.zero_grad()
    share.backward()
    loss, click_loss = distributed.total(torch.stack([share, clicks])).tolist()
    if not math.isfinite(loss):
        raise RunError(
            f"train: the loss is {loss} at step {step}; training has diverged. "
            "Lower the learning rate, or look for extreme values in the input."
        )
    distributed.sum_gradients(model.parameters())
    if config.max_gradient_norm > 0:
        clip_gradients(model.parameters(), config.max_gradient_norm)
    if counts is not None:
        add_penalty(model.embedding, batch, counts, l2=config.embedding_l2)
    optimizer.step()
    return click_loss


def restore(model: CiUBM, optimizer: LazyAdam, run: Run, config: Config) -> tuple[int, Progress]:
    """Load the run's checkpoint, if there is one; return the next step and what was known before it.

    Raises:
        RunError: the checkpoint belongs to another config, or to tables held in other parts.
    """
    step, best, meta = run.restore({"model": model}, optimizer)
    if not meta:
        return 0, Progress()
    if meta.pop("config") != hash_json(config.model_dump(mode="json")):
        raise RunError(
            f"{run.checkpoint_path}: belongs to a training with other settings. "
            "Remove it, or choose another folder."
        )
    best_auc = meta.pop("best_auc")
    return step, Progress(best=best, best_auc=-math.inf if best_auc is None else best_auc, **meta)


@torch.no_grad()
def predict(model: CiUBM, task: Task, rows: range) -> Float[ndarray, "rows"]:
    """Return the logit of every impression in ``rows``, in evaluation mode and float32, as it is served."""
    model.eval()
    return task.score(rows, lambda batch: model(batch).logit)


def measure(model: CiUBM, task: Task) -> dict[str, float]:
    """Return AUC, AUC within users (weighted by impressions) and log loss on the validation part."""
    rows = task.dataset.rows("validation")
    return rank_metrics(task.dataset, rows, predict(model, task, rows))


def rank_metrics(dataset: CtrDataset, rows: range, logits: Float[ndarray, "rows"]) -> dict[str, float]:
    """Return exact metrics of ``logits`` over the impressions ``rows``; no GAUC where no user has both classes."""
    clicks = dataset.impressions.click[rows.start : rows.stop]
    users = dataset.impressions.user[rows.start : rows.stop]
    by_user = grouped_auc(clicks, logits, users)
    return {
        "auc": auc(clicks, logits),
        **({} if by_user is None else {"gauc": by_user.weighted}),
        "log_loss": log_loss(clicks, sigmoid(logits)),
    }
