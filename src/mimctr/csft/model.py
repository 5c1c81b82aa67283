"""What C-SFT trains: the item encoder, and the objective's own weights."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mimctr.csft.loss import Candidates
from mimctr.csft.objectives import Objective
from mimctr.distributed import mean_rows
from mimctr.encoders.item import ItemEncoder
from mimctr.encoders.vectors import ItemVectors, ItemViews, QueryVectors


class InterestModel(nn.Module):
    """An item encoder that learns from interest pairs.

    Args:
        encoder: Trained in place.
        objective: What is minimized; it may have weights of its own.
        drop_modality: Probability that an item with picture and title loses one of them, so that the stand-in for a
            missing one is learned.
    """

    def __init__(self, encoder: ItemEncoder, objective: Objective, *, drop_modality: float = 0.05) -> None:
        super().__init__()
        self.encoder = encoder
        self.objective = objective
        self.drop_modality = drop_modality

    def forward(
        self,
        query: QueryVectors | ItemVectors,
        items: ItemVectors,
        item_keys: Int[Tensor, "candidates"],
    ) -> tuple[Float[Tensor, "batch content"], Candidates]:
        """Return ``h_q`` and this process's candidates, in training each view centered on the batch of all processes.

        Without that the negative memory has a shortcut: to move all items of this batch (and the queries) the same way
        tells them from remembered ones, which lowers the loss, step after step, and says nothing about interest.

        Args:
            query: What the towers say of the queries, which ask with ``h_q^img`` or ``h_q^txt``; or vectors of items,
                which ask with their ``h^MM``.
            items: Positives in the order of the queries, then hard negatives.
            item_keys: Of the items.
        """
        asking = len(query.has_image) if isinstance(query, ItemVectors) else 0
        if isinstance(query, ItemVectors):
            items = ItemVectors(*(torch.cat(both) for both in zip(query, items, strict=True)))
        views = self.encoder(self.drop(items) if self.training else items)
        views, own = ItemViews(*(view[asking:] for view in views)), views.fused[:asking]
        candidates = Candidates(
            item_keys=item_keys,
            fused=views.fused,
            image=self.center(views.image, views.has_image),
            text=self.center(views.text, views.has_text),
            has_image=views.has_image,
            has_text=views.has_text,
        )
        return own if isinstance(query, ItemVectors) else self.encoder.query_views(query), candidates

    def center(
        self, view: Float[Tensor, "candidates content"], there: Bool[Tensor, "candidates"]
    ) -> Float[Tensor, "candidates content"]:
        """Subtract the mean of the rows that are there, in training; the encoder does so for ``h^MM`` itself."""
        return view - mean_rows(view[there]) if self.training else view

    def drop(self, items: ItemVectors) -> ItemVectors:
        """Take picture or title, one as likely as the other, from some items that have both."""
        draw = torch.rand(len(items.has_image), device=items.has_image.device)
        both = items.has_image & items.has_text
        no_image = both & (draw < self.drop_modality / 2)
        no_text = both & (draw > 1 - self.drop_modality / 2)
        return items._replace(has_image=items.has_image & ~no_image, has_text=items.has_text & ~no_text)
