"""Fill the representation center: embed every item and every query image once (MIM Section 3.5, MFM)."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from pydantic import BaseModel, ConfigDict, Field

from mimctr.batch import FIRST_INDEX
from mimctr.center.attach import ContentTable
from mimctr.center.snapshot import MANIFEST, Snapshot, read_manifest, write_snapshot
from mimctr.data.dataset import CtrDataset
from mimctr.encoders.item import ItemEncoder, ItemVectors
from mimctr.errors import RunError
from mimctr.files import write_json
from mimctr.progress import track
from mimctr.recipes.catalogue import read_kept
from mimctr.recipes.device import pick_device
from mimctr.weights import load_tensors, save_tensors

ITEMS, QUERIES, SHARDS = "items", "queries", "shards"

Embed = Callable[[list[int]], tuple[torch.Tensor, torch.Tensor]]
"""Rows -> their vectors (float32, R x C) and whether each row has content at all (bool, R)."""


class Config(BaseModel):
    """Settings of ``mimctr embed``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    batch_size: int = Field(256, ge=1, description="Items per forward pass.")
    batches_per_shard: int = Field(
        16, ge=1, description="An interrupted run loses at most this many batches."
    )
    device: str = Field("auto", description="'auto' takes CUDA where there is a GPU, else the CPU.")


class Summary(BaseModel):
    """What was embedded."""

    fingerprint: str
    num_items: int
    num_items_without_content: int
    num_queries: int


def main(dataset: Path, encoder: Path, out: Path, config: Config) -> Summary:
    """Write ``out/items`` and ``out/queries``: snapshots of every item with content and every query image.

    What an interrupted call left in ``out`` is not embedded again, nor what the encoder's folder keeps of this dataset
    (``keep_vectors``) encoded again.

    Args:
        dataset: Written by ``mimctr prepare``.
        encoder: Item encoder, written by ``mimctr csft``.
        out: Created if missing.
        config: Settings.

    Raises:
        RunError: no item at all has content.
    """
    data = CtrDataset.open(dataset)
    model = ItemEncoder.load(encoder).to(pick_device(config.device))
    titles, categories = data.items["title"].to_list(), data.items["category"].to_list()
    with_image = np.flatnonzero(
        [data.queries.images.get(row) is not None for row in range(len(data.queries))]
    )

    kept = read_kept(encoder, data, model)

    def embed_items(rows: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        if kept is not None:
            index = torch.tensor(rows) + FIRST_INDEX
            return model.embed_vectors(
                ItemVectors(*(part[index] for part in kept)), [categories[row] for row in rows]
            )
        return model.embed_items(
            [data.item_images.get(row) for row in rows],
            [titles[row] for row in rows],
            [categories[row] for row in rows],
        )

    def embed_queries(rows: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        pictures = [data.queries.images.get(int(with_image[row])) for row in rows]
        vectors, _ = model.embed_query_images([picture for picture in pictures if picture is not None])
        return vectors, torch.ones(len(rows), dtype=torch.bool)

    known = _snapshot(data.items["item_key"].to_numpy(), embed_items, out, ITEMS, model, config)
    if not known.any():
        raise RunError(f"{dataset}: none of its {len(titles)} items has an image or a title. Add content.")
    _snapshot(with_image + 1, embed_queries, out, QUERIES, model, config)
    shutil.rmtree(out / SHARDS, ignore_errors=True)
    summary = Summary(
        fingerprint=model.fingerprint,
        num_items=int(known.sum()),
        num_items_without_content=int((~known).sum()),
        num_queries=len(with_image),
    )
    write_json(out / "summary.json", summary.model_dump(mode="json"))
    return summary


def _snapshot(
    keys: Int[ndarray, "rows"], embed: Embed, out: Path, name: str, model: ItemEncoder, config: Config
) -> Bool[ndarray, "rows"]:
    """Embed every row and write the snapshot ``out/name``; return which rows have content."""
    vectors, known = _embed_in_shards(len(keys), embed, out / SHARDS / name, config, name=name, dim=model.dim)
    if not (out / name / MANIFEST).exists():
        write_snapshot(out / name, keys[known], vectors[known], encoder=model.fingerprint)
    return known


def _embed_in_shards(
    num_rows: int, embed: Embed, folder: Path, config: Config, *, name: str, dim: int
) -> tuple[Float[ndarray, "rows content"], Bool[ndarray, "rows"]]:
    """Embed rows 0 ... ``num_rows`` - 1 shard by shard; a shard that is on disk already is read instead."""
    vectors, known = np.zeros((num_rows, dim), dtype=np.float32), np.zeros(num_rows, dtype=bool)
    size = config.batch_size * config.batches_per_shard
    for start in track(
        range(0, num_rows, size), total=-(-num_rows // size), description=f"embed {name}", unit="shards"
    ):
        shard = slice(start, min(start + size, num_rows))
        path = folder / f"{start:012d}.safetensors"
        if not path.exists():
            rows = list(range(shard.start, shard.stop))
            parts = [
                embed(rows[at : at + config.batch_size]) for at in range(0, len(rows), config.batch_size)
            ]
            save_tensors(
                path,
                {
                    "vectors": torch.cat([part[0] for part in parts]),
                    "known": torch.cat([part[1] for part in parts]),
                },
            )
        tensors, _ = load_tensors(path)
        vectors[shard], known[shard] = tensors["vectors"].numpy(), tensors["known"].numpy()
    return vectors, known


def open_content(dataset: CtrDataset, folder: Path, *, encoder: str | None = None) -> ContentTable:
    """Return the content table of a dataset from the folder that :func:`main` wrote.

    Args:
        dataset: Whose items and queries are looked up.
        folder: Holds the snapshots of items and queries.
        encoder: Fingerprint that both must have; None takes that of the items, and the queries' must agree.

    Raises:
        StaleSnapshot: a snapshot came from another encoder.
    """
    fingerprint = encoder or read_manifest(folder / ITEMS).fingerprint
    return ContentTable.from_snapshots(
        dataset.item_keys,
        Snapshot.open(folder / ITEMS, encoder=fingerprint),
        num_queries=len(dataset.queries),
        queries=Snapshot.open(folder / QUERIES, encoder=fingerprint),
    )
