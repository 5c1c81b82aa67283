"""One side of Table 6 in one mode, measured in the process that calls it."""

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int
from numpy import ndarray

from mimctr.batch import CtrBatch
from mimctr.data.dataset import CtrDataset
from mimctr.encoders.item import ItemEncoder
from mimctr.errors import ConfigError
from mimctr.evaluate.cost import Measured, Mode, Operations, Run, Side
from mimctr.precision import has_bfloat16
from mimctr.recipes.cost_config import Config
from mimctr.recipes.cost_content import EncodedContent
from mimctr.recipes.ctr_fitting import Task, make_optimizer, take_step
from mimctr.recipes.ctr_model import build_model
from mimctr.recipes.device import pick_device
from mimctr.recipes.embed import open_content
from mimctr.train.flops import count_operations
from mimctr.train.memory import keep_freed_memory, peak_memory, reset_peak_memory
from mimctr.train.seeds import seed_step
from mimctr.ubm.ciubm import CiUBM

ENCODER_LEARNING_RATE = 1e-5
"""Of the towers end to end: too small to lead anywhere in some steps; what a step costs does not depend on it."""


class Inputs(NamedTuple):
    """Folders that are read, and one for files that are gone afterwards."""

    dataset: Path
    content: Path
    encoder: Path
    scratch: Path


class Setup(NamedTuple):
    """What steps are made of."""

    data: CtrDataset
    model: CiUBM
    attach: Callable[[CtrBatch], CtrBatch]
    encoder: ItemEncoder | None
    """Where it is trained."""


def compared_rows(data: CtrDataset, config: Config) -> Int[ndarray, "rows"]:
    """Return the impressions of the compared steps, of the training part; operations are counted on the first batch."""
    count = config.compared_batch_size * (config.num_compared_steps + 1)
    return np.random.default_rng(config.seed).permutation(np.asarray(data.rows("train")))[:count]


def shown_items(data: CtrDataset, rows: Int[ndarray, "rows"], config: Config) -> Int[ndarray, "items"]:
    """Return the different items that some impressions show, targets and behaviors."""
    batch = data.batch(rows, max_length=config.max_length)
    return np.union1d(batch.target.numpy(), batch.behaviors[batch.mask].numpy())


def load_encoder(folder: Path, config: Config) -> ItemEncoder:
    """Return the item encoder on the device, its towers as precise as the config says.

    Raises:
        ConfigError: bfloat16 is named, and the device has none.
    """
    device = pick_device(config.device)
    if config.towers == "bfloat16" and not has_bfloat16(device):
        raise ConfigError(
            "cost.towers: this processor has no products in bfloat16 to be measured. Use 'own' or 'float32'."
        )
    encoder = ItemEncoder.load(folder).to(device)
    if config.towers != "own":
        encoder.bf16 = config.towers == "bfloat16"
    return encoder


def open_side(inputs: Inputs, config: Config, side: Side) -> Setup:
    """Return what the steps of a side are made of."""
    data, device = CtrDataset.open(inputs.dataset), pick_device(config.device)
    settings = config.ctr(with_content=side != "base", batch_size=config.compared_batch_size)
    if side == "base":
        return Setup(
            data, build_model(data, settings, content_dim=None).to(device), lambda batch: batch, None
        )
    if side == "mim":
        table = open_content(data, inputs.content)
        return Setup(data, build_model(data, settings, content_dim=table.dim).to(device), table.attach, None)
    encoder = load_encoder(inputs.encoder, config)
    trained = side.startswith("end_to_end")
    content = EncodedContent(
        data,
        encoder,
        shown_items(data, compared_rows(data, config), config),
        inputs.scratch / "pixels.npy",
        items_at_once=config.items_at_once,
        trained=trained,
        distinct=side.endswith("distinct"),
    )
    model = build_model(data, settings, content_dim=encoder.dim).to(device)
    return Setup(data, model, content.attach, encoder if trained else None)


def measure(inputs: Inputs, config: Config, side: Side, mode: Mode) -> Measured:
    """Return what a side costs in a mode; to be called in a fresh process, whose memory is looked at."""
    keep_freed_memory()
    device = pick_device(config.device)
    _reset(device)
    start = peak_memory()
    setup = open_side(inputs, config, side)
    step = _training_step(setup, config) if mode == "training" else _inference_step(setup, config)
    rows = compared_rows(setup.data, config)
    compared = _run(
        step, _batches(setup, rows, config, config.compared_batch_size), device, start=start, warmup=1
    )
    usual = None
    if side in ("base", "mim"):
        count = config.batch_size * (config.num_steps + config.num_warmup_steps)
        train = np.asarray(setup.data.rows("train"))
        many = np.random.default_rng(config.seed).permutation(train)[:count]
        batches = _batches(setup, many, config, config.batch_size)
        usual = _run(step, batches, device, start=start, warmup=config.num_warmup_steps)
    return Measured(
        side=side, mode=mode, operations=count_step(setup, config, mode), compared=compared, usual=usual
    )


def count_step(setup: Setup, config: Config, mode: Mode) -> Operations:
    """Return the operations of an impression, forward and in training backward, on the first compared batch.

    The optimizer's step is not counted: it is one of a batch, and the larger that is, the less of it is an
    impression's.
    """
    rows = compared_rows(setup.data, config)[: config.compared_batch_size]
    batch = setup.data.batch(rows, max_length=config.max_length)
    setup.model.train(mode == "training")
    with count_operations() as counted, torch.set_grad_enabled(mode == "training"):
        whole = setup.attach(batch).to(pick_device(config.device))
        output = setup.model(whole)
        if mode == "training":
            loss = F.binary_cross_entropy_with_logits(output.logit, whole.clicks)
            if output.auxiliary is not None:
                loss = loss + output.auxiliary.loss_share(whole.clicks)
            loss.backward()
    return Operations(products=counted.products / len(rows), elementwise=counted.elementwise / len(rows))


def _training_step(setup: Setup, config: Config) -> Callable[[CtrBatch, int], None]:
    settings = config.ctr(with_content=True, batch_size=config.compared_batch_size)
    task = Task(dataset=setup.data, content=None, config=settings, device=pick_device(config.device))
    optimizer = make_optimizer(setup.model, settings)
    if setup.encoder is not None:
        towers = {
            "params": list(setup.encoder.parameters()),
            "lr": ENCODER_LEARNING_RATE,
            "weight_decay": 0.0,
        }
        optimizer.add_param_group(towers)

    def step(batch: CtrBatch, number: int) -> None:
        seed_step(config.seed, number)
        whole = setup.attach(batch).to(task.device)
        take_step(setup.model, optimizer, whole, task, step=number, num_steps=1, counts=None)

    return step


def _inference_step(setup: Setup, config: Config) -> Callable[[CtrBatch, int], None]:
    device = pick_device(config.device)
    setup.model.eval()

    def step(batch: CtrBatch, _: int) -> None:
        with torch.no_grad():
            setup.model(setup.attach(batch).to(device)).logit.cpu()

    return step


def _batches(setup: Setup, rows: Int[ndarray, "rows"], config: Config, batch_size: int) -> Iterator[CtrBatch]:
    return setup.data.batches(rows, batch_size=batch_size, max_length=config.max_length, seed=None)


def _run(
    step: Callable[[CtrBatch, int], None],
    batches: Iterator[CtrBatch],
    device: torch.device,
    *,
    start: int,
    warmup: int,
) -> Run:
    """Make a step of every batch; the clock and the memory are looked at as :class:`Run` says."""
    _reset(device)
    seconds, size = [], 0
    begun = time.perf_counter()
    for number, batch in enumerate(batches):
        step(batch, number)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        ended = time.perf_counter()
        seconds.append((ended - begun) / len(batch))
        size = max(size, len(batch))
        begun = ended
    timed = seconds[warmup:] or seconds
    if device.type == "cuda":
        memory, whole = torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
    else:
        whole = peak_memory()
        memory = max(whole - start, 0)
    return Run(
        batch_size=size,
        num_steps=len(timed),
        seconds=statistics.median(timed),
        memory_bytes=memory,
        process_bytes=whole,
    )


def _reset(device: torch.device) -> None:
    reset_peak_memory()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
