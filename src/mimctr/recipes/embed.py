"""Fill the representation center: embed every item and every query image once (MIM Section 3.5, MFM)."""

import shutil
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from mimctr.batch import FIRST_INDEX
from mimctr.center.attach import ContentTable
from mimctr.center.snapshot import MANIFEST, Snapshot, read_manifest, write_snapshot
from mimctr.data.dataset import CtrDataset
from mimctr.distributed import barrier, from_main, rank, size
from mimctr.encoders.item import ItemEncoder, ItemVectors
from mimctr.errors import RunError
from mimctr.files import read_json, write_json
from mimctr.progress import track
from mimctr.recipes.catalogue import ITEMS_AT_ONCE, read_kept
from mimctr.recipes.content import chunks
from mimctr.recipes.device import pick_device
from mimctr.recipes.embed_shards import PARTS, Contents, Shard, ShardEncoder, encode_in_threads, num_own_cores

ITEMS, QUERIES, SHARDS, SUMMARY = "items", "queries", "shards", "summary.json"


class Config(BaseModel):
    """Settings of ``mimctr embed``. Those that change no vector are no part of what the stage is known by."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    batch_size: int = Field(64, ge=1, description="Pictures or titles of a forward pass; a GPU likes more.")
    batches_per_shard: int = Field(
        16, ge=1, description="An interrupted run loses at most this many batches a worker."
    )
    device: str = Field("auto", description="'auto' takes CUDA where there is a GPU, else the CPU.")
    num_workers: int = Field(
        0,
        ge=0,
        exclude=True,
        description="Threads that decode, tokenize and run the towers on one core each; 0: one a core.",
    )


class Summary(BaseModel):
    """What was embedded."""

    fingerprint: str
    num_items: int
    num_items_without_content: int
    num_queries: int
    num_pictures: int
    """Different pictures of items."""
    num_titles: int
    """Different titles."""


def main(dataset: Path, encoder: Path, out: Path, config: Config) -> Summary:
    """Write ``out/items`` and ``out/queries``: snapshots of every item with content and every query image.

    Each different picture and title is encoded once. Processes that torchrun started share the shards; the first one
    writes the snapshots. What an interrupted call left in ``out`` is not encoded again, however many processes there
    were, nor what the encoder's folder keeps of this dataset (``keep_vectors``).

    Args:
        dataset: Written by ``mimctr prepare``.
        encoder: Item encoder, written by ``mimctr csft``.
        out: Created if missing.
        config: Settings.

    Raises:
        RunError: no item at all has content.
    """
    if (out / SUMMARY).exists():
        shutil.rmtree(out / SHARDS, ignore_errors=True)
        return Summary.model_validate(read_json(out / SUMMARY))
    data = CtrDataset.open(dataset)
    contents = Contents(data)
    if not contents.has_content.any():
        raise RunError(f"{dataset}: none of its {data.num_items} items has an image or a title. Add content.")
    model = ItemEncoder.load(encoder).to(pick_device(config.device))
    kept = read_kept(encoder, data, model)
    shard_encoder = ShardEncoder(contents, model, model, out / SHARDS, batch_size=config.batch_size)
    shards = contents.shards(
        config.batch_size * config.batches_per_shard, PARTS if kept is None else ("queries",)
    )
    _encode(shard_encoder, shards, config)
    summary = from_main(lambda: _write(data, shard_encoder, shards, kept, out).model_dump(mode="json"))
    return Summary.model_validate(summary)


def _encode(encoder: ShardEncoder, shards: list[Shard], config: Config) -> None:
    """Encode this process's part of the shards that are not on disk; return when all processes are done."""
    missing = from_main(lambda: [n for n, shard in enumerate(shards) if not encoder.is_done(shard)])
    own = [shards[number] for number in missing[rank() :: size()]]
    done = encode_in_threads(encoder, own, config.num_workers or num_own_cores())
    start = sum(map(_num_pieces, shards)) - sum(_num_pieces(shards[number]) for number in missing)
    total = start + sum(map(_num_pieces, own))
    for _ in track(done, total=total, description="embed", unit="pieces", start=start, size=_num_pieces):
        pass
    barrier()


def _write(
    data: CtrDataset,
    encoder: ShardEncoder,
    shards: list[Shard],
    kept: ItemVectors | None,
    out: Path,
) -> Summary:
    """Write both snapshots and the summary; remove the shards."""
    contents, model = encoder.contents, encoder.encoder
    known = contents.has_content
    with_picture = np.flatnonzero(contents.picture_of_query >= 0)
    if not (out / ITEMS / MANIFEST).exists():
        vectors = _item_vectors(data, encoder, shards, kept)
        keys = data.items["item_key"].to_numpy()
        write_snapshot(out / ITEMS, keys[known], vectors[known], encoder=model.fingerprint)
    if not (out / QUERIES / MANIFEST).exists():
        views = encoder.read(shards, "queries")
        with torch.no_grad():
            content = [
                model.query_content(some.to(_device(model))).cpu() for some in views.split(ITEMS_AT_ONCE)
            ]
        places = contents.picture_of_query[with_picture]
        write_snapshot(
            out / QUERIES, with_picture + 1, torch.cat(content).numpy()[places], encoder=model.fingerprint
        )
    summary = Summary(
        fingerprint=model.fingerprint,
        num_items=int(known.sum()),
        num_items_without_content=int((~known).sum()),
        num_queries=len(with_picture),
        num_pictures=len(contents.pictures),
        num_titles=len(contents.titles),
    )
    write_json(out / SUMMARY, summary.model_dump(mode="json"))
    shutil.rmtree(out / SHARDS, ignore_errors=True)
    return summary


def _item_vectors(
    data: CtrDataset, encoder: ShardEncoder, shards: list[Shard], kept: ItemVectors | None
) -> Float[ndarray, "items content"]:
    """Return the content embedding by row of the items; zero where an item has no content."""
    contents, model = encoder.contents, encoder.encoder
    categories = data.items["category"].to_list()
    pictures, titles = encoder.read(shards, "pictures"), encoder.read(shards, "titles")
    found = []
    for rows in chunks(np.arange(data.num_items), ITEMS_AT_ONCE):
        named = [categories[row] for row in rows]
        if kept is not None:
            own = ItemVectors(*(part[torch.from_numpy(rows) + FIRST_INDEX] for part in kept))
            found.append(model.embed_vectors(own, named)[0])
        else:
            image = _pick(pictures, contents.picture_of_item[rows])
            text = _pick(titles, contents.title_of_item[rows])
            found.append(model.embed_views(*image, *text, named)[0])
    return torch.cat(found).numpy()


def _pick(
    views: Float[Tensor, "pieces content"], places: Int[ndarray, "rows"]
) -> tuple[Float[Tensor, "rows content"], Bool[Tensor, "rows"]]:
    """Return the view at each place, zero where there is none (-1), and where there is one."""
    there = torch.from_numpy(places >= 0)
    picked = views.new_zeros(len(places), views.shape[1])
    picked[there] = views[torch.from_numpy(places)[there]]
    return picked, there


def _num_pieces(shard: Shard) -> int:
    return shard.stop - shard.start


def _device(model: ItemEncoder) -> torch.device:
    return model.image_head.weight.device


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
