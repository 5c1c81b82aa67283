"""What the dense half gets for one user's candidates: as a request has it, by name, and drawn at random."""

import torch
from torch import Tensor

from mimctr.batch import FIRST_INDEX, Content
from mimctr.ubm.ciubm import CiUBM
from mimctr.ubm.embeddings import Rows

OF_CANDIDATES = ("target", "same_category", "target_content", "target_known")
"""Inputs with a row for each candidate; of all others there is one."""
OF_BEHAVIORS = (
    "behaviors",
    "mask",
    "time_gaps",
    "same_category",
    "kinds",
    "behaviors_content",
    "behaviors_known",
)
"""Inputs with the history's length as their second axis."""


def plain_inputs(rows: Rows, content: Content | None) -> dict[str, Tensor]:
    """Return the arguments of :class:`~mimctr.ubm.ciubm.ExportableDense` by name; content's are left out without it."""
    inputs = {name: tensor for name, tensor in rows._asdict().items() if name != "negatives"}
    if content is None:
        return inputs
    return inputs | {
        "target_content": content.target,
        "target_known": content.target_known,
        "behaviors_content": content.behavior_vectors(),
        "behaviors_known": content.behaviors_known,
        "query_content": content.query,
        "query_known": content.query_known,
    }


def draw_inputs(
    model: CiUBM,
    *,
    candidates: int,
    behaviors: int,
    length: int | None = None,
    missing: float = 0.2,
    seed: int = 0,
) -> tuple[Rows, Content | None]:
    """Return what a request might bring to a model's dense half.

    Args:
        model: Whose.
        candidates: Of the request.
        behaviors: Of its user.
        length: Of the history, padded on the left; None: as a request pads it, at least 1.
        missing: Share of vectors that are not there.
        seed: Of what is drawn.
    """
    embedding, content = model.embedding, model.dense.content
    draws = torch.Generator().manual_seed(seed)
    length = max(behaviors, 1) if length is None else length

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draws)

    def chosen(share: float, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=draws) < share

    mask = (torch.arange(length) >= length - behaviors).unsqueeze(0)
    seconds = torch.exp2(25 * torch.rand(1, length, generator=draws)).long()
    kinds = torch.randint(
        FIRST_INDEX, max(model.embedding.num_kinds, FIRST_INDEX + 1), (1, length), generator=draws
    )
    rows = Rows(
        user=normal(1, embedding.user_dim),
        query=normal(1, embedding.query_dim),
        context=normal(1, embedding.context_dim),
        target=normal(candidates, embedding.item_dim),
        behaviors=normal(1, length, embedding.item_dim),
        mask=mask,
        time_gaps=seconds.masked_fill(~mask, 0),
        same_category=chosen(0.3, candidates, length) & mask,
        kinds=kinds.masked_fill(~mask, 0),
    )
    if content is None:
        return rows, None
    dim = content.content_dim
    known, target_known = chosen(1 - missing, 1, length) & mask, chosen(1 - missing, candidates)
    return rows, Content(
        target=normal(candidates, dim) * target_known.unsqueeze(-1),
        target_known=target_known,
        behaviors=normal(1, length, dim) * known.unsqueeze(-1),
        behaviors_known=known,
        query=normal(1, dim),
        query_known=torch.ones(1, dtype=torch.bool),
    )
