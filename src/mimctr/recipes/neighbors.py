"""Nearest neighbors of held-out query images before and after C-SFT, drawn as pictures."""

import logging
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Float
from numpy import ndarray

from mimctr.batch import FIRST_INDEX
from mimctr.data.dataset import CtrDataset
from mimctr.encoders.item import ItemEncoder
from mimctr.evaluate.results import PictureSheet
from mimctr.files import atomic_path
from mimctr.recipes.embed import open_content
from mimctr.report.pictures import Strip, draw_sheet, nearest, rank_of

logger = logging.getLogger(__name__)

STAGES = {"plain": "before C-SFT", "csft": "after C-SFT"}
"""Folder of the encoder and of its vectors -> what a picture calls it."""
FOLDER = "pictures"


def draw_neighbors(
    dataset: CtrDataset, run: Path, out: Path, *, num_pictures: int, num_neighbors: int, seed: int
) -> list[PictureSheet]:
    """Write ``out/pictures/neighbors-*.jpg`` for held-out pairs chosen at random, never by how they look.

    Pairs are purchases (other kinds where there are none) of the test part, else of the validation part. Candidates
    are all items that have an image and a vector under both encoders, without the item whose image is the query.

    Args:
        dataset: Whose pairs and items are drawn.
        run: Holds the encoders ``plain`` and ``csft``, and their vectors in ``embed``; without them nothing is drawn.
        out: The pictures go into a folder in it.
        num_pictures: How many pairs.
        num_neighbors: Items per strip.
        seed: Of the choice.
    """
    missing = [name for name in STAGES if not (run / name).is_dir() or not (run / "embed" / name).is_dir()]
    pairs = choose_pairs(dataset.pairs, num_pictures, seed=seed)
    if missing or not pairs:
        logger.info(
            "evaluate: no neighbor pictures (%s)", f"no {', '.join(missing)}" if missing else "no pairs"
        )
        return []
    images = [query_image(dataset, pair) for pair in pairs]
    vectors, known = {}, np.r_[np.zeros(FIRST_INDEX, dtype=bool), dataset.item_images.numbers >= 0]
    queries, taken_for = {}, {}
    for name in STAGES:
        table = open_content(dataset, run / "embed" / name)
        known = known & (table.item_rows >= 0)
        vectors[name] = _vectors(table.snapshot.vectors, table.item_rows)
        encoder = ItemEncoder.load(run / name)
        found, looked_like = encoder.embed_query_images(images)
        queries[name] = found.numpy()
        categories = encoder.category_index([None] * FIRST_INDEX + dataset.items["category"].to_list())
        taken_for[name] = [
            (categories == own).numpy() if own >= 0 else np.ones(len(known), dtype=bool)
            for own in looked_like.tolist()
        ]
    sheets = []
    for number, (pair, image) in enumerate(zip(pairs, images, strict=True)):
        allowed = known.copy()
        allowed[pair["query_item"]] = False
        strips, ranks = [], []
        for name, label in STAGES.items():
            query, searched = queries[name][number], allowed & taken_for[name][number]
            shown = nearest(query, vectors[name], searched, num=num_neighbors)
            strips.append(_strip(dataset, label, shown, pair["item"]))
            if searched[pair["item"]]:
                rank = rank_of(pair["item"], query, vectors[name], searched)
                ranks.append(f"{label} {rank:,} of {int(searched.sum()):,}")
            elif allowed[pair["item"]]:
                ranks.append(f"{label} not found, the query was taken for another category")
        positive = dataset.item_images.get(pair["item"] - FIRST_INDEX)
        file = f"{FOLDER}/neighbors-{number + 1:02d}.jpg"
        with atomic_path(out / file) as temporary:
            draw_sheet(image, positive, strips, label=pair["kind"]).save(temporary, format="JPEG", quality=90)
        caption = f"Rank of the {pair['kind']}: {'; '.join(ranks)}."
        if not ranks:
            caption = f"The {pair['kind']} has no image, so it is not among the candidates."
        sheets.append(PictureSheet(file=file, title=f"Held-out pair {number + 1}", caption=caption))
    return sheets


def choose_pairs(pairs: pl.DataFrame, num: int, *, seed: int) -> list[dict]:
    """Return up to ``num`` held-out pairs in random order, no query twice; purchases where there are any."""
    for part in ("test", "validation"):
        held_out = pairs.filter(pl.col("part") == part)
        purchases = held_out.filter(pl.col("kind") == "purchase")
        chosen = purchases if purchases.height else held_out
        own = chosen.unique(["query", "query_item"], keep="first", maintain_order=True)
        if own.height:
            rows = np.random.default_rng(seed).permutation(own.height)[:num]
            return own[rows].to_dicts()
    return []


def query_image(dataset: CtrDataset, pair: dict) -> bytes:
    """Return the picture that stands for the query of a pair: the query's own, or that of the item it is."""
    if pair["query"]:
        image = dataset.queries.images.get(pair["query"] - 1)
    else:
        image = dataset.item_images.get(pair["query_item"] - FIRST_INDEX)
    assert image is not None, "the dataset makes pairs of query images only"
    return image


def _strip(dataset: CtrDataset, label: str, items: ndarray, positive: int) -> Strip:
    images = [dataset.item_images.get(int(item) - FIRST_INDEX) for item in items]
    return Strip(label=label, images=images, positive=[bool(item == positive) for item in items])


def _vectors(stored: Float[ndarray, "vectors content"], rows: ndarray) -> Float[ndarray, "items content"]:
    """Return float32 vectors by ``item_index``; zero where there is none."""
    result = np.zeros((len(rows), stored.shape[1]), dtype=np.float32)
    held = rows >= 0
    result[held] = stored[rows[held]]
    return result
