"""A table in parts, against nn.Embedding with the whole one."""

from typing import Any

import pytest
import torch
from processes import run_in
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mimctr import distributed
from mimctr.ubm import sharded
from mimctr.ubm.sharded import ShardedTable, count_parameters, held_rows, is_split, whole_state

DIM, STD = 3, 0.5
COUNT = 3
PARTS = {10: [4, 4, 2], 2: [1, 1, 0], 9: [3, 3, 3], 7: [3, 3, 1], 4: [2, 2, 0]}
"""Rows of a table, and of each process's part: as torch.chunk cuts them."""
INDICES = ([[5, 0], [1, 5], [3, 8]], [[0, 8], [8, 2], [6, 1]], [])
"""What each process asks of nine rows or more: padding, repeats, the others' rows, nothing."""


def whole_table(num_rows: int, dim: int = DIM) -> nn.Embedding:
    torch.manual_seed(7)
    table = nn.Embedding(num_rows, dim, padding_idx=0)
    nn.init.normal_(table.weight, std=STD)
    with torch.no_grad():
        table.weight[0] = 0
    return table


def table_in_parts(num_rows: int, dim: int = DIM) -> ShardedTable:
    torch.manual_seed(7)
    return ShardedTable(num_rows, dim, std=STD)


def index_of(process: int) -> Tensor:
    return torch.tensor(INDICES[process], dtype=torch.long).reshape(-1, 2)


def loss_of(rows: Tensor, index: Tensor) -> Tensor:
    """No column and no place counts like another."""
    weight = torch.arange(1.0, 1 + 2 * DIM).reshape(2, DIM)
    return (rows.square() * weight).sum() + (rows * (1 + index).unsqueeze(-1)).sum()


def compare_parts() -> None:
    for num_rows, parts in PARTS.items():
        whole, table = whole_table(num_rows), table_in_parts(num_rows)
        after = torch.rand(4)
        whole_table(num_rows)
        assert torch.equal(torch.rand(4), after), "what is drawn after a table changes with its parts"
        assert len(table.weight) == parts[distributed.rank()]
        start = sum(parts[: distributed.rank()])
        assert torch.equal(table.weight, whole.weight[start : start + len(table.weight)])
        every = torch.arange(num_rows)
        assert torch.equal(table(every), whole(every))
        held = every[start : start + len(table.weight)]
        assert torch.equal(held_rows(table, every), held - start)
        assert torch.equal(held_rows(whole, every), every)


def compare_training(num_rows: int) -> None:
    """Gradients, then Adam with weight decay, on rows that some process, each or none asks for."""
    rank = distributed.rank()
    whole, table = whole_table(num_rows), table_in_parts(num_rows)
    before = whole.weight.detach().clone()
    height = PARTS[num_rows][0]
    own = slice(height * rank, height * rank + height)
    optimizers = [
        torch.optim.Adam(each.parameters(), lr=0.1, weight_decay=0.1, fused=True) for each in (whole, table)
    ]
    for _ in range(3):
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss_of(table(index_of(rank)), index_of(rank)).backward()
        sum(loss_of(whole(index_of(process)), index_of(process)) for process in range(COUNT)).backward()
        distributed.sum_gradients(table.parameters())
        torch.testing.assert_close(table.weight.grad, whole.weight.grad[own])
        for optimizer in optimizers:
            optimizer.step()
        torch.testing.assert_close(table.weight, whole.weight[own])
    assert not whole.weight[0].any()
    assert (whole.weight[1:] != before[1:]).all()
    assert rank != 0 or not table.weight[0].any()

    state = whole_state(nn.ModuleDict({"table": table, "other": whole}))
    assert list(state) == (["table.weight", "other.weight"] if rank == 0 else [])
    if rank == 0:
        torch.testing.assert_close(state["table.weight"], whole.weight.detach())
    assert count_parameters(nn.ModuleList([table, nn.Linear(2, 2)])) == num_rows * DIM + 6


class Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else [result]:
            if isinstance(value, Tensor):
                self.numel = max(self.numel, value.numel())
        return result


def hold_a_part() -> None:
    """From the first weight to the last step no process has more than its rows, and all three count their bytes."""
    num_rows, dim = 100_000, 4
    sharded.DRAWN_AT_ONCE = 10_000
    distributed.BUCKET = 10_000
    with Largest() as largest:
        table = table_in_parts(num_rows, dim)
        optimizer = torch.optim.Adam(table.parameters(), fused=True)
        for _ in range(2):
            optimizer.zero_grad()
            table(index_of(distributed.rank())).sum().backward()
            distributed.sum_gradients(table.parameters())
            optimizer.step()
    own = -(-num_rows // COUNT) * dim
    assert largest.numel <= own
    state = optimizer.state[table.weight]
    held = [table.weight, table.weight.grad, state["exp_avg"], state["exp_avg_sq"]]
    held_bytes = sum(tensor.untyped_storage().nbytes() for tensor in held)
    assert held_bytes == 4 * 4 * len(table.weight) * dim
    assert distributed.total(torch.tensor(held_bytes)) == 4 * 4 * num_rows * dim
    with Largest() as largest:
        state = whole_state(table)
    assert largest.numel == (num_rows * dim if distributed.rank() == 0 else len(table.weight) * dim)
    if distributed.rank() == 0:
        assert state["weight"].shape == (num_rows, dim)


def everything() -> None:
    compare_parts()
    compare_training(9)
    compare_training(10)
    hold_a_part()


def test_three_processes_with_a_part_each_are_one_with_the_whole():
    run_in(COUNT, everything)


@pytest.mark.parametrize(("num_rows", "dim"), [(1001, 4), (1001, 3), (33, 1), (15, 1), (17, 1), (5, 7)])
def test_weights_drawn_in_pieces_are_those_drawn_at_once(
    num_rows: int, dim: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sharded, "DRAWN_AT_ONCE", 16)
    assert torch.equal(table_in_parts(num_rows, dim).weight, whole_table(num_rows, dim).weight)


def test_one_process_splits_nothing():
    assert not is_split(10, shard_above=3)
