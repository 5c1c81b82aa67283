"""The picture that C-SFT leaves beside its encoder: nearest items of held-out queries, before and after."""

import logging
from pathlib import Path

import numpy as np
import polars as pl

from mimctr.batch import FIRST_INDEX
from mimctr.encoders.item import ItemEncoder
from mimctr.recipes.catalogue import Catalogue, TowerVectors
from mimctr.recipes.csft_config import Config
from mimctr.recipes.neighbors import View, asked_by_picture, choose_pairs, draw_pairs, save_picture
from mimctr.recipes.visual_search import usable_pairs
from mimctr.report.pictures import stack_sheets

logger = logging.getLogger(__name__)

PICTURE = "neighbors.jpg"
NUM_NEIGHBORS = 5


class NeighborSheet:
    """Held-out pairs, chosen at random by seed, and what encoders find nearest to their queries.

    A query looks where held-out search does: among the items that were known by the purchase.

    Args:
        catalogue: Items and queries.
        config: Says which pairs, how many, and what asks.
    """

    def __init__(self, catalogue: Catalogue, config: Config) -> None:
        self._catalogue = catalogue
        self._config = config
        table = asked_by_picture(catalogue.data, catalogue.data.pairs)
        if config.pair_kinds:
            table = table.filter(pl.col("kind").is_in(config.pair_kinds))
        with_content = pl.Series(catalogue.has_content[table["item"].to_numpy()])
        self._table = choose_pairs(table.filter(with_content), config.num_pictures, seed=config.seed)
        self.pairs = usable_pairs(self._table, catalogue.pictures, catalogue.titles, catalogue.has_content)
        assert len(self.pairs) == self._table.height, "pairs were chosen by picture and content"
        self._views: list[View] = []

    def look(self, label: str, encoder: ItemEncoder, towers: TowerVectors) -> None:
        """Add a strip to every pair: what is nearest under the encoder's heads, given its towers' vectors."""
        catalogue, pairs = self._catalogue, self.pairs
        fused = catalogue.fused(encoder, np.arange(len(catalogue.has_content)), towers)
        queries = catalogue.queries(encoder, pairs, towers, fused, query=self._config.query)
        first_seen = np.r_[
            np.zeros(FIRST_INDEX, np.int64), catalogue.data.items["first_seen_time"].to_numpy()
        ]
        searched = first_seen[None, :] <= pairs.time[:, None]
        searched[np.arange(len(pairs)), pairs.item] = True
        self._views.append(View(label, queries.numpy(), fused.numpy(), catalogue.has_content, searched))

    def write(self, folder: Path) -> None:
        """Write ``neighbors.jpg`` into ``folder``, pair below pair; nothing where there are no pairs."""
        if len(self.pairs):
            drawn = draw_pairs(self._catalogue.data, self._table, self._views, num_neighbors=NUM_NEIGHBORS)
            save_picture(stack_sheets([pair.picture for pair in drawn]), folder / PICTURE)
            logger.info("csft: nearest items of %d held-out queries in %s", len(drawn), folder / PICTURE)
