"""Adam (Kingma and Ba 2015, arXiv:1412.6980) whose step is as large as what the batch touched."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from mimctr.distributed import OwnRows, total


class LazyAdam(torch.optim.Adam):
    """PyTorch's Adam; of a parameter with a sparse gradient, only the rows of that gradient move.

    Neither the averages nor the penalty of another row change, whereas Adam goes on moving a row along its averages for
    some steps, and shrinks every row. The bias correction counts all steps. It is ``torch.optim.SparseAdam`` with an L2
    penalty, and with other parameters beside it in one optimizer.
    """

    def __init__(self, params: Iterable[Any], **settings: Any) -> None:
        super().__init__(params, **settings)
        self.register_step_pre_hook(_move_rows_first)


@torch.no_grad()
def _move_rows_first(optimizer: Any, *_: Any) -> None:
    """Make the step of all sparse gradients, and leave none of them to Adam's own."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None and parameter.grad.is_sparse:
                _move_rows(parameter, group, optimizer.state[parameter])
                parameter.grad = None


def _move_rows(parameter: nn.Parameter, group: dict[str, Any], state: dict[str, Any]) -> None:
    if not state:
        state["step"] = torch.zeros((), device=parameter.device)
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
    state["step"] += 1
    assert parameter.grad is not None, "looked at by the caller"
    gradient = parameter.grad.coalesce()
    rows, values = gradient.indices()[0], gradient.values()
    weights = parameter.index_select(0, rows)
    if group["weight_decay"]:
        values = values.add(weights, alpha=group["weight_decay"])
    beta1, beta2 = group["betas"]
    mean = _average(state["exp_avg"], rows, values, beta1)
    square = _average(state["exp_avg_sq"], rows, values.square(), beta2)
    step = state["step"].item()
    scale = square.div_(1 - beta2**step).sqrt_().add_(group["eps"])
    weights.addcdiv_(mean, scale, value=-group["lr"] / (1 - beta1**step))
    parameter.index_copy_(0, rows, weights)


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> None:
    """Scale all gradients, after those of all processes were summed, such that their norm is at most ``max_norm``.

    It is the norm of all gradients as one vector: sparse ones are part of it, and the rows that other processes hold.
    """
    values, squares, own_squares = [], torch.zeros(()), torch.zeros(())
    for parameter in parameters:
        if parameter.grad is None:
            continue
        if parameter.grad.is_sparse:
            parameter.grad = parameter.grad.coalesce()  # a row that stands twice is one row
        value = parameter.grad.values() if parameter.grad.is_sparse else parameter.grad
        values.append(value)
        square = value.square().sum()
        if isinstance(parameter, OwnRows):
            own_squares = own_squares + square
        else:
            squares = squares + square
    factor = (max_norm / ((squares + total(own_squares)).sqrt() + 1e-6)).clamp(max=1.0)
    for value in values:
        value.mul_(factor)


def _average(averages: Tensor, rows: Tensor, values: Tensor, beta: float) -> Tensor:
    """Move the averages of some rows towards ``values``; return them."""
    moved = averages.index_select(0, rows).lerp_(values, 1 - beta)
    averages.index_copy_(0, rows, moved)
    return moved
