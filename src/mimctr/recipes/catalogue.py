"""A dataset's whole catalogue seen through an item encoder's towers, and the plain geometry fitted on it."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from mimctr.batch import FIRST_INDEX
from mimctr.data.dataset import CtrDataset
from mimctr.encoders.image import ImageEncoder
from mimctr.encoders.item import ItemEncoder
from mimctr.encoders.plain import fit_plain_geometry
from mimctr.encoders.text import TextEncoder
from mimctr.encoders.vectors import ItemVectors, QueryVectors
from mimctr.recipes.content import NO_ROWS, NONE, Pictures, Titles, chunks, picture_vectors, title_vectors
from mimctr.recipes.item_config import ItemConfig
from mimctr.recipes.visual_search import Pairs, visual_search
from mimctr.weights import load_tensors, save_tensors

logger = logging.getLogger(__name__)

ITEMS_AT_ONCE = 2048
KEPT = "towers.safetensors"
"""What the towers said of a dataset's items, beside the item encoder whose heads were fitted on it."""


class TowerVectors(NamedTuple):
    """What the towers say of a catalogue; rows are L2-normalized, zero where nothing was there or was asked."""

    pictures: Float[Tensor, "pictures image"]
    """By row of the decoded pictures, items' and queries'."""
    titles: Float[Tensor, "titles text"]
    """By ``item_index``, then the texts of queries."""


class Catalogue:
    """Pictures and titles of all items and of some queries, ready for the towers.

    Args:
        data: The dataset.
        encoder: Says the image size, the tokens, and whether texts may ask.
        queries: Indices of the queries that are wanted: their pictures and, where texts may ask, the texts of those
            without a picture.
        path: Where the file for the decoded pixels is made.
        kept_in: Where :meth:`keep` may have left these towers' vectors; with them, and without pictures of queries,
            nothing is decoded and no tower run.
    """

    def __init__(
        self,
        data: CtrDataset,
        encoder: ItemEncoder,
        queries: Int[ndarray, "queries"],
        path: Path,
        *,
        kept_in: Path | None = None,
    ) -> None:
        self.data = data
        items = np.arange(data.num_items) + FIRST_INDEX
        self._kept = read_kept(kept_in, data, encoder) if kept_in is not None and not len(queries) else None
        if self._kept is None:
            self.pictures = Pictures.decode(data, encoder.image_encoder, path, items=items, queries=queries)
        else:
            self.pictures = _pictures_of(self._kept)
        texts = queries[self.pictures.of_query[queries] < 0] if encoder.text_queries else NO_ROWS
        self.titles = Titles.tokenize(data, encoder.text_encoder, queries=texts)
        self.has_image: Bool[ndarray, items] = self.pictures.of_item >= 0
        self.has_text: Bool[ndarray, items] = self.titles.known[: len(self.has_image)]

    @property
    def has_content(self) -> Bool[ndarray, "items"]:
        """By ``item_index``: whether it has picture or title."""
        return self.has_image | self.has_text

    def run_towers(
        self,
        encoder: ItemEncoder,
        *,
        device: torch.device,
        also: Sequence[Pairs] | None = None,
    ) -> TowerVectors:
        """Run both towers, in evaluation mode and without gradient, over every item and over queries.

        Args:
            encoder: Owns the towers.
            device: Where they run.
            also: Pairs whose queries are wanted; all queries where None.
        """
        if self._kept is not None:
            return TowerVectors(self._kept.image, self._kept.text)
        encoder.eval()
        pictures, titles = np.arange(len(self.pictures.pixels)), np.arange(len(self.titles.ids))
        if also is not None:
            shown, read, _ = split_queries(
                np.concatenate([pairs.picture for pairs in also]),
                np.concatenate([pairs.text for pairs in also]),
            )
            pictures = np.union1d(self.pictures.of_item[self.has_image], shown)
            titles = np.union1d(np.flatnonzero(self.has_text), read)
        image, text = encoder.image_encoder, encoder.text_encoder
        return TowerVectors(
            picture_vectors(encoder.image_vectors, self.pictures, pictures, dim=image.dim, device=device),
            title_vectors(encoder.text_vectors, self.titles, titles, dim=text.dim, device=device),
        )

    def item_vectors(self, items: Int[ndarray, "chosen"], towers: TowerVectors) -> ItemVectors:
        """Gather the vectors of some items from what :meth:`run_towers` returned."""
        has_image, has_text = torch.from_numpy(self.has_image[items]), torch.from_numpy(self.has_text[items])
        image = towers.pictures[torch.from_numpy(self.pictures.of_item[items].clip(min=0))]
        return ItemVectors(
            image.masked_fill(~has_image.unsqueeze(1), 0.0), has_image, towers.titles[items], has_text
        )

    def query_vectors(
        self, picture: Int[ndarray, "queries"], text: Int[ndarray, "queries"], towers: TowerVectors
    ) -> QueryVectors:
        """Gather the vectors of some queries from what :meth:`run_towers` returned.

        Args:
            picture: Row in the decoded pictures; -1 where a text asks.
            text: Row in the titles, where a text asks.
            towers: What the towers say.
        """
        shown, read, place = split_queries(picture, text)
        return QueryVectors(
            towers.pictures[torch.from_numpy(shown)], towers.titles[torch.from_numpy(read)], place
        )

    def keep(self, folder: Path, encoder: ItemEncoder, towers: TowerVectors) -> None:
        """Write the vectors of all items into ``folder``: they need not be encoded again (:func:`read_kept`)."""
        vectors = self.item_vectors(np.arange(len(self.has_content)), towers)
        save_tensors(folder / KEPT, vectors._asdict(), meta=_origin(self.data, encoder))

    def search(
        self,
        encoder: ItemEncoder,
        pairs: Pairs,
        towers: TowerVectors,
        *,
        query: Literal["image", "item"] = "image",
    ) -> dict[str, dict[str, float]]:
        """Return the visual-search metrics by slice of ``pairs`` under the encoder's heads, given its towers' vectors.

        The query is the pair's picture or text, or the ``h^MM`` of the item whose picture it is.
        """
        fused = self.fused(encoder, np.arange(len(self.has_content)), towers)
        queries = self.queries(encoder, pairs, towers, fused, query=query)
        return visual_search(queries, fused, self.data, pairs, self.has_content)

    def queries(
        self,
        encoder: ItemEncoder,
        pairs: Pairs,
        towers: TowerVectors,
        fused: Float[Tensor, "items content"],
        *,
        query: Literal["image", "item"],
    ) -> Float[Tensor, "pairs content"]:
        """Return what asks: ``h_q`` of each pair's picture or text, or from ``fused`` the item whose picture it is."""
        if query == "item":
            return fused[torch.from_numpy(pairs.query_item)]
        device = encoder.image_head.weight.device
        vectors = self.query_vectors(pairs.picture, pairs.text, towers)
        with torch.no_grad():
            return encoder.query_views(QueryVectors(*(value.to(device) for value in vectors))).cpu()

    def fused(
        self, encoder: ItemEncoder, items: Int[ndarray, "chosen"], towers: TowerVectors
    ) -> Float[Tensor, "chosen content"]:
        """Return ``h^MM`` of some items, in evaluation mode and not normalized, given the towers' vectors."""
        encoder.eval()
        device = encoder.image_head.weight.device
        found = []
        with torch.no_grad():
            for some in chunks(items, ITEMS_AT_ONCE):
                vectors = self.item_vectors(some, towers)
                found.append(encoder(ItemVectors(*(value.to(device) for value in vectors))).fused.cpu())
        return torch.cat(found)

    def recenter(self, encoder: ItemEncoder, towers: TowerVectors) -> None:
        """Center ``h^MM`` on the items with picture and title known before the test part, and on their categories.

        Queries are centered on those categories too.
        """
        device = encoder.image_head.weight.device
        fused = self.fused(encoder, self.complete, towers).to(device)
        with torch.no_grad():
            pictures = towers.pictures[torch.from_numpy(self.pictures.of_item[self.complete])]
            images = encoder.query_view(pictures.to(device))
            texts = encoder.text_view(towers.titles[torch.from_numpy(self.complete)].to(device))
        encoder.set_center(fused, images, texts, self.category_index(encoder)[self.complete].to(device))

    def category_index(self, encoder: ItemEncoder) -> Int[Tensor, "items"]:
        """Return the encoder's number of each item's category, by ``item_index``."""
        return encoder.category_index([None] * FIRST_INDEX + self.data.items["category"].to_list())

    @property
    def complete(self) -> Int[ndarray, "items"]:
        """``item_index`` of the items with picture and title that were known before the test part."""
        known = self.data.items["first_seen_time"].to_numpy() < self.data.manifest.test_start
        index = np.flatnonzero(known) + FIRST_INDEX
        return index[self.has_image[index] & self.has_text[index]]


def split_queries(
    picture: Int[ndarray, "queries"], text: Int[ndarray, "queries"]
) -> tuple[Int[ndarray, "pictures"], Int[ndarray, "texts"], Int[Tensor, "queries"]]:
    """Tell queries that are pictures from those that are texts.

    Args:
        picture: Row in the decoded pictures; -1 where a text asks.
        text: Row in the titles, where a text asks.

    Returns:
        pictures: Rows of the queries that are pictures, in order.
        texts: Rows of the others.
        place: Of each query in the pictures followed by the texts.
    """
    reads = picture < 0
    place = np.argsort(np.argsort(reads, kind="stable"))
    return picture[~reads], text[reads], torch.from_numpy(place)


def read_kept(folder: Path, data: CtrDataset, encoder: ItemEncoder) -> ItemVectors | None:
    """Return the vectors by ``item_index`` that :meth:`Catalogue.keep` wrote into ``folder``.

    None where there are none, or they are of another dataset or of other towers than ``encoder`` has.
    """
    if not (folder / KEPT).is_file():
        return None
    tensors, origin = load_tensors(folder / KEPT)
    if origin != _origin(data, encoder):
        logger.info("%s: of another dataset or other towers; the towers are run", folder / KEPT)
        return None
    return ItemVectors(**tensors)


def _pictures_of(kept: ItemVectors) -> Pictures:
    """Return pictures without pixels, of which the vectors are known; an item's is in the row of its ``item_index``."""
    of_item = np.where(kept.has_image.numpy(), np.arange(len(kept.has_image)), NONE)
    no_pixels = np.zeros((0, 3, 1, 1), dtype=np.uint8)
    return Pictures(pixels=no_pixels, of_item=of_item, of_query=np.full(1, NONE))


def _origin(data: CtrDataset, encoder: ItemEncoder) -> dict[str, str]:
    return {"dataset": data.manifest.source_hash, "towers": encoder.towers_fingerprint}


def load_towers(encoders: Path, data: CtrDataset, config: ItemConfig) -> ItemEncoder:
    """Return an item encoder with the towers in ``encoders/image`` and ``encoders/text``, heads still untrained."""
    categories = data.items["category"].drop_nulls().unique().sort().to_list()
    return ItemEncoder(
        ImageEncoder.load(encoders / "image"),
        TextEncoder.load(encoders / "text"),
        dim=config.dim,
        hidden=config.hidden,
        dropout=config.dropout,
        fusion=config.fusion,
        fusion_rank=config.fusion_rank,
        categories=categories if config.center_by_category else (),
        bf16=config.bf16,
        text_queries=config.text_queries,
    )


def start_plain(encoder: ItemEncoder, catalogue: Catalogue, towers: TowerVectors, config: ItemConfig) -> None:
    """Set the heads to the plain geometry, fitted on items with picture and title known before the test part.

    Args:
        encoder: Its heads are set.
        catalogue: The items.
        towers: From :meth:`Catalogue.run_towers`.
        config: Says how many items, drawn at random, are enough for the covariance, and how far it is whitened.
    """
    known = catalogue.complete
    chosen = np.random.default_rng([config.seed, len(known)]).permutation(known)[: config.max_plain_items]
    vectors = catalogue.item_vectors(np.sort(chosen), towers)
    geometry = fit_plain_geometry(
        vectors.image,
        vectors.text,
        dim=encoder.dim,
        num_axes=encoder.image_head.in_features,
        whitening=config.whitening,
    )
    encoder.start_plain(geometry)
