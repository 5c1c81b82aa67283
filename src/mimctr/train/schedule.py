"""Learning rates as functions of the step, so that a resumed run needs no schedule state."""

import math

import torch


def warmup_cosine(step: int, *, num_steps: int, warmup_steps: int) -> float:
    """Return the share of the peak learning rate at ``step``: a linear rise, then half a cosine towards zero."""
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    done = (step - warmup_steps) / max(num_steps - warmup_steps, 1)
    return 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every parameter group's rate to ``factor`` times its ``peak_lr``."""
    for group in optimizer.param_groups:
        group["lr"] = factor * group["peak_lr"]
