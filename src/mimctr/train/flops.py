"""Floating-point operations of some work, counted while it runs.

PyTorch's counter knows products of matrices. Three kinds that this package uses are missing from it: oneDNN's product,
products of a matrix and a vector, and the attention that the CPU has of its own. They are counted here by the same
rule, a multiplication and an addition being two operations.

What is computed number by number (activations, norms, sums, and the gradients that ``ubm/products.py`` writes out as
multiplications) is no product of matrices. It is counted apart, one operation for each number that is made or summed
up. Copies, look-ups of rows and their gradients move numbers and are counted nowhere.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

UNTAGGED = frozenset(
    f"aten::{name}"
    for name in (
        "_softmax",
        "_softmax_backward_data",
        "native_layer_norm",
        "native_layer_norm_backward",
        "native_batch_norm",
        "_native_batch_norm_legit",
        "_native_batch_norm_legit_no_training",
        "native_batch_norm_backward",
    )
)
"""Operators on each number of their first tensor that PyTorch marks neither as pointwise nor as a reduction."""


class Operations:
    """What was counted so far.

    Attributes:
        products: Floating-point operations of products of matrices, convolutions and attention.
        elementwise: Numbers made or summed up one by one.
    """

    def __init__(self) -> None:
        self.products = 0
        self.elementwise = 0


@contextmanager
def count_operations() -> Iterator[Operations]:
    """Yield what is counted of all work inside, forward and backward; complete when the context is left."""
    counted = Operations()
    counter = FlopCounterMode(display=False, custom_mapping=_formulas())
    with _Elementwise(counted), counter:
        yield counted
    counted.products = counter.get_total_flops()


class _Elementwise(TorchDispatchMode):
    def __init__(self, counted: Operations) -> None:
        super().__init__()
        self.counted = counted

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if torch.Tag.pointwise in func.tags:
            self.counted.elementwise += _size(out)
        elif torch.Tag.reduction in func.tags or func._schema.name in UNTAGGED:
            self.counted.elementwise += _size(args[0])
        return out


def _size(value: Any) -> int:
    return value.numel() if isinstance(value, Tensor) and value.is_floating_point() else 0


def _formulas() -> dict[Any, Callable[..., int]]:
    """Return the formulas that PyTorch's counter lacks, by operator; they see shapes in place of tensors."""
    aten = torch.ops.aten
    formulas: dict[Any, Callable[..., int]] = {
        aten.mv: _matrix_times_vector,
        aten.addmv: lambda _, matrix, *more, **options: _matrix_times_vector(matrix),
        aten.dot: lambda one, *more, **options: 2 * one[0],
        aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_gradient,
    }
    if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        formulas[torch.ops.mkldnn._linear_pointwise] = _onednn_product
    return formulas


def _matrix_times_vector(matrix: torch.Size, *_: object, **__: object) -> int:
    return 2 * math.prod(matrix)


def _onednn_product(
    x: torch.Size, weight: torch.Size, *_: object, out_shape: torch.Size, **__: object
) -> int:
    """Count what :func:`mimctr.ubm.linear.product` gives to oneDNN."""
    return 2 * math.prod(out_shape) * x[-1]


def _attention(query: torch.Size, key: torch.Size, value: torch.Size, *_: object, **__: object) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_gradient(
    gradient: torch.Size, query: torch.Size, key: torch.Size, value: torch.Size, *_: object, **__: object
) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)
