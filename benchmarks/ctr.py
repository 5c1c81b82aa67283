"""What the benchmarks of CTR models share: logs of any size, the steps of a training, and this process's memory."""

import itertools
import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch

from mimctr.batch import FIRST_INDEX, UNKNOWN
from mimctr.center.snapshot_writer import write_snapshot
from mimctr.data.arrays import save_array
from mimctr.data.blobs import MISSING, BlobWriter
from mimctr.data.dataset import CtrDataset
from mimctr.data.manifest import SCHEMA_VERSION, Fields, Manifest
from mimctr.files import write_json
from mimctr.recipes.ctr_config import Config
from mimctr.recipes.ctr_fitting import Task, make_optimizer, remaining_batches, take_step
from mimctr.recipes.ctr_model import build_model
from mimctr.recipes.embed import ITEMS, QUERIES, open_content
from mimctr.train.seeds import seed_step
from mimctr.ubm.ciubm import CiUBM

START = 1_700_000_000
"""Second of the first impression."""
SECONDS_BETWEEN = 600
"""From one behavior of a user to the next."""
WITHOUT_VECTOR = 20
"""Every so many items one has no content vector."""


@dataclass(frozen=True, kw_only=True)
class Shop:
    """How large a log is. Users, items and clicks are drawn evenly; nothing can be learned from it."""

    num_users: int
    num_items: int
    num_impressions: int
    length: int
    """Behaviors of each user, all before the first impression."""
    num_categories: int = 100
    content_dim: int | None = 64
    """None: no content."""


class Step(NamedTuple):
    """A training step."""

    seconds: float
    """Its batch included."""
    loss: float
    """Of the clicks, nats."""


def write_shop(folder: Path, shop: Shop) -> None:
    """Write ``folder/dataset`` as ``mimctr prepare`` does, and ``folder/content`` as ``mimctr embed`` does.

    The arrays are made as they lie on disk: raw tables of ten million impressions would take longer than what is
    measured.
    """
    random = np.random.default_rng(0)
    dataset = folder / "dataset"
    _write_behaviors(dataset / "behaviors", shop, random)
    _write_impressions(dataset / "impressions", shop, random)
    num_indices = shop.num_items + FIRST_INDEX
    categories = np.arange(num_indices, dtype=np.int32) % shop.num_categories + FIRST_INDEX
    categories[:FIRST_INDEX] = 0, UNKNOWN
    keys = np.arange(num_indices) - FIRST_INDEX
    keys[:FIRST_INDEX] = -1
    save_array(dataset / "items" / "fields.npy", categories[:, None])
    save_array(dataset / "items" / "keys.npy", keys)
    save_array(dataset / "items" / "train_counts.npy", np.ones(num_indices, dtype=np.int64))
    save_array(dataset / "users" / "train_counts.npy", np.ones(shop.num_users + FIRST_INDEX, dtype=np.int64))
    titles = pl.Series("title", [None], dtype=pl.String).extend_constant(None, shop.num_items - 1)
    titles.to_frame().write_parquet(dataset / "items.parquet")
    for store, rows in (("items", shop.num_items), ("queries", 0)):
        with BlobWriter(dataset / store / "images") as images:
            images.finish(np.full(rows, MISSING))
    write_json(dataset / "manifest.json", _manifest(shop).model_dump())
    if shop.content_dim is None:
        return
    with_vector = keys[FIRST_INDEX:][keys[FIRST_INDEX:] % WITHOUT_VECTOR > 0]
    vectors = random.standard_normal((len(with_vector), shop.content_dim), dtype=np.float32)
    write_snapshot(folder / "content" / ITEMS, with_vector, vectors, encoder="random")
    write_snapshot(folder / "content" / QUERIES, with_vector[:0], vectors[:0], encoder="random")


def _write_behaviors(folder: Path, shop: Shop, random: np.random.Generator) -> None:
    count = shop.num_users * shop.length
    offsets = np.concatenate([[0, 0], np.arange(shop.num_users + 1) * shop.length])
    times = START - SECONDS_BETWEEN * np.arange(shop.length, 0, -1)
    save_array(folder / "offsets.npy", offsets)
    save_array(
        folder / "item.npy", random.integers(FIRST_INDEX, shop.num_items + FIRST_INDEX, count, dtype=np.int32)
    )
    save_array(folder / "time.npy", np.tile(times, shop.num_users))
    save_array(folder / "kind.npy", np.full(count, FIRST_INDEX, dtype=np.int32))


def _write_impressions(folder: Path, shop: Shop, random: np.random.Generator) -> None:
    count = shop.num_impressions
    users = random.integers(FIRST_INDEX, shop.num_users + FIRST_INDEX, count, dtype=np.int32)
    arrays = {
        "target": random.integers(FIRST_INDEX, shop.num_items + FIRST_INDEX, count, dtype=np.int32),
        "time": START + np.arange(count),
        "click": random.integers(0, 2, count, dtype=np.uint8),
        "query": np.zeros(count, dtype=np.int32),
        "end": (users.astype(np.int64) - FIRST_INDEX + 1) * shop.length,
        "user_fields": users[:, None],
        "query_fields": np.zeros((count, 1), dtype=np.int32),
        "context_fields": np.zeros((count, 0), dtype=np.int32),
    }
    for name, array in arrays.items():
        save_array(folder / f"{name}.npy", array)


def _manifest(shop: Shop) -> Manifest:
    """All impressions are training."""
    end = START + shop.num_impressions
    return Manifest(
        schema_version=SCHEMA_VERSION,
        counts={"items": shop.num_items, "users": shop.num_users, "impressions": shop.num_impressions},
        fields=Fields(
            item={"category": shop.num_categories + FIRST_INDEX},
            user={"user": shop.num_users + FIRST_INDEX},
            query={"query_text": FIRST_INDEX},
            context={},
        ),
        kinds=["click"],
        train_start=START,
        validation_start=end,
        test_start=end,
        test_end=end,
        behaviors_from="behaviors",
        pair_rule="none",
        source_hash="random",
        problem_counts={},
    )


def open_training(folder: Path, config: Config) -> tuple[Task, CiUBM]:
    """Return what ``mimctr train`` has before its first step, on the CPU."""
    dataset = CtrDataset.open(folder / "dataset")
    content = None if config.variant == "base" else open_content(dataset, folder / "content")
    task = Task(dataset=dataset, content=content, config=config, device=torch.device("cpu"))
    return task, build_model(dataset, config, content_dim=None if content is None else content.dim)


def training_steps(model: CiUBM, task: Task, *, num_steps: int) -> Iterator[Step]:
    """Make the first steps of a training as ``fit`` makes them."""
    optimizer = make_optimizer(model, task.config)
    rows = task.dataset.rows("train")
    in_epoch = math.ceil(len(rows) / task.config.batch_size)
    batches = remaining_batches(task, rows, start=0, num_steps=in_epoch, steps_per_epoch=in_epoch)
    begun = time.perf_counter()
    for step, batch in enumerate(itertools.islice(batches, num_steps)):
        seed_step(task.config.seed, step)
        loss = take_step(model, optimizer, batch, task, step=step, num_steps=num_steps, counts=None)
        ended = time.perf_counter()
        yield Step(ended - begun, loss)
        begun = time.perf_counter()


def in_process(script: str, *words: object) -> dict[str, float]:
    """Run ``script`` with this program's own arguments and ``words``, in a process of its own; return what it says.

    Raises:
        SystemExit: it failed.
    """
    command = [sys.executable, script, *sys.argv[1:], *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{Path(script).stem}: {' '.join(map(str, words))} failed (exit {done.returncode}).")
    return json.loads(done.stdout.splitlines()[-1])


def memory_now() -> tuple[int, int]:
    """Return the resident memory of this process in bytes: all of it, and what is not pages of files (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    values = dict(line.split(":", 1) for line in status.splitlines())
    rss, anonymous = (int(values[name].split()[0]) * 1024 for name in ("VmRSS", "RssAnon"))
    return rss, anonymous
