"""Held-out visual search with a finished item encoder, pair by pair: what intervals are made of.

Any encoder, whatever it was trained on, is judged on the same pairs, so that encoders can be compared pair by pair.
"""

from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from mimctr.data.dataset import CtrDataset
from mimctr.data.split import Part
from mimctr.encoders.item import ItemEncoder
from mimctr.errors import DataError
from mimctr.files import write_json
from mimctr.recipes.catalogue import Catalogue
from mimctr.recipes.device import pick_device
from mimctr.recipes.visual_search import (
    SEARCH,
    Searches,
    log_search,
    mean_cosines,
    pair_ranks,
    pair_slices,
    pair_table,
    search_slices,
    usable_pairs,
)
from mimctr.weights import save_tensors

RANKS = "ranks.safetensors"
"""By part: rank, user and item of each pair; score, click and user of each impression."""
PARTS: tuple[Part, ...] = ("validation", "test")


class Config(BaseModel):
    """Settings of the search."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pair_kinds: list[str] = Field(
        ["purchase"], description="Kinds of pair that are searched for; empty for all."
    )
    max_pairs: int = Field(
        20_000, ge=1, description="Pairs of each part, at most; drawn alike for every encoder."
    )
    device: str = Field("auto", description="'auto' takes CUDA where there is a GPU, else the CPU.")


def main(dataset: Path, encoder: Path, out: Path, config: Config) -> Searches:
    """Write ranks and scores, pair by pair and impression by impression; return search metrics by part and slice.

    Args:
        dataset: Written by ``mimctr prepare``.
        encoder: Written by ``mimctr plain`` or ``mimctr csft``. Vectors that it kept are used where all queries are
            pictures of items.
        out: Stage folder; gets ``search.json`` and ``ranks.safetensors``.
        config: Settings.

    Raises:
        DataError: a part holds no pair.
    """
    device = pick_device(config.device)
    data = CtrDataset.open(dataset)
    model = ItemEncoder.load(encoder).to(device)
    tables = {part: pair_table(data, part, config.pair_kinds) for part in PARTS}
    queries = np.unique(np.concatenate([table["query"].to_numpy() for table in tables.values()]))
    catalogue = Catalogue(data, model, queries[queries > 0], out / "pixels.npy", kept_in=encoder)
    towers = catalogue.run_towers(model, device=device)
    fused = catalogue.fused(model, np.arange(len(catalogue.has_content)), towers)
    content = model.content(fused.to(device), catalogue.category_index(model).to(device)).cpu()
    found: Searches = {}
    tensors: dict[str, Tensor] = {}
    for part, table in tables.items():
        pairs = usable_pairs(table, catalogue.pictures, catalogue.titles, catalogue.has_content).sample(
            config.max_pairs, 0
        )
        if not len(pairs):
            raise DataError(f"{dataset}: no interest pair of kind {config.pair_kinds} in the {part} part.")
        asking = catalogue.queries(model, pairs, towers, fused, query="image")
        ranks = pair_ranks(asking, fused, data, pairs, catalogue.has_content)
        cosines = mean_cosines(data, content, catalogue.has_content, part)
        found[part] = search_slices(ranks, data, pairs, catalogue.has_content)
        tensors |= {
            f"{part}.rank": ranks,
            f"{part}.user": torch.from_numpy(pairs.user),
            **{
                f"{part}.in.{name}": torch.from_numpy(mask) for name, mask in pair_slices(data, pairs).items()
            },
            f"{part}.score": torch.from_numpy(cosines.score),
            f"{part}.click": torch.from_numpy(cosines.click),
            f"{part}.impression_user": torch.from_numpy(data.impressions.user[cosines.row].astype(np.int64)),
        }
    log_search(found)
    save_tensors(out / RANKS, tensors)
    write_json(out / SEARCH, found)
    return found
