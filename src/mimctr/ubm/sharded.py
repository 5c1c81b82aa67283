"""Embedding tables too big for one process: each process holds a part of the rows.

What a process asks for comes from those that hold it, and its gradient goes back there: weights, gradients and
optimizer state of a table are nowhere whole. The result is that of one process with the whole table.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mimctr.batch import PADDING
from mimctr.distributed import OwnRows, is_main, look_up, own_part, rows_in_main, size, total

DRAWN_AT_ONCE = 2**20
"""Initial weights, at most twice as many: a process holds no more than these besides its own."""


class ShardedTable(nn.Module):
    """This process's part of an embedding table; called, it answers as ``nn.Embedding`` with the whole table would.

    Every process calls it at the same time, and its backward pass too. The padding row is zero and gets no gradient.

    Args:
        num_rows: Of the whole table.
        dim: Width of a row.
        std: Standard deviation of the initial weights, which are those of one process with the same seed.
    """

    def __init__(self, num_rows: int, dim: int, *, std: float) -> None:
        super().__init__()
        self.own = own_part(num_rows)
        _draw(num_rows, dim, std=1.0, own=self.own)  # nn.Embedding draws once before its maker does
        self.weight = OwnRows(_draw(num_rows, dim, std=std, own=self.own))
        with torch.no_grad():
            self.weight[held_rows(self, torch.tensor([PADDING]))] = 0

    def forward(self, index: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape dim"]:
        """Return the rows ``index``, which number those of the whole table."""
        assert size() > 1, "the parts of a table answer together"
        asked, place = index.unique(return_inverse=True)
        rows = look_up(self.weight, asked, first=self.own.start)
        rows = rows.masked_fill((asked == PADDING).unsqueeze(1), 0.0)
        return nn.functional.embedding(place, rows)


def is_split(num_rows: int, *, shard_above: int) -> bool:
    """Return whether a table of ``num_rows`` is held in parts: there are several processes, and it has too many rows.

    Args:
        num_rows: Of the whole table.
        shard_above: Most rows that every process holds for itself; 0 = any number.
    """
    return size() > 1 and 0 < shard_above < num_rows


def held_rows(table: nn.Module, rows: Int[Tensor, "rows"]) -> Int[Tensor, "held"]:
    """Return those of ``rows`` that are in this process's weights of ``table``, as numbers of rows there."""
    if not isinstance(table, ShardedTable):
        return rows
    return rows[(rows >= table.own.start) & (rows < table.own.stop)] - table.own.start


def whole_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the weights and buffers of ``model`` as one process has them; empty in all processes but the first."""
    state = model.state_dict()
    for name, parameter in model.named_parameters():
        if isinstance(parameter, OwnRows):
            state[name] = rows_in_main(parameter)
    return state if is_main() else {}


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters of ``model``, in whatever process they are."""
    own = sum(parameter.numel() for parameter in model.parameters() if isinstance(parameter, OwnRows))
    everywhere = sum(parameter.numel() for parameter in model.parameters()) - own
    return everywhere + int(total(torch.tensor(own)))


def _draw(num_rows: int, dim: int, *, std: float, own: slice) -> Float[Tensor, "own dim"]:
    """Return the rows ``own`` of what ``nn.init.normal_`` draws for a whole table, and draw no less than it does."""
    kept = torch.empty(own.stop - own.start, dim)
    # PyTorch draws 16 numbers at a time, the last of a tensor apart.
    height = 16 * max(DRAWN_AT_ONCE // (16 * dim), 1)
    start = 0
    while start < num_rows:
        stop = start + height if start + 2 * height <= num_rows else num_rows
        piece = nn.init.normal_(torch.empty(stop - start, dim), std=std)
        first, last = max(start, own.start), min(stop, own.stop)
        if first < last:
            kept[first - own.start : last - own.start] = piece[first - start : last - start]
        start = stop
    return kept
