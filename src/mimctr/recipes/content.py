"""A dataset's pictures and titles as arrays that encoders train on: decoded and tokenized once, gathered in batches."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray
from torch import Tensor

from mimctr.batch import FIRST_INDEX
from mimctr.data.arrays import create_array
from mimctr.data.blobs import BlobStore
from mimctr.data.dataset import CtrDataset
from mimctr.distributed import barrier, is_main, largest_batch, own_rows, rank, size, total
from mimctr.encoders.image import ImageEncoder
from mimctr.encoders.text import TextEncoder, Tokens
from mimctr.errors import ConfigError
from mimctr.progress import track

PICTURES_AT_ONCE = 256
NONE = -1
NO_ROWS = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pictures:
    """Decoded pictures of items and queries; equal files once."""

    pixels: UInt8[ndarray, "pictures 3 height width"]
    of_item: Int[ndarray, "items"]
    """Row in ``pixels`` of each ``item_index``; -1 where there is no picture, or it was not asked for."""
    of_query: Int[ndarray, "queries"]
    """Row in ``pixels`` of each query index; likewise."""

    @classmethod
    def decode(
        cls,
        data: CtrDataset,
        encoder: ImageEncoder,
        path: Path,
        *,
        items: Int[ndarray, "chosen_items"],
        queries: Int[ndarray, "chosen_queries"],
    ) -> "Pictures":
        """Decode the pictures of some items and queries.

        Args:
            data: Where they are.
            encoder: Says the size.
            path: Where the file for the pixels is made.
            items: ``item_index`` of each wanted item.
            queries: Index of each wanted query.
        """
        item_blobs = _blobs_of(data.item_images, items, first=FIRST_INDEX)
        query_blobs = _blobs_of(data.queries.images, queries, first=1)
        item_numbers, query_numbers = (
            np.unique(item_blobs[item_blobs >= 0]),
            np.unique(query_blobs[query_blobs >= 0]),
        )
        of_query = _places(query_numbers, query_blobs)
        return cls(
            pixels=decode_pictures(
                itertools.chain(
                    map(data.item_images.blob, item_numbers.tolist()),
                    map(data.queries.images.blob, query_numbers.tolist()),
                ),
                len(item_numbers) + len(query_numbers),
                encoder,
                path,
            ),
            of_item=_places(item_numbers, item_blobs),
            of_query=np.where(of_query >= 0, of_query + len(item_numbers), NONE),
        )

    def gather(self, rows: Int[ndarray, "rows"]) -> UInt8[Tensor, "rows 3 height width"]:
        """Return the pixels of some rows."""
        return torch.from_numpy(self.pixels[rows])


@dataclass(frozen=True, kw_only=True, slots=True)
class Titles:
    """Tokenized titles of all items, behind them the texts of some queries; equal texts of queries once."""

    ids: Int[ndarray, "titles tokens"]
    """By ``item_index``, then the texts; padding where there is no title."""
    mask: Bool[ndarray, "titles tokens"]
    of_query: Int[ndarray, "queries"] = field(default_factory=lambda: np.full(1, NONE))
    """Row of each query index; -1 where there is no text, or it was not asked for."""

    @classmethod
    def tokenize(
        cls, data: CtrDataset, encoder: TextEncoder, *, queries: Int[ndarray, "chosen_queries"] = NO_ROWS
    ) -> "Titles":
        """Tokenize every item's title, and the texts of some queries.

        Args:
            data: Where they are.
            encoder: Owns the tokenizer.
            queries: Index of each query whose text is wanted.
        """
        asked = [data.queries.texts[query - 1] for query in queries.tolist()]
        distinct = list(dict.fromkeys(text for text in asked if text is not None))
        texts = [None] * FIRST_INDEX + data.items["title"].to_list() + distinct
        rows = np.array([row for row, text in enumerate(texts) if text is not None], dtype=np.int64)
        tokens = encoder.tokenize([texts[row] for row in rows])
        shape = (len(texts), tokens.ids.shape[1])
        ids = np.full(shape, encoder.padding_index, dtype=np.int64)
        mask = np.zeros(shape, dtype=bool)
        ids[rows], mask[rows] = tokens.ids.numpy(), tokens.mask.numpy()
        first = len(texts) - len(distinct)
        places = {text: row for row, text in enumerate(distinct, start=first) if mask[row].any()}
        of_query = np.full(len(data.queries) + 1, NONE)
        of_query[queries] = [places.get(text, NONE) for text in asked]
        return cls(ids=ids, mask=mask, of_query=of_query)

    @property
    def known(self) -> Bool[ndarray, "titles"]:
        """True where a row has a text."""
        return np.asarray(self.mask.any(1))

    def gather(self, rows: Int[ndarray, "rows"]) -> Tokens:
        """Return the tokens of some rows, cut to the longest of them."""
        mask = self.mask[rows]
        width = max(int(mask.sum(1).max(initial=0)), 1)
        return Tokens(torch.from_numpy(self.ids[rows, :width]), torch.from_numpy(mask[:, :width]))


def picture_vectors(
    encode: Callable[[Tensor], Tensor],
    pictures: Pictures,
    rows: Int[ndarray, "rows"],
    *,
    dim: int,
    device: torch.device,
) -> Float[Tensor, "pictures dim"]:
    """Run ``encode`` over some rows of the pictures, without gradient; float32 on the CPU, zero elsewhere.

    Each process encodes its part of the pictures; all get all vectors.
    """
    vectors = torch.zeros(len(pictures.pixels), dim)
    pieces = list(chunks(rows, PICTURES_AT_ONCE))[rank() :: size()]
    with torch.no_grad():
        for piece in track(pieces, total=len(pieces), description="encode", unit="batches"):
            vectors[piece] = encode(pictures.gather(piece).to(device)).float().cpu()
    return total(vectors)


def title_vectors(
    encode: Callable[[Tensor, Tensor], Tensor],
    titles: Titles,
    rows: Int[ndarray, "rows"],
    *,
    dim: int,
    device: torch.device,
) -> Float[Tensor, "titles dim"]:
    """Run ``encode`` over some rows of the titles without gradient; zero elsewhere, and where there is none.

    Each process encodes its part of the titles; all get all vectors.
    """
    vectors = torch.zeros(len(titles.ids), dim)
    with torch.no_grad():
        for some in list(by_length(titles, rows, PICTURES_AT_ONCE))[rank() :: size()]:
            ids, mask = titles.gather(some)
            vectors[some] = encode(ids.to(device), mask.to(device)).float().cpu()
    return total(vectors)


def by_length(titles: Titles, rows: Int[ndarray, "rows"], batch_size: int) -> Iterator[Int[ndarray, "batch"]]:
    """Yield those of ``rows`` that have a title in batches, alike lengths together: little of a batch is padding."""
    lengths = titles.mask.sum(1)
    order = rows[np.argsort(lengths[rows], kind="stable")]
    return chunks(order[lengths[order] > 0], batch_size)


def chunks(rows: Int[ndarray, "rows"], size: int) -> Iterator[Int[ndarray, "chunk"]]:
    """Yield ``rows`` in pieces of ``size``, the last one shorter."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def epoch_batch(count: int, *, batch_size: int, seed: int, step: int) -> Int[ndarray, "batch"]:
    """Return which of ``count`` rows step ``step`` trains on: a shuffled pass an epoch, its remainder dropped.

    The order of an epoch depends on seed and epoch alone, so that a resumed run sees what an undisturbed one sees.
    """
    rows = step_size(count, batch_size)
    epoch, position = divmod(step, count // rows)
    order = np.random.default_rng([seed, epoch]).permutation(count)
    return order[position * rows : (position + 1) * rows]


def step_size(count: int, batch_size: int) -> int:
    """Return how many of ``count`` rows a step trains on, over all processes.

    Raises:
        ConfigError: there are fewer rows than processes, or a batch does not divide over them.
    """
    rows = min(batch_size, largest_batch(count))
    if not rows:
        raise ConfigError(f"{count} rows to train on: fewer than {size()} processes. Start fewer.")
    own_rows(rows)  # refuses what does not divide
    return rows


def decode_pictures(
    pictures: Iterable[bytes], count: int, encoder: ImageEncoder, path: Path
) -> UInt8[ndarray, "pictures 3 height width"]:
    """Decode and resize ``count`` pictures once, into a memory-mapped file.

    The first process does so for all. The file's name is removed at once, its space is freed when all are done with it:
    however a run ends, nothing is left.
    """
    shape = (count, 3, encoder.size, encoder.size)
    if not count:
        return np.zeros(shape, dtype=np.uint8)
    if is_main():
        pixels = create_array(path, shape, np.uint8)
        for row, picture in enumerate(track(pictures, total=count, description="decode", unit="pictures")):
            pixels[row] = encoder.pixels([picture])[0].numpy()
    barrier()
    mapped = np.load(path, mmap_mode="r")
    barrier()
    if is_main():
        path.unlink()
    return mapped


def _blobs_of(store: BlobStore, indices: Int[ndarray, "chosen"], *, first: int) -> Int[ndarray, "all"]:
    """Return the blob number by index, -1 at every index that was not chosen; row r is index r + ``first``."""
    numbers = np.full(len(store) + first, NONE, dtype=np.int64)
    numbers[indices] = store.numbers[indices - first]
    return numbers


def _places(sorted_numbers: Int[ndarray, "numbers"], blobs: Int[ndarray, "all"]) -> Int[ndarray, "all"]:
    return np.where(blobs >= 0, np.searchsorted(sorted_numbers, blobs), NONE)
