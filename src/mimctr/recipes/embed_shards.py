"""A catalogue in shards: each different picture and title is encoded once, by whatever comes to its shard first."""

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from mimctr.data.blobs import BlobStore
from mimctr.data.dataset import CtrDataset
from mimctr.encoders.backends import open_towers
from mimctr.encoders.item import ItemEncoder, recorded_fingerprint
from mimctr.encoders.vectors import ItemVectors, Towers
from mimctr.evaluate.machine import describe_machine
from mimctr.files import hash_json
from mimctr.recipes.catalogue import read_kept
from mimctr.recipes.content import NONE, Titles, by_length, chunks
from mimctr.recipes.device import pick_device
from mimctr.recipes.embed_config import Config
from mimctr.weights import load_tensors, save_tensors

Part = Literal["pictures", "queries", "titles", "texts"]
PARTS: tuple[Part, ...] = ("pictures", "queries", "titles", "texts")
"""Pictures of items, pictures that ask, titles of items, texts that ask: the slowest first."""
BATCHES_ON_A_GPU = 2
"""Batches that a GPU holds at one time: the next is copied while one runs."""
_VIEWS = "views"


class Shard(NamedTuple):
    """Some pieces of one part, encoded and written together."""

    part: Part
    start: int
    stop: int

    @property
    def num_pieces(self) -> int:
        """Return how many pieces it has."""
        return self.stop - self.start


class Contents:
    """What a dataset holds to be encoded, each different piece once, and which piece each item and query has.

    Args:
        data: The dataset.
        text_queries: Whether queries without a picture are encoded by their text.
    """

    def __init__(self, data: CtrDataset, *, text_queries: bool = False) -> None:
        self.item_images, self.query_images = data.item_images, data.queries.images
        self.titles, self.title_of_item = _distinct_texts(data.items["title"].to_list())
        self.pictures, self.picture_of_item = _distinct(self.item_images.numbers)
        self.queries, self.picture_of_query = _distinct(self.query_images.numbers)
        asked = data.queries.texts if text_queries else [None] * len(data.queries)
        self.texts, self.text_of_query = _distinct_texts(
            [
                text if picture < 0 else None
                for text, picture in zip(asked, self.picture_of_query, strict=True)
            ]
        )

    @property
    def has_content(self) -> Bool[ndarray, "items"]:
        """By row of the items: whether it has picture or title."""
        return (self.picture_of_item >= 0) | (self.title_of_item >= 0)

    def shards(self, size: int, parts: Sequence[Part] = PARTS) -> list[Shard]:
        """Return the shards of some parts, ``size`` pieces each; the same for every process."""
        counts = {
            "pictures": len(self.pictures),
            "queries": len(self.queries),
            "titles": len(self.titles),
            "texts": len(self.texts),
        }
        return [
            Shard(part, start, min(start + size, counts[part]))
            for part in parts
            for start in range(0, counts[part], size)
        ]


class ShardEncoder:
    """Encodes shards and keeps them in a folder; several threads may call it.

    A shard holds what the heads say of its pieces, ``h^img`` or ``h^txt``. Batches are cut the same way whoever encodes
    a shard, and alike lengths of titles stand together within it.

    Args:
        data: The dataset.
        encoder: Item encoder, on the device where its heads are to run.
        towers: What runs its towers.
        folder: One file a shard.
        batch_size: Pieces of a forward pass.
        batches_per_shard: Batches that are written together.
        kept: What the towers say of all items by ``item_index``, where that is known: only queries are encoded then.
    """

    def __init__(
        self,
        data: CtrDataset,
        encoder: ItemEncoder,
        towers: Towers,
        folder: Path,
        *,
        batch_size: int,
        batches_per_shard: int,
        kept: ItemVectors | None = None,
    ) -> None:
        self.data = data
        self.contents = Contents(data, text_queries=encoder.text_queries)
        self.encoder = encoder
        self.towers = towers
        self.kept = kept
        self.shards = self.contents.shards(
            batch_size * batches_per_shard, PARTS if kept is None else ("queries", "texts")
        )
        self._folder = folder
        self._batch_size = batch_size
        self._device = encoder.image_head.weight.device
        self._turns = threading.Semaphore(BATCHES_ON_A_GPU) if self._device.type != "cpu" else nullcontext()
        self._stopping = threading.Event()

    @classmethod
    def open(cls, dataset: Path, encoder: Path, folder: Path, config: Config) -> "ShardEncoder":
        """Open a dataset and an item encoder; ``folder`` keeps the shards, apart from those made of anything else.

        Raises:
            EncoderError: the encoder cannot be read, or the back-end is not installed or cannot run its towers.
        """
        data = CtrDataset.open(dataset)
        on_cpu = config.backend != "torch"
        model = ItemEncoder.load(encoder).to(pick_device("cpu" if on_cpu else config.device))
        made_from = {
            "encoder": recorded_fingerprint(encoder),
            "dataset": data.manifest.data_hash(),
            "settings": config.model_dump(mode="json"),
        }
        return cls(
            data,
            model,
            open_towers(model, config.backend, num_workers=num_workers(config)),
            folder / hash_json(made_from)[:12],
            batch_size=config.batch_size,
            batches_per_shard=config.batches_per_shard,
            kept=None if on_cpu else read_kept(encoder, data, model),
        )

    def missing(self) -> list[int]:
        """Return the numbers of the shards that are not on disk."""
        return [number for number, shard in enumerate(self.shards) if not self._path(shard).exists()]

    def encode(self, shard: Shard) -> Shard:
        """Encode a shard and write it; return it.

        Raises:
            CancelledError: :meth:`stop` was called.
        """
        if shard.part == "titles":
            views = self._title_views(self.contents.titles[shard.start : shard.stop])
        elif shard.part == "texts":
            views = self._title_views(self.contents.texts[shard.start : shard.stop])
        elif shard.part == "pictures":
            numbers = self.contents.pictures[shard.start : shard.stop]
            views = self._picture_views(self.contents.item_images, numbers)
        else:
            numbers = self.contents.queries[shard.start : shard.stop]
            views = self._picture_views(self.contents.query_images, numbers)
        save_tensors(self._path(shard), {_VIEWS: views})
        return shard

    def stop(self) -> None:
        """Let every thread stop before its next batch."""
        self._stopping.set()

    def read(self, part: Part) -> Float[Tensor, "pieces content"]:
        """Return what was written of one part."""
        files = (self._path(shard) for shard in self.shards if shard.part == part)
        return torch.cat(
            [torch.zeros(0, self.encoder.dim), *(load_tensors(file)[0][_VIEWS] for file in files)]
        )

    def _picture_views(
        self, store: BlobStore, numbers: Int[ndarray, "pictures"]
    ) -> Float[Tensor, "pictures content"]:
        def encode(some: Int[ndarray, "batch"]) -> Tensor:
            pixels = self.encoder.image_encoder.pixels(map(store.blob, some.tolist()))
            with self._turn(), torch.no_grad():
                vectors = self.towers.image_vectors(pixels.to(self._device))
                return self.encoder.query_view(vectors.to(self._device)).cpu()

        return torch.cat([encode(some) for some in chunks(numbers, self._batch_size)])

    def _title_views(self, titles: list[str]) -> Float[Tensor, "titles content"]:
        tokens = self.encoder.text_encoder.tokenize(titles)
        shard = Titles(ids=tokens.ids.numpy(), mask=tokens.mask.numpy())
        views = torch.zeros(len(titles), self.encoder.dim)
        for rows in by_length(shard, np.arange(len(titles)), self._batch_size):
            ids, mask = shard.gather(rows)
            with self._turn(), torch.no_grad():
                vectors = self.towers.text_vectors(ids.to(self._device), mask.to(self._device))
                views[rows] = self.encoder.text_view(vectors.to(self._device)).cpu()
        return views

    def _turn(self) -> AbstractContextManager:
        if self._stopping.is_set():
            raise CancelledError
        return self._turns

    def _path(self, shard: Shard) -> Path:
        return self._folder / shard.part / f"{shard.start:012d}.safetensors"


def encode_in_threads(encoder: ShardEncoder, shards: Iterable[Shard], num_threads: int) -> Iterator[Shard]:
    """Encode shards in threads, each with a shard of its own; yield each one when it is on disk.

    A thread decodes, tokenizes and runs the towers on one core: pictures are decoded while other threads run the model
    (both let go of Python's lock), no core waits for another, and the result does not depend on how many there are.
    Interrupted, every thread stops after its present batch.

    Args:
        encoder: Shared by all threads.
        shards: Which ones.
        num_threads: How many.
    """
    pool = ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        for done in as_completed([pool.submit(encoder.encode, shard) for shard in shards]):
            yield done.result()
    except BaseException:
        encoder.stop()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let every operation of PyTorch run on the thread that calls it: how a sum is divided changes its last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def num_workers(config: Config) -> int:
    """Return how many threads this process starts: as set, or one a core, shared with torchrun's others here."""
    num_processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return config.num_workers or max(1, describe_machine().num_cores // num_processes)


def _distinct_texts(texts: Sequence[str | None]) -> tuple[list[str], Int[ndarray, "rows"]]:
    """Return the different texts in the order in which they come, and each row's place among them; -1 for None."""
    distinct = list(dict.fromkeys(text for text in texts if text is not None))
    places = {text: place for place, text in enumerate(distinct)}
    return distinct, np.array([NONE if text is None else places[text] for text in texts], dtype=np.int64)


def _distinct(numbers: Int[ndarray, "rows"]) -> tuple[Int[ndarray, "distinct"], Int[ndarray, "rows"]]:
    """Return the different numbers from 0 on, and the place of each row's number among them; -1 where it has none."""
    distinct, places = np.unique(numbers, return_inverse=True)
    num_negative = int(np.searchsorted(distinct, 0))
    return distinct[num_negative:], np.maximum(places - num_negative, NONE)
