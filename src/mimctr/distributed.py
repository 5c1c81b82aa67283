"""Several processes of one run, started by torchrun: who this one is, and what makes them one.

Every loss is this process's *share*: the sum over its own rows, divided by the count over all processes. The shares add
up to the loss of one process with all the rows, and their gradients, summed, to its gradient. All processes see one
file system; the first one writes.

A table that is too big for one process is held in parts, one a process (``OwnRows``). Then every process answers the
others' questions for its rows, all at the same time.
"""

import contextlib
import datetime
import functools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from mimctr.errors import ConfigError

T = TypeVar("T")
LONGEST_WAIT = datetime.timedelta(days=1)
"""One process may work alone for as long: generate tables, say."""
BUCKET = 2**23
"""Gradients that are summed in one message, at most (32 MB), unless one tensor has more."""

_working_alone = False
_working_apart = False


class OwnRows(nn.Parameter):
    """This process's rows of a table; no other process has them. Their gradient is whole as it comes."""


@contextlib.contextmanager
def session() -> Iterator[None]:
    """Join the processes that torchrun started; nothing where there is one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=LONGEST_WAIT)
    yield
    _mesh.cache_clear()
    dist.destroy_process_group()  # after an error the others may still wait: torchrun ends them


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Let every process do the same work for itself, as if there were no others."""
    global _working_alone
    before, _working_alone = _working_alone, True
    try:
        yield
    finally:
        _working_alone = before


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """Let each process do work of its own, and write it, as if there were no others."""
    global _working_apart
    before, _working_apart = _working_apart, True
    try:
        with alone():
            yield
    finally:
        _working_apart = before


def size() -> int:
    """Return the number of processes P."""
    return dist.get_world_size() if dist.is_initialized() and not _working_alone else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if size() > 1 else 0


def is_main() -> bool:
    """Return whether this is the process that writes and speaks."""
    return not dist.is_initialized() or _working_apart or dist.get_rank() == 0


def own_rows(count: int) -> slice:
    """Return which of ``count`` rows are this process's: an equal, contiguous part.

    Raises:
        ConfigError: the rows cannot be shared equally.
    """
    if count % size():
        raise ConfigError(
            f"batch of {count} rows: does not divide over {size()} processes. Choose a batch_size that does."
        )
    part = count // size()
    return slice(rank() * part, (rank() + 1) * part)


def own_part(count: int) -> slice:
    """Return which of a table's ``count`` rows are this process's: contiguous parts, the last ones smaller or empty."""
    part = -(-count // size())
    return slice(min(rank() * part, count), min((rank() + 1) * part, count))


def largest_batch(count: int) -> int:
    """Return how many of ``count`` rows, at most, can be shared equally."""
    return count - count % size()


def gather_rows(rows: Tensor) -> Tensor:
    """Return the rows of all processes, in the order of the processes; gradients go back to where rows came from.

    Args:
        rows: As many in every process.
    """
    return _GatherRows.apply(rows) if size() > 1 else rows


def gather_padded(rows: Int[Tensor, "rows"]) -> Int[Tensor, "all_rows"]:
    """Return the row numbers of all processes, in the order of the processes, all padded with 0 to the longest."""
    if size() == 1:
        return rows
    longest = torch.tensor(len(rows), device=rows.device)
    dist.all_reduce(longest, dist.ReduceOp.MAX)
    return gather_rows(F.pad(rows, (0, int(longest) - len(rows))))


def look_up(
    own: Float[Tensor, "own dim"], asked: Int[Tensor, "asked"], *, first: int
) -> Float[Tensor, "asked dim"]:
    """Return rows of a table whose parts the processes hold; gradients go back to where the rows are.

    Every process asks at the same time, also one that has nothing to ask. The exchange is that of PyTorch's distributed
    tensors: what each process knows of all answers is a partial sum, which is summed and cut by who asked. Their own
    embedding would make a gradient of the whole table in every process.

    Args:
        own: This process's part (:func:`own_part`).
        asked: Row numbers in the whole table.
        first: Number of the first row of ``own``.
    """
    from torch.distributed.tensor import DTensor, Partial, Shard  # seconds, that only this needs

    asked_by_all = gather_padded(asked)
    here = ((asked_by_all >= first) & (asked_by_all < first + len(own))).nonzero().squeeze(1)
    found = F.embedding(asked_by_all[here] - first, own)
    known = found.new_zeros(len(asked_by_all), own.shape[1]).index_copy(0, here, found)
    answers = DTensor.from_local(known, _mesh(own.device.type), [Partial()], run_check=False)
    return answers.redistribute(placements=[Shard(0)]).to_local()[: len(asked)]


def rows_in_main(own: Float[Tensor, "own dim"]) -> Float[Tensor, "rows dim"]:
    """Return a whole table to the first process, on the CPU, piece by piece; to the others, their own part.

    Args:
        own: This process's part (:func:`own_part`).
    """
    own = own.detach().cpu()
    if size() == 1:
        return own
    count = int(total(torch.tensor(len(own))))
    height = max(BUCKET // own.shape[1], 1)
    if rank() != 0:
        for piece in own.split(height) if len(own) else ():
            dist.send(piece, dst=0)
        return own
    whole = own.new_empty(count, own.shape[1])
    part = len(own)
    whole[:part] = own
    for start in range(part, count, part):
        for piece in whole[start : start + part].split(height):
            dist.recv(piece, src=start // part)
    return whole


def sum_shares(share: Tensor) -> Tensor:
    """Return the sum over all processes; its gradient reaches every process's share."""
    return _SumShares.apply(share) if size() > 1 else share


def total(share: Tensor) -> Tensor:
    """Return the sum over all processes, without gradient."""
    with torch.no_grad():
        return sum_shares(share.detach())


def mean_share(summed: Float[Tensor, "*shape"], count: Tensor) -> Float[Tensor, "*shape"]:
    """Return this process's share of a mean over all processes; 0 where nothing was counted anywhere.

    Args:
        summed: Sum over this process's rows.
        count: How many of them count.
    """
    return summed / total(count).clamp(min=1)


def average(facts: Mapping[str, float]) -> dict[str, float]:
    """Return the mean over all processes of each of some numbers; every process names the same ones."""
    if size() == 1:
        return dict(facts)
    means = total(torch.tensor(list(facts.values()), dtype=torch.float64)) / size()
    return dict(zip(facts, means.tolist(), strict=True))


def mean_rows(rows: Float[Tensor, "rows width"]) -> Float[Tensor, "width"]:
    """Return the mean over the rows of all processes, with gradient; zero where there are none."""
    return sum_shares(mean_share(rows.sum(0), torch.tensor(len(rows), device=rows.device)))


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its sum over all processes; one that no process has stays None.

    A gradient is sparse in all processes that have it, or in none. That of :class:`OwnRows` is left as it is.
    """
    if size() == 1:
        return
    parameters = [parameter for parameter in parameters if not isinstance(parameter, OwnRows)]
    for device in sorted({parameter.device for parameter in parameters}, key=str):
        own = [parameter for parameter in parameters if parameter.device == device]
        kinds = [[p.grad is not None, p.grad is not None and p.grad.is_sparse] for p in own]
        there = total(torch.tensor(kinds, dtype=torch.float32, device=device).view(-1, 2)).bool().tolist()
        for parameter, (_, sparse) in zip(own, there, strict=True):
            if sparse:
                _sum_sparse_gradient(parameter)
        for bucket in _buckets([p for p, kind in zip(own, there, strict=True) if kind == [True, False]]):
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
            summed = total(torch.cat([gradient.flatten() for gradient in gradients]))
            pieces = summed.split([gradient.numel() for gradient in gradients])
            for parameter, piece in zip(bucket, pieces, strict=True):
                parameter.grad = piece.view_as(parameter)


def _sum_sparse_gradient(parameter: nn.Parameter) -> None:
    """Join the rows of all processes: no process makes a gradient as large as the parameter."""
    rows = torch.zeros(0, dtype=torch.long, device=parameter.device)
    values = torch.zeros_like(parameter[:0])
    if parameter.grad is not None:
        gradient = parameter.grad.coalesce()
        rows, values = gradient.indices()[0], gradient.values()
    counts = torch.zeros(size(), dtype=torch.long, device=parameter.device)
    counts[rank()] = len(rows)
    counts = total(counts)
    most = int(counts.max())
    real = torch.arange(most, device=parameter.device) < counts.unsqueeze(1)  # (processes, rows)
    with torch.no_grad():
        joined = [
            gather_rows(torch.cat([own, own.new_zeros(most - len(own), *own.shape[1:])]))[real.flatten()]
            for own in (rows, values)
        ]
    parameter.grad = torch.sparse_coo_tensor(
        joined[0].unsqueeze(0), joined[1], parameter.shape, check_invariants=False
    ).coalesce()


def from_main(work: Callable[[], T]) -> T:
    """Let the first process do ``work``; return to all what it returned.

    Args:
        work: Returns what JSON can hold.
    """
    if size() == 1:
        return work()
    message = torch.empty(0, dtype=torch.uint8)
    if rank() == 0:
        message = torch.frombuffer(bytearray(json.dumps(work()).encode()), dtype=torch.uint8)
    length = torch.tensor(len(message))
    dist.broadcast(length, src=0)
    if rank() != 0:
        message = torch.empty(int(length), dtype=torch.uint8)
    dist.broadcast(message, src=0)
    return json.loads(message.numpy().tobytes())


def barrier() -> None:
    """Wait for all processes."""
    total(torch.zeros(()))


@functools.cache
def _mesh(device_type: str) -> DeviceMesh:
    return init_device_mesh(device_type, (dist.get_world_size(),))


def _buckets(parameters: list[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    bucket: list[nn.Parameter] = []
    for parameter in parameters:
        if bucket and sum(p.numel() for p in bucket) + parameter.numel() > BUCKET:
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        gathered = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(size())]
        dist.all_gather(gathered, rows.contiguous())
        return torch.cat(gathered)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _summed(gradient)[own_rows(len(gradient))]


class _SumShares(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, share: Tensor) -> Tensor:
        return _summed(share)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _summed(gradient)


def _summed(values: Tensor) -> Tensor:
    summed = values.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(summed)
    return summed
