"""Models of FuxiCTR's ``model_zoo/LongCTR`` on a small catalogue, and what they read."""

from pathlib import Path

import torch
from torch import Tensor, nn

NUM_ITEMS, NUM_CATEGORIES, FIELD_DIM = 12, 4, 3
ITEM_DIM = 2 * FIELD_DIM


def make_longctr(name: str, folder: Path, **settings: object) -> nn.Module:
    """Return a model of LongCTR with an item and its category as features."""
    import model_zoo.LongCTR
    from fuxictr.features import FeatureMap

    features = FeatureMap("small", str(folder))
    features.labels = ["click"]
    features.default_emb_dim = FIELD_DIM
    for feature, size in (("item_id", NUM_ITEMS), ("category", NUM_CATEGORIES)):
        features.features[feature] = {
            "type": "categorical",
            "source": "item",
            "padding_idx": 0,
            "vocab_size": size,
        }
    return getattr(model_zoo.LongCTR, name)(
        features,
        embedding_dim=FIELD_DIM,
        optimizer="adam",
        loss="binary_crossentropy",
        metrics=["AUC"],
        verbose=0,
        model_root=str(folder),
        **settings,
    )


def longctr_inputs(target: Tensor, behaviors: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """Return what its collator makes (``longctr_dataloader.py::BatchCollator``): the target behind its behaviors, and a
    mask of the behaviors alone. Item ``i`` has category ``1 + i % 3``; 0 is padding.
    """
    items = torch.cat([behaviors, target.unsqueeze(1)], dim=1)  # (B, L + 1)
    categories = (1 + items % (NUM_CATEGORIES - 1)) * (items > 0)
    return {}, {"item_id": items.flatten(), "category": categories.flatten()}, (behaviors > 0).float()
