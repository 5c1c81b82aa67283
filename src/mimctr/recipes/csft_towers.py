"""The towers' vectors during C-SFT: run with gradient batch by batch, or once for all where only heads are trained."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Int
from numpy import ndarray
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mimctr.csft.augment import augment
from mimctr.encoders.batch_norm import SharedBatchNorm2d
from mimctr.encoders.image import ImageEncoder
from mimctr.encoders.item import ItemEncoder
from mimctr.encoders.text import TextEncoder
from mimctr.encoders.vectors import ItemVectors, QueryVectors
from mimctr.evaluate.cohorts import ALL
from mimctr.evaluate.metrics import auc
from mimctr.recipes.catalogue import Catalogue, TowerVectors, split_queries
from mimctr.recipes.content import NO_ROWS
from mimctr.recipes.csft_config import Config
from mimctr.recipes.csft_examples import Batch
from mimctr.recipes.visual_search import Pairs, mean_cosines


class Towers:
    """The towers' vectors of a batch or of everything: run with gradient, or once for all.

    Args:
        catalogue: Pictures and titles.
        encoder: Owns the towers.
        device: Where they run.
        config: Settings. Where only heads are trained, the towers run once, now, in evaluation mode.
    """

    def __init__(
        self, catalogue: Catalogue, encoder: ItemEncoder, device: torch.device, config: Config
    ) -> None:
        self._catalogue = catalogue
        self._encoder = encoder
        self._device = device
        self._config = config
        self._cached: TowerVectors | None = None
        if config.trainable == "heads":
            self._cached = catalogue.run_towers(encoder, device=device)

    def everything(self, *pairs: Pairs) -> TowerVectors:
        """Return the vectors of all items and of the queries of some pairs at least, without gradient."""
        return self._cached or self._catalogue.run_towers(self._encoder, device=self._device, also=pairs)

    def search(self, pairs: Pairs) -> dict[str, float]:
        """Center ``h^MM`` on the catalogue; return search metrics of all ``pairs`` with the present weights.

        Beside them ``cosine_auc``, the AUC of the mean cosine on validation impressions: what stage 3 starts from. It
        is left out where all of them were clicked, or none.

        Raises:
            DataError: so it is, and ``cosine_auc`` is the watched metric.
        """
        vectors = self.everything(pairs)
        catalogue, encoder = self._catalogue, self._encoder
        catalogue.recenter(encoder, vectors)
        found = catalogue.search(encoder, pairs, vectors, query=self._config.query)
        fused = catalogue.fused(encoder, np.arange(len(catalogue.has_content)), vectors).to(self._device)
        content = encoder.content(fused, catalogue.category_index(encoder).to(self._device)).cpu()
        cosines = mean_cosines(catalogue.data, content, catalogue.has_content, "validation")
        if self._config.metric != "cosine_auc" and len(np.unique(cosines.click)) < 2:
            return found[ALL]
        return found[ALL] | {"cosine_auc": auc(cosines.click, cosines.score)}

    def vectors(self, batch: Batch) -> tuple[QueryVectors | ItemVectors, ItemVectors]:
        """Return the vectors of queries and items of a batch, on the device; with gradient unless cached.

        Queries are pictures and texts, or items where items ask.
        """
        if self._config.query == "image":
            return self._vectors(batch.items, batch.pictures, batch.texts)
        count = len(batch.query_items)
        _, both = self._vectors(np.concatenate([batch.query_items, batch.items]), NO_ROWS, NO_ROWS)
        return ItemVectors(*(v[:count] for v in both)), ItemVectors(*(v[count:] for v in both))

    def _vectors(
        self, items: Int[ndarray, "items"], picture: Int[ndarray, "queries"], text: Int[ndarray, "queries"]
    ) -> tuple[QueryVectors, ItemVectors]:
        """Return the vectors of some queries (by row of picture or text) and of some items (by ``item_index``)."""
        if self._cached is not None:
            found = self._catalogue.item_vectors(items, self._cached)
            asked = self._catalogue.query_vectors(picture, text, self._cached)
            return (
                QueryVectors(*(v.to(self._device) for v in asked)),
                ItemVectors(*(v.to(self._device) for v in found)),
            )
        pictures, titles = self._catalogue.pictures, self._catalogue.titles
        has_image, has_text = self._catalogue.has_image[items], self._catalogue.has_text[items]
        shown, read, place = split_queries(picture, text)
        rows = np.concatenate([shown, pictures.of_item[items[has_image]]])
        distinct, image_rows = np.unique(rows, return_inverse=True)
        distinct_read, text_rows = np.unique(read, return_inverse=True)
        tokens = titles.gather(np.concatenate([distinct_read, items[has_text]]))
        pixels = augment(pictures.gather(distinct).to(self._device), strength=self._config.augment)
        encoder = self._encoder
        images = self._in_pieces(encoder.image_encoder, encoder.image_vectors, pixels)
        texts = self._in_pieces(
            encoder.text_encoder,
            encoder.text_vectors,
            tokens.ids.to(self._device),
            tokens.mask.to(self._device),
        )
        images = images[torch.from_numpy(image_rows).to(self._device)]  # (queries + items with a picture, Dv)
        texts_read = texts[torch.from_numpy(text_rows).to(self._device)]
        return QueryVectors(images[: len(shown)], texts_read, place.to(self._device)), ItemVectors(
            *_spread(images[len(shown) :], has_image, self._device),
            *_spread(texts[len(distinct_read) :], has_text, self._device),
        )

    def _in_pieces(
        self, tower: ImageEncoder | TextEncoder, encode: Callable[..., Tensor], *inputs: Tensor
    ) -> Tensor:
        """Return ``encode(*inputs)``; in pieces whose activations are forgotten and made again in the backward pass.

        Loss and gradient are those of the whole batch (gradient caching, arXiv:2101.06983). No rows give no vectors,
        without the tower: many networks cannot read them. One with a shared batch norm runs all the same: other
        processes wait for it.
        """
        if not len(inputs[0]) and not any(isinstance(m, SharedBatchNorm2d) for m in tower.modules()):
            return inputs[0].new_zeros(0, tower.dim, dtype=torch.float32)
        size = self._config.tower_batch_size
        if not size or not torch.is_grad_enabled():
            return encode(*inputs)
        pieces = zip(*(values.split(size) for values in inputs), strict=True)
        return torch.cat([checkpoint(encode, *piece, use_reentrant=False) for piece in pieces])


def _spread(found: Tensor, there: ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    """Put the rows of ``found`` where ``there`` is True, zero elsewhere; return that and ``there``."""
    mask = torch.from_numpy(there).to(device)
    spread = found.new_zeros(len(there), found.shape[1])
    return spread.index_put((mask.nonzero().squeeze(1),), found), mask
