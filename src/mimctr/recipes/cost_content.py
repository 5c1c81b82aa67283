"""Content of a batch without the representation center: the item encoder runs on pictures and titles themselves."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from mimctr.batch import FIRST_INDEX, Content, CtrBatch
from mimctr.data.dataset import CtrDataset
from mimctr.encoders.item import ItemEncoder
from mimctr.encoders.vectors import ItemVectors
from mimctr.recipes.content import NO_ROWS, Pictures, Titles, chunks


class EncodedContent:
    """Attaches what the item encoder says of the items that a batch shows, as a content table does from a snapshot.

    Pictures have been decoded and titles tokenized before; padding is not encoded. The encoder stays in evaluation
    mode, in which its vectors are the snapshot's. Queries have no vector: MIM reads none.

    Args:
        data: The dataset.
        encoder: On the device where it runs.
        items: ``item_index`` of every item that will be asked for.
        path: Where the file for the decoded pixels is made.
        items_at_once: Pictures or titles of a forward pass.
        trained: Let gradients reach the encoder.
        distinct: Encode each different item of a batch once, not once for each appearance.
    """

    def __init__(
        self,
        data: CtrDataset,
        encoder: ItemEncoder,
        items: Int[ndarray, "chosen"],
        path: Path,
        *,
        items_at_once: int,
        trained: bool,
        distinct: bool,
    ) -> None:
        self.encoder = encoder.eval().requires_grad_(trained)
        self.pictures = Pictures.decode(data, encoder.image_encoder, path, items=items, queries=NO_ROWS)
        self.titles = Titles.tokenize(data, encoder.text_encoder)
        self.category = encoder.category_index([None] * FIRST_INDEX + data.items["category"].to_list())
        self.items_at_once = items_at_once
        self.trained = trained
        self.distinct = distinct

    def attach(self, batch: CtrBatch) -> CtrBatch:
        """Return ``batch``, which is on the CPU, with its ``content`` on the encoder's device."""
        shown = torch.cat([batch.target, batch.behaviors[batch.mask]])
        with torch.set_grad_enabled(self.trained and torch.is_grad_enabled()):
            vectors, known = self.encode(shown)
        size, mask = len(batch), batch.mask.to(vectors.device)
        behaviors = vectors.new_zeros(*mask.shape, vectors.shape[1]).index_put((mask,), vectors[size:])
        behaviors_known = torch.zeros_like(mask).index_put((mask,), known[size:])
        return batch.with_content(
            Content(
                target=vectors[:size],
                target_known=known[:size],
                behaviors=behaviors,
                behaviors_known=behaviors_known,
                query=vectors.new_zeros(size, vectors.shape[1]),
                query_known=torch.zeros_like(known[:size]),
            )
        )

    def encode(
        self, items: Int[Tensor, "appearances"]
    ) -> tuple[Float[Tensor, "appearances content"], Bool[Tensor, "appearances"]]:
        """Return the content embedding of each item, zero where it has no content, and where it has some.

        Args:
            items: ``item_index``, repeats allowed.
        """
        if self.distinct:
            different, place = items.unique(return_inverse=True)
            vectors, known = self._encode(different.numpy())
            place = place.to(vectors.device)
            return vectors[place], known[place]
        return self._encode(items.numpy())

    def _encode(self, items: Int[ndarray, "items"]) -> tuple[Tensor, Tensor]:
        encoder, device = self.encoder, self.encoder.image_head.weight.device
        image, has_image = self._image_vectors(items)
        text, has_text = self._text_vectors(items)
        views = encoder(ItemVectors(image, has_image, text, has_text))
        content = encoder.content(views.fused, self.category[torch.from_numpy(items)].to(device))
        known = has_image | has_text
        return content.masked_fill(~known.unsqueeze(-1), 0.0), known

    def _image_vectors(self, items: Int[ndarray, "items"]) -> tuple[Tensor, Tensor]:
        device = self.encoder.image_head.weight.device
        rows = self.pictures.of_item[items]
        places = np.flatnonzero(rows >= 0)
        found = [
            self.encoder.image_vectors(self.pictures.gather(rows[some]).to(device))
            for some in chunks(places, self.items_at_once)
        ]
        return self._in_place(found, places, len(items), self.encoder.image_encoder.dim)

    def _text_vectors(self, items: Int[ndarray, "items"]) -> tuple[Tensor, Tensor]:
        """Alike lengths are encoded together: little of a batch is padding."""
        device = self.encoder.image_head.weight.device
        lengths = self.titles.mask[items].sum(1)
        order = np.argsort(lengths, kind="stable")
        places = order[lengths[order] > 0]
        found = []
        for some in chunks(places, self.items_at_once):
            ids, mask = self.titles.gather(items[some])
            found.append(self.encoder.text_vectors(ids.to(device), mask.to(device)))
        return self._in_place(found, places, len(items), self.encoder.text_encoder.dim)

    def _in_place(
        self, found: list[Tensor], places: Int[ndarray, "found"], count: int, dim: int
    ) -> tuple[Tensor, Tensor]:
        """Return what was found at its places, zero elsewhere, and where something was found."""
        device = self.encoder.image_head.weight.device
        vectors = torch.zeros(count, dim, device=device)
        there = torch.zeros(count, dtype=torch.bool, device=device)
        if not found:
            return vectors, there
        where = torch.from_numpy(places).to(device)
        return vectors.index_copy(0, where, torch.cat(found)), there.index_fill(0, where, True)
