"""What content costs with the representation center and without it: MIM, Table 6.

mimctr cost runs/demo
"""

import logging
import multiprocessing
import signal
import tempfile
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import get_args

import torch

from mimctr.data.dataset import CtrDataset
from mimctr.errors import RunError, StaleSnapshot
from mimctr.evaluate.cost import Agreement, Cost, Measured, Mode, Side, write_cost
from mimctr.evaluate.machine import describe_machine, describe_versions
from mimctr.progress import track
from mimctr.recipes.cost_config import Config
from mimctr.recipes.cost_content import EncodedContent
from mimctr.recipes.cost_measure import Inputs, compared_rows, load_encoder, measure, shown_items
from mimctr.recipes.ctr_model import build_model
from mimctr.recipes.device import pick_device
from mimctr.recipes.embed import open_content

__all__ = ["Config", "main"]

logger = logging.getLogger(__name__)

RECORD = "cost.json"
LEAST_COSINE, LARGEST_DIFFERENCE = 0.99, 0.01
"""Of an item's vector to the center's, and of a logit: float16 there, towers in bfloat16 here."""
MODES: tuple[Mode, ...] = get_args(Mode)


def main(dataset: Path, content: Path, encoder: Path, out: Path, config: Config) -> Cost:
    """Measure every side of Table 6, each mode in a fresh process; return what ``cost.json`` holds.

    Args:
        dataset: Written by ``mimctr prepare``.
        content: Written by ``mimctr embed`` with ``encoder``.
        encoder: Item encoder, written by ``mimctr csft``.
        out: Created if missing.
        config: Settings.

    Raises:
        StaleSnapshot: the center's vectors are not those of ``encoder``.
        RunError: the training part is too short, or a process was killed.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as scratch:
        inputs = Inputs(dataset, content, encoder, Path(scratch))
        cost = check(inputs, config)
        wanted = [(side, mode) for side in sides(config) for mode in MODES]
        found = []
        for side, mode in track(wanted, total=len(wanted), description="cost", unit="measurements"):
            found.append(in_fresh_process(inputs, config, side, mode))
            run = found[-1].compared
            logger.info(
                "cost: %s, %s: %.4g GFLOP and %.4g ms an impression",
                side.replace("_", " "),
                mode,
                found[-1].operations.products / 1e9,
                run.seconds * 1e3,
            )
    cost = cost.model_copy(update={"measured": found})
    write_cost(out / RECORD, cost)
    return cost


def sides(config: Config) -> list[Side]:
    """Return what is measured, in the order of Table 6."""
    return [side for side in get_args(Side) if config.distinct or not side.endswith("distinct")]


def check(inputs: Inputs, config: Config) -> Cost:
    """Return a cost of which nothing has been measured yet; the encoder in the loop says what the center says.

    Raises:
        StaleSnapshot: it does not.
        RunError: the training part is too short.
    """
    data, device = CtrDataset.open(inputs.dataset), pick_device(config.device)
    wanted = config.compared_batch_size * (config.num_compared_steps + 1)
    if len(data.rows("train")) < wanted:
        raise RunError(
            f"{inputs.dataset}: its training part has {len(data.rows('train')):,} impressions, and {wanted:,} are "
            "measured. Set a smaller compared_batch_size, or fewer num_compared_steps."
        )
    encoder = load_encoder(inputs.encoder, config)
    table = open_content(data, inputs.content, encoder=encoder.fingerprint)
    rows = compared_rows(data, config)[: config.compared_batch_size]
    batch = data.batch(rows, max_length=config.max_length)
    items = shown_items(data, rows, config)
    encoded = EncodedContent(
        data,
        encoder,
        items,
        inputs.scratch / "pixels.npy",
        items_at_once=config.items_at_once,
        trained=False,
        distinct=False,
    )
    settings = config.ctr(with_content=True, batch_size=config.compared_batch_size)
    model = build_model(data, settings, content_dim=table.dim).to(device).eval()
    with torch.no_grad():
        logits = [model(one.attach(batch).to(device)).logit.cpu() for one in (table, encoded)]
        vectors, known = (value.cpu() for value in encoded.encode(torch.from_numpy(items)))
    rows_there = torch.from_numpy(table.item_rows[items])
    if not torch.equal(rows_there >= 0, known):
        differ = int(((rows_there >= 0) != known).sum())
        raise StaleSnapshot(
            f"{inputs.content}: {differ} of {len(items)} items have a vector there and no content here, or the other "
            "way round. Run 'mimctr embed' again."
        )
    stored = torch.as_tensor(table.snapshot.fetch(data.item_keys[items]).vectors)
    agreement = agree(stored[known], vectors[known], *logits, where=inputs.content)
    return Cost(
        config=config.model_dump(mode="json"),
        encoder=encoder.fingerprint,
        num_impressions=len(rows),
        items_per_impression=1 + batch.mask.sum().item() / len(rows),
        distinct_items_per_impression=len(items) / len(rows),
        agreement=agreement,
        measured=[],
        device=str(device) if device.type == "cpu" else torch.cuda.get_device_name(device),
        threads=torch.get_num_threads(),
        machine=describe_machine(),
        versions=describe_versions(),
    )


def agree(
    stored: torch.Tensor, vectors: torch.Tensor, expected: torch.Tensor, logits: torch.Tensor, *, where: Path
) -> Agreement:
    """Return how close vectors and logits are to those of the center.

    Raises:
        StaleSnapshot: they are too far for rounding to explain.
    """
    cosines = torch.nn.functional.cosine_similarity(stored.double(), vectors.double(), dim=1)
    agreement = Agreement(
        num_vectors=len(cosines),
        mean_cosine=cosines.mean().item(),
        least_cosine=cosines.min().item(),
        largest_logit_difference=(expected - logits).abs().max().item(),
    )
    if agreement.least_cosine < LEAST_COSINE or agreement.largest_logit_difference > LARGEST_DIFFERENCE:
        raise StaleSnapshot(
            f"{where}: the item encoder's own vectors differ from those there: least cosine "
            f"{agreement.least_cosine:.4f} over {len(cosines)} items (wanted {LEAST_COSINE}), logits by at most "
            f"{agreement.largest_logit_difference:.4f} (wanted {LARGEST_DIFFERENCE}). Run 'mimctr embed' again."
        )
    return agreement


def in_fresh_process(inputs: Inputs, config: Config, side: Side, mode: Mode) -> Measured:
    """Return what :func:`measure` returns, called in a new process with as many threads as this one has.

    Raises:
        RunError: the process was killed.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, _start, (torch.get_num_threads(),)) as pool:
        try:
            return pool.submit(measure, inputs, config, side, mode).result()
        except BrokenProcessPool:
            raise RunError(
                f"cost: the process that measured '{side}' in {mode} was killed, by a lack of memory perhaps. "
                "Set a smaller compared_batch_size."
            ) from None


def _start(num_threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends this one
    torch.set_num_threads(num_threads)
