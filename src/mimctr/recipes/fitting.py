"""The loop that all pre-training losses share: seeded steps, held-out loss, checkpoint, exact resume."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Int
from numpy import ndarray
from torch import Tensor, nn

from mimctr import distributed
from mimctr.errors import RunError
from mimctr.progress import track
from mimctr.recipes.content import epoch_batch, step_size
from mimctr.train.run import Run
from mimctr.train.schedule import set_learning_rate, warmup_cosine
from mimctr.train.seeds import seed_step

MAX_GRADIENT_NORM = 1.0
WARMUP_SHARE = 0.05
LOG_EVERY = 10
"""Steps between two lines of training loss."""


def adamw(
    parts: Mapping[str, tuple[Iterable[nn.Parameter], float]], *, weight_decay: float
) -> torch.optim.AdamW:
    """Return AdamW over named parts with a peak learning rate each; decay reaches matrices only, not biases and norms.

    Args:
        parts: By name (for reading only): parameters and peak learning rate.
        weight_decay: Decoupled decay of matrices.
    """
    groups: list[dict[str, Any]] = []
    for parameters, rate in parts.values():
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        for chosen, decay in (
            ([p for p in trained if p.ndim >= 2], weight_decay),
            ([p for p in trained if p.ndim < 2], 0.0),
        ):
            if chosen:
                groups.append({"params": chosen, "lr": rate, "peak_lr": rate, "weight_decay": decay})
    return torch.optim.AdamW(groups)


def take_step(optimizer: torch.optim.Optimizer, loss: Tensor, *, step: int, num_steps: int) -> None:
    """Make one optimizer step: warm-up and cosine of the learning rate, gradient clipped to norm one.

    Args:
        optimizer: Of the same weights in every process.
        loss: This process's share.
        step: Of the schedule.
        num_steps: Of the schedule.
    """
    set_learning_rate(
        optimizer, warmup_cosine(step, num_steps=num_steps, warmup_steps=math.ceil(WARMUP_SHARE * num_steps))
    )
    optimizer.zero_grad()
    loss.backward()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    distributed.sum_gradients(parameters)
    nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT_NORM)
    optimizer.step()


def resume(
    run: Run, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer, *, batch_size: int
) -> int:
    """Load the run's checkpoint, if it has one; return the next step.

    Raises:
        RunError: batches had another size before, as another number of processes shared too few rows.
    """
    start, _, meta = run.restore(modules, optimizer)
    if meta and meta["batch_size"] != batch_size:
        raise RunError(
            f"{run.folder}: its batches had {meta['batch_size']} rows, with {distributed.size()} processes they would "
            f"have {batch_size}. Go on with as many processes as before, or remove the folder."
        )
    return start


def fit(
    run: Run,
    model: nn.Module,
    loss_of: Callable[[ndarray], Tensor],
    held_out: Callable[[], dict[str, float]],
    *,
    trained: Int[ndarray, "trained"],
    batch_size: int,
    num_steps: int,
    learning_rate: float,
    weight_decay: float,
    seed: int,
) -> dict[str, float]:
    """Train ``model`` for ``num_steps``; return the held-out metrics at the end.

    Held-out metrics are logged before the first step, four times in between, and at the end. A call after an
    interruption goes on from the checkpoint and ends bit for bit where an undisturbed one ends.

    Args:
        run: Where metrics and checkpoint go.
        model: Ends in evaluation mode.
        loss_of: This process's share of the loss, given its rows of a batch; what it draws comes from PyTorch's
            generator, seeded before.
        held_out: Metrics in evaluation mode; every process computes them for itself.
        trained: Rows to train on, a shuffled pass an epoch.
        batch_size: Rows per step, over all processes.
        num_steps: Steps in all.
        learning_rate: At the peak.
        weight_decay: Of matrices.
        seed: Of everything drawn.

    Raises:
        ConfigError: there are fewer rows than processes, or a batch does not divide over them.
        RunError: the loss is not finite.
    """
    optimizer = adamw({"model": (model.parameters(), learning_rate)}, weight_decay=weight_decay)
    rows = step_size(len(trained), batch_size)
    start = resume(run, {"model": model}, optimizer, batch_size=rows)
    evaluate_every = max(num_steps // 5, 1)
    for step in track(range(start, num_steps), total=num_steps, description=run.folder.name, start=start):
        if step % evaluate_every == 0:
            run.log(step, **evaluate(model, held_out, seed))
        seed_step(seed, step)
        model.train()
        batch = trained[epoch_batch(len(trained), batch_size=batch_size, seed=seed, step=step)]
        loss = loss_of(batch[distributed.own_rows(len(batch))])
        run.refuse_if_not_finite(step, loss, {"rows": batch})
        if step % LOG_EVERY == 0:
            run.log(step, loss=distributed.total(loss).item())
        take_step(optimizer, loss, step=step, num_steps=num_steps)
        run.checkpoint_if_due(step + 1, {"model": model}, optimizer, meta={"batch_size": rows})
    if start < num_steps:
        run.checkpoint(num_steps, {"model": model}, optimizer, meta={"batch_size": rows})
    metrics = evaluate(model, held_out, seed)
    run.log(num_steps, **metrics)
    return metrics


def evaluate(model: nn.Module, held_out: Callable[[], dict[str, float]], seed: int) -> dict[str, float]:
    """Return ``held_out()`` in evaluation mode, without gradient, with the same draws every time."""
    model.eval()
    with torch.no_grad(), distributed.alone():
        seed_step(seed, 0)
        return held_out()
