"""Nearest neighbors of held-out query images with the plain encoder and after C-SFT, drawn as pictures."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Float
from numpy import ndarray
from PIL import Image

from mimctr.batch import FIRST_INDEX
from mimctr.data.dataset import CtrDataset
from mimctr.encoders.item import ItemEncoder
from mimctr.evaluate.results import PictureSheet
from mimctr.files import atomic_path
from mimctr.recipes.embed import open_content
from mimctr.report.drawing import encode_jpeg
from mimctr.report.pictures import Strip, draw_sheet, nearest, rank_of

logger = logging.getLogger(__name__)

BEFORE, AFTER = "before C-SFT", "after C-SFT"
STAGES = {"plain": "plain", "csft": AFTER}
"""Folder of the encoder and of its vectors -> what a picture calls it."""
FOLDER = "pictures"
LIMIT = 150_000
"""Bytes of a picture's file at most."""


class Encoded(NamedTuple):
    """An encoder and what it made of a dataset."""

    encoder: Path
    """Folder of the encoder."""
    content: Path
    """Folder of its vectors (``mimctr embed``)."""


class View(NamedTuple):
    """How one encoder sees some query images and the items."""

    label: str
    queries: Float[ndarray, "pairs content"]
    items: Float[ndarray, "items content"]
    """By ``item_index``."""
    known: Bool[ndarray, "items"]
    """Whether the item has a vector."""
    searched: Bool[ndarray, "pairs items"]
    """Among which items each query looks."""


class Drawn(NamedTuple):
    """One pair as a picture, and what is to be said of it."""

    picture: Image.Image
    caption: str


def draw_neighbors(
    dataset: CtrDataset, run: Path, out: Path, *, num_pictures: int, num_neighbors: int, seed: int
) -> list[PictureSheet]:
    """Write ``out/pictures/neighbors-*.jpg`` for held-out pairs of a run, seen by its stored vectors.

    Args:
        dataset: Whose pairs and items are drawn.
        run: Holds the encoders ``plain`` and ``csft``, and their vectors in ``embed``; without them nothing is drawn.
        out: The pictures go into a folder in it.
        num_pictures: How many pairs.
        num_neighbors: Items per strip.
        seed: Of the choice.
    """
    missing = [name for name in STAGES if not (run / name).is_dir() or not (run / "embed" / name).is_dir()]
    if missing:
        logger.info("evaluate: no neighbor pictures (no %s)", ", ".join(missing))
        return []
    encoders = {label: Encoded(run / name, run / "embed" / name) for name, label in STAGES.items()}
    return draw_stored_neighbors(
        dataset, encoders, out, num_pictures=num_pictures, num_neighbors=num_neighbors, seed=seed
    )


def draw_stored_neighbors(
    dataset: CtrDataset,
    encoders: Mapping[str, Encoded],
    out: Path,
    *,
    num_pictures: int,
    num_neighbors: int,
    seed: int,
) -> list[PictureSheet]:
    """Write ``out/pictures/neighbors-*.jpg`` for held-out pairs, a strip for each encoder under its label.

    Args:
        dataset: Whose pairs and items are drawn.
        encoders: By label, from top to bottom.
        out: The pictures go into a folder in it.
        num_pictures: How many pairs.
        num_neighbors: Items per strip.
        seed: Of the choice.
    """
    pairs = choose_pairs(asked_by_picture(dataset, dataset.pairs), num_pictures, seed=seed)
    if not pairs.height:
        logger.info("no neighbor pictures (no held-out pairs that ask by picture)")
        return []
    views = [_stored_view(dataset, pairs, label, encoded) for label, encoded in encoders.items()]
    sheets = []
    for number, drawn in enumerate(draw_pairs(dataset, pairs, views, num_neighbors=num_neighbors), start=1):
        file = f"{FOLDER}/neighbors-{number:02d}.jpg"
        save_picture(drawn.picture, out / file, limit=LIMIT)
        sheets.append(PictureSheet(file=file, title=f"Held-out pair {number}", caption=drawn.caption))
    return sheets


def asked_by_picture(dataset: CtrDataset, pairs: pl.DataFrame) -> pl.DataFrame:
    """Return the pairs whose query is a picture: one that is only a text is not drawn."""
    drawable = np.r_[True, dataset.queries.images.numbers >= 0]  # 0: the picture of an item
    return pairs.filter(pl.Series(drawable[pairs["query"].to_numpy()]))


def choose_pairs(pairs: pl.DataFrame, num: int, *, seed: int) -> pl.DataFrame:
    """Return up to ``num`` held-out pairs in random order, never chosen by how they look, no query twice.

    They are of the test part, else of the validation part; purchases where there are any.
    """
    for part in ("test", "validation"):
        held_out = pairs.filter(pl.col("part") == part)
        purchases = held_out.filter(pl.col("kind") == "purchase")
        chosen = purchases if purchases.height else held_out
        own = chosen.unique(["query", "query_item"], keep="first", maintain_order=True)
        if own.height:
            return own[np.random.default_rng(seed).permutation(own.height)[:num]]
    return pairs.clear()


def draw_pairs(
    dataset: CtrDataset, pairs: pl.DataFrame, views: Sequence[View], *, num_neighbors: int
) -> list[Drawn]:
    """Return every pair as a picture: query and item, beside them one strip of nearest items per view.

    Candidates are the items among which the query looks that have an image, and a vector in every view, without the
    item whose image is the query.
    """
    known = np.r_[np.zeros(FIRST_INDEX, dtype=bool), dataset.item_images.numbers >= 0]
    for view in views:
        known = known & view.known
    drawn = []
    for row, pair in enumerate(pairs.iter_rows(named=True)):
        item, kind = pair["item"], pair["kind"]
        allowed = known.copy()
        allowed[pair["query_item"]] = False
        strips, ranks = [], []
        for view in views:
            query, candidates = view.queries[row], allowed & view.searched[row]
            label = view.label
            if candidates[item]:
                rank = rank_of(item, query, view.items, candidates)
                place = f"{rank:,} of {int(candidates.sum()):,}"
                ranks.append(f"{view.label} {place}")
                label += f": rank {place}"
            elif allowed[item]:
                ranks.append(f"{view.label} not found, the query was taken for another category")
                label += ": not found"
            shown = nearest(query, view.items, candidates, num=num_neighbors)
            strips.append(_strip(dataset, label, shown, item))
        caption = f"Rank of the {kind}: {'; '.join(ranks)}."
        if not ranks:
            caption = f"The {kind} has no image, so it is not among the candidates."
        positive = dataset.item_images.get(item - FIRST_INDEX)
        drawn.append(Drawn(draw_sheet(query_image(dataset, pair), positive, strips, label=kind), caption))
    return drawn


def query_image(dataset: CtrDataset, pair: dict) -> bytes:
    """Return the picture that stands for the query of a pair: the query's own, or that of the item it is."""
    if pair["query"]:
        image = dataset.queries.images.get(pair["query"] - 1)
    else:
        image = dataset.item_images.get(pair["query_item"] - FIRST_INDEX)
    assert image is not None, "pairs were chosen by asked_by_picture"
    return image


def save_picture(picture: Image.Image, path: Path, *, limit: int | None = None) -> None:
    """Write a picture as JPEG, of at most ``limit`` bytes where there is one."""
    with atomic_path(path) as temporary:
        if limit is None:
            picture.save(temporary, format="JPEG", quality=90)
        else:
            temporary.write_bytes(encode_jpeg(picture, limit=limit))


def _stored_view(dataset: CtrDataset, pairs: pl.DataFrame, label: str, encoded: Encoded) -> View:
    """Return how an encoder sees the pairs, by its stored vectors; a query looks in the category that it looks like."""
    table = open_content(dataset, encoded.content)
    encoder = ItemEncoder.load(encoded.encoder)
    images = [query_image(dataset, pair) for pair in pairs.iter_rows(named=True)]
    queries, looked_like = encoder.embed_query_images(images)
    categories = encoder.category_index([None] * FIRST_INDEX + dataset.items["category"].to_list())
    searched = (categories == looked_like.unsqueeze(1)) | (looked_like < 0).unsqueeze(1)
    return View(
        label,
        queries.numpy(),
        _vectors(table.snapshot.vectors, table.item_rows),
        table.item_rows >= 0,
        searched.numpy(),
    )


def _strip(dataset: CtrDataset, label: str, items: ndarray, positive: int) -> Strip:
    images = [dataset.item_images.get(int(item) - FIRST_INDEX) for item in items]
    return Strip(label=label, images=images, positive=[bool(item == positive) for item in items])


def _vectors(stored: Float[ndarray, "vectors content"], rows: ndarray) -> Float[ndarray, "items content"]:
    """Return float32 vectors by ``item_index``; zero where there is none."""
    result = np.zeros((len(rows), stored.shape[1]), dtype=np.float32)
    held = rows >= 0
    result[held] = stored[rows[held]]
    return result
