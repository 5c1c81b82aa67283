"""Fill the representation center: embed every item and every query once (MIM Section 3.5, MFM)."""

import functools
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from pydantic import BaseModel
from torch import Tensor

from mimctr.batch import FIRST_INDEX
from mimctr.center.attach import ContentTable
from mimctr.center.center import DATABASE, Center
from mimctr.center.known_queries import QUERIES
from mimctr.center.snapshot import MANIFEST, Parity, Snapshot, read_manifest, verify_snapshot
from mimctr.center.snapshot_writer import write_snapshot
from mimctr.data.dataset import CtrDataset
from mimctr.distributed import barrier, from_main, is_main, rank, size
from mimctr.encoders.backends import BackendName
from mimctr.encoders.item import recorded_fingerprint
from mimctr.encoders.vectors import ItemVectors, Modality
from mimctr.errors import EncoderError, RunError, StaleSnapshot
from mimctr.files import read_json, write_json
from mimctr.progress import track
from mimctr.recipes.catalogue import ITEMS_AT_ONCE
from mimctr.recipes.content import chunks
from mimctr.recipes.embed_config import Config
from mimctr.recipes.embed_ray import encode_on_ray
from mimctr.recipes.embed_shards import Part, Shard, ShardEncoder, encode_in_threads, num_workers, one_thread

logger = logging.getLogger(__name__)

ITEMS, SHARDS, SUMMARY = "items", "shards", "summary.json"
MIN_COSINE, NUM_COMPARED = 0.999, 64
"""Least mean cosine of a back-end's content embeddings to PyTorch's, over so many items of the catalogue."""


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
    """Write ``out/items`` and ``out/queries``: snapshots of every item with content and every query with a vector.

    A query has its picture's; one that is only a text has its text's, where the encoder has text queries.

    Each different picture and text is encoded once. Processes that torchrun started share the shards; the first one
    writes the snapshots. What an interrupted call with the same encoder, dataset and settings left in ``out`` is not
    encoded again, however many processes there were, nor what the encoder's folder keeps of this dataset
    (``keep_vectors``).

    Args:
        dataset: Written by ``mimctr prepare``.
        encoder: Item encoder, written by ``mimctr csft``.
        out: Created if missing.
        config: Settings.

    Raises:
        RunError: no item at all has content; ``out`` holds vectors of another encoder.
        EncoderError: the back-end is not installed, cannot run the towers, or is too far from PyTorch.
    """
    _refuse_others(out, recorded_fingerprint(encoder))
    if (out / SUMMARY).exists():
        shutil.rmtree(out / SHARDS, ignore_errors=True)
        return Summary.model_validate(read_json(out / SUMMARY))
    with one_thread():
        return _embed(dataset, encoder, out, config)


def _refuse_others(out: Path, fingerprint: str) -> None:
    """Raise where ``out`` holds vectors of another encoder."""
    for folder in (out / ITEMS, out / QUERIES):
        if (folder / MANIFEST).exists() and (found := read_manifest(folder).fingerprint) != fingerprint:
            raise RunError(
                f"{folder}: holds vectors of encoder {found[:12]}, not of {fingerprint[:12]}. Choose another folder."
            )


def _embed(dataset: Path, encoder: Path, out: Path, config: Config) -> Summary:
    shards = ShardEncoder.open(dataset, encoder, out / SHARDS, config)
    if not shards.contents.has_content.any():
        raise RunError(
            f"{dataset}: none of its {shards.data.num_items} items has an image or a title. Add content."
        )
    parity = from_main(lambda: None if config.backend == "torch" else _parity(shards, config.backend))
    missing = [shards.shards[number] for number in from_main(shards.missing)]
    own = missing[rank() :: size()]
    if config.engine == "ray":
        done = encode_on_ray(
            functools.partial(ShardEncoder.open, dataset, encoder, out / SHARDS, config), own
        )
    else:
        done = encode_in_threads(shards, own, num_workers(config))
    start = _num_pieces(shards.shards) - _num_pieces(missing)
    for _ in track(
        done,
        total=start + _num_pieces(own),
        description="embed",
        unit="pictures and titles",
        start=start,
        size=lambda shard: shard.num_pieces,
    ):
        pass
    barrier()
    summary = from_main(lambda: _write(shards, config.backend, parity, out).model_dump(mode="json"))
    return Summary.model_validate(summary)


def _parity(shards: ShardEncoder, backend: BackendName) -> dict[str, Any]:
    """Compare a back-end with PyTorch on some items of the catalogue; return the fields of :class:`Parity`.

    Raises:
        EncoderError: it is too far away.
    """
    known, items = np.flatnonzero(shards.contents.has_content), shards.data.items
    rows = np.unique(known[np.linspace(0, len(known) - 1, NUM_COMPARED).round().astype(np.int64)]).tolist()
    images = [shards.data.item_images.get(row) for row in rows]
    titles, categories = (items[name].gather(rows).to_list() for name in ("title", "category"))
    exact, found = (
        shards.encoder.embed_items(images, titles, categories, towers=towers)[0]
        for towers in (shards.encoder, shards.towers)
    )
    cosines = (exact * found).sum(dim=1)
    parity = Parity(
        num_compared=len(rows), mean_cosine=cosines.mean().item(), least_cosine=cosines.min().item()
    )
    if not parity.mean_cosine >= MIN_COSINE:
        precision = ", which runs the towers in bfloat16," if shards.encoder.bf16 else ""
        raise EncoderError(
            f"back-end '{backend}': mean cosine {parity.mean_cosine:.4f} to PyTorch{precision} over {len(rows)} items "
            f"of the catalogue, wanted {MIN_COSINE}. Use backend = 'torch', or an encoder with bf16 = false."
        )
    logger.info(
        "embed: %s, cosine to PyTorch %.5f on average and at least %.5f over %d items",
        backend,
        parity.mean_cosine,
        parity.least_cosine,
        len(rows),
    )
    return parity.model_dump()


def _write(shards: ShardEncoder, backend: BackendName, parity: dict[str, Any] | None, out: Path) -> Summary:
    """Write both snapshots and the summary; remove the shards."""
    contents, encoder = shards.contents, shards.encoder
    fingerprint = encoder.fingerprint  # hashes every weight
    origin: dict[str, Any] = {
        "encoder": fingerprint,
        "backend": backend,
        "parity": parity and Parity.model_validate(parity),
    }
    known = contents.has_content
    asks = (contents.picture_of_query >= 0) | (contents.text_of_query >= 0)
    if not (out / ITEMS / MANIFEST).exists():
        keys = shards.data.items["item_key"].to_numpy()
        write_snapshot(out / ITEMS, keys[known], _item_vectors(shards)[known], **origin)
    if not (out / QUERIES / MANIFEST).exists():
        write_snapshot(out / QUERIES, np.flatnonzero(asks) + 1, _query_vectors(shards)[asks], **origin)
    summary = Summary(
        fingerprint=fingerprint,
        num_items=int(known.sum()),
        num_items_without_content=int((~known).sum()),
        num_queries=int(asks.sum()),
        num_pictures=len(contents.pictures),
        num_titles=len(contents.titles),
    )
    write_json(out / SUMMARY, summary.model_dump(mode="json"))
    shutil.rmtree(out / SHARDS, ignore_errors=True)
    return summary


def _item_vectors(shards: ShardEncoder) -> Float[ndarray, "items content"]:
    """Return the content embedding by row of the items; zero where an item has no content."""
    contents, encoder, kept = shards.contents, shards.encoder, shards.kept
    categories = shards.data.items["category"].to_list()
    pictures, titles = shards.read("pictures"), shards.read("titles")
    found = []
    for rows in chunks(np.arange(shards.data.num_items), ITEMS_AT_ONCE):
        named = [categories[row] for row in rows]
        if kept is not None:
            own = ItemVectors(*(part[torch.from_numpy(rows) + FIRST_INDEX] for part in kept))
            found.append(encoder.embed_vectors(own, named)[0])
        else:
            image = _pick(pictures, contents.picture_of_item[rows])
            text = _pick(titles, contents.title_of_item[rows])
            found.append(encoder.embed_views(*image, *text, named)[0])
    return torch.cat(found).numpy()


def _query_vectors(shards: ShardEncoder) -> Float[ndarray, "queries content"]:
    """Return the content embedding by row of the queries; zero where a query has no vector."""
    contents = shards.contents
    images, _ = _pick(_query_content(shards, "queries", asked="image"), contents.picture_of_query)
    texts, reads = _pick(_query_content(shards, "texts", asked="text"), contents.text_of_query)
    return torch.where(reads.unsqueeze(1), texts, images).numpy()


def _query_content(shards: ShardEncoder, part: Part, *, asked: Modality) -> Float[Tensor, "pieces content"]:
    """Return the content embedding of each different query picture, or query text."""
    views, encoder = shards.read(part), shards.encoder
    device = encoder.image_head.weight.device
    with torch.no_grad():
        found = [
            encoder.query_content(some.to(device), asked=asked).cpu() for some in views.split(ITEMS_AT_ONCE)
        ]
    return torch.cat(found)


def _pick(
    views: Float[Tensor, "pieces content"], places: Int[ndarray, "rows"]
) -> tuple[Float[Tensor, "rows content"], Bool[Tensor, "rows"]]:
    """Return the view at each place, zero where there is none (-1), and where there is one."""
    there = torch.from_numpy(places >= 0)
    picked = views.new_zeros(len(places), views.shape[1])
    picked[there] = views[torch.from_numpy(places)[there]]
    return picked, there


def _num_pieces(shards: list[Shard]) -> int:
    return sum(shard.num_pieces for shard in shards)


def content_folder(folder: Path) -> Path:
    """Return where vectors are read from: of a center, the newest snapshot of the generation that it serves.

    A training that was started from a center keeps to that snapshot, whatever is compacted or activated meanwhile.
    """
    if not (folder / DATABASE).exists():
        return folder
    center = Center(folder)
    number = center.number(None)
    return center.snapshot_folder(number, center.snapshots(number)[-1])


def open_content(dataset: CtrDataset, folder: Path, *, encoder: str | None = None) -> ContentTable:
    """Return the content table of a dataset from the folder that :func:`main` wrote, every byte of which is checked.

    Args:
        dataset: Whose items and queries are looked up.
        folder: Holds the snapshots of items and queries; or one snapshot of a center (:func:`content_folder`).
        encoder: Fingerprint that both must have; None takes that of the items, and the queries' must agree.

    Raises:
        StaleSnapshot: a snapshot came from another encoder, or from another catalogue.
        CenterError: a snapshot is missing or damaged, or the queries' is of another width.
    """
    items, queries = _snapshots(folder)
    fingerprint = encoder or read_manifest(items).fingerprint
    from_main(lambda: verify_content(folder))
    table = ContentTable.from_snapshots(
        dataset.item_keys,
        Snapshot.open(items, encoder=fingerprint),
        num_queries=len(dataset.queries),
        queries=None if queries is None else Snapshot.open(queries, encoder=fingerprint),
    )
    _check_age(table, dataset, folder)
    return table


def open_item_content(dataset: CtrDataset, folder: Path) -> ContentTable:
    """Return what :func:`open_content` returns of the items alone: the vectors of queries are neither there nor read.

    Raises:
        StaleSnapshot: the snapshot came from another catalogue.
        CenterError: it is missing or damaged.
    """
    items, _ = _snapshots(folder)
    fingerprint = verify_snapshot(items).fingerprint
    table = ContentTable.from_snapshots(dataset.item_keys, Snapshot.open(items, encoder=fingerprint))
    _check_age(table, dataset, folder)
    return table


def verify_content(folder: Path) -> None:
    """Read every byte of both snapshots: memory-mapped vectors are used as they are, damaged or not.

    Raises:
        CenterError: a snapshot is missing or damaged.
    """
    for snapshot in _snapshots(folder):
        if snapshot is not None:
            verify_snapshot(snapshot)


def _snapshots(folder: Path) -> tuple[Path, Path | None]:
    """Return the snapshots of items and of queries; a generation that was imported has none of queries."""
    if not (folder / MANIFEST).exists():
        return folder / ITEMS, folder / QUERIES
    queries = folder.parent / QUERIES
    return folder, queries if queries.exists() else None


def _check_age(table: ContentTable, dataset: CtrDataset, folder: Path) -> None:
    """Warn of items that came into the catalogue after the snapshot: they have content, and no vector.

    Raises:
        StaleSnapshot: no item of the catalogue has a vector.
    """
    known = table.item_rows[FIRST_INDEX:] >= 0
    if not known.any():
        raise StaleSnapshot(
            f"{folder}: none of its {len(table.snapshot):,} vectors belongs to one of the {dataset.num_items:,} items "
            f"of {dataset.folder}. Run 'mimctr embed' on this dataset."
        )
    titled = pl.scan_parquet(dataset.folder / "items.parquet").select(pl.col("title").is_not_null())
    has_content = (dataset.item_images.numbers >= 0) | titled.collect()["title"].to_numpy()
    newer = int((has_content & ~known).sum())
    if newer and is_main():
        logger.warning(
            "%s: older than the catalogue of %s: %s of %s items (%.1f %%) have a picture or a title, but no vector. "
            "Run 'mimctr embed' again.",
            folder,
            dataset.folder,
            f"{newer:,}",
            f"{dataset.num_items:,}",
            100 * newer / dataset.num_items,
        )
