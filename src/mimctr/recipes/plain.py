"""The item encoder before any fine-tuning on interest: given towers, heads by PCA (mimctr.encoders.plain)."""

import logging
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from mimctr.data.dataset import CtrDataset
from mimctr.files import write_json
from mimctr.recipes.catalogue import Catalogue, load_towers, start_plain
from mimctr.recipes.device import pick_device
from mimctr.recipes.visual_search import pair_table, usable_pairs

logger = logging.getLogger(__name__)

SEARCH = "search.json"
"""Visual-search metrics by part, beside an item encoder."""


class Config(BaseModel):
    """Settings of ``mimctr plain``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dim: int = Field(64, ge=1, description="Content dimension. The paper does not give it.")
    hidden: int = Field(128, ge=1, description="Width of the fusion MLP, which gives zero here.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Of the fusion MLP.")
    center_by_category: bool = Field(
        False,
        description="Center content vectors on their category; for logs whose targets compete within a category.",
    )
    whitening: float = Field(
        0.0, ge=0, le=1, description="Of the plain geometry: 0 is PCA, 1 makes all its variances equal."
    )
    max_items: int = Field(20_000, ge=2, description="Items that PCA is fitted on, at most.")
    pair_kinds: list[str] = Field(
        ["purchase"], description="Kinds of pair that search is judged on; empty for all."
    )
    max_pairs: int = Field(2000, ge=1, description="Pairs of each part that search is judged on, at most.")
    keep_vectors: bool = Field(
        False,
        description="Keep what the towers say of every item, so that 'mimctr embed' need not run them again.",
    )
    seed: int = Field(0, ge=0, description="Of the samples.")
    device: str = Field("auto", description="'auto' takes CUDA where there is a GPU, else the CPU.")
    bf16: bool = Field(True, description="Run the towers in bfloat16, now and whenever the encoder is used.")


def main(dataset: Path, encoders: Path, out: Path, config: Config) -> dict[str, dict[str, float]]:
    """Write a plain item encoder to ``out``; return its visual-search metrics by part (also in ``search.json``).

    Args:
        dataset: Written by ``mimctr prepare``.
        encoders: Folder with image/ and text/, written by ``mimctr foundation`` or ``mimctr pretrain``.
        out: Stage folder.
        config: Settings.
    """
    device = pick_device(config.device)
    data = CtrDataset.open(dataset)
    encoder = load_towers(
        encoders,
        dim=config.dim,
        hidden=config.hidden,
        dropout=config.dropout,
        center_on=data if config.center_by_category else None,
        bf16=config.bf16,
    ).to(device)
    tables = {part: pair_table(data, part, config.pair_kinds) for part in ("validation", "test")}
    queries = np.unique(np.concatenate([table["query"].to_numpy() for table in tables.values()]))
    catalogue = Catalogue(data, encoder, queries[queries > 0], out / "pixels.npy")
    pictures = catalogue.picture_vectors(encoder, device=device)
    titles = catalogue.title_vectors(encoder, device=device)
    start_plain(
        encoder,
        catalogue,
        pictures,
        titles,
        max_items=config.max_items,
        whitening=config.whitening,
        seed=config.seed,
    )
    if config.center_by_category:
        catalogue.recenter(encoder, pictures, titles)
    found = {}
    for part, table in tables.items():
        pairs = usable_pairs(table, catalogue.pictures, catalogue.has_content).sample(
            config.max_pairs, config.seed
        )
        if len(pairs):
            found[part] = catalogue.search(encoder, pairs, pictures, titles)
    logger.info("visual search: %s", found)
    if config.keep_vectors:
        catalogue.keep(out, encoder, pictures, titles)
    catalogue.close()
    encoder.cpu().save(out)
    write_json(out / SEARCH, found)
    return found
