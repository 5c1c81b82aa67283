"""The item encoder before any fine-tuning on interest: given towers, heads by PCA (mimctr.encoders.plain)."""

from pathlib import Path

import numpy as np

from mimctr.data.dataset import CtrDataset
from mimctr.files import write_json
from mimctr.recipes.catalogue import Catalogue, load_towers, start_plain
from mimctr.recipes.device import pick_device
from mimctr.recipes.item_config import ItemConfig
from mimctr.recipes.visual_search import SEARCH, Searches, log_search, pair_table, usable_pairs


class Config(ItemConfig):
    """Settings of ``mimctr plain``."""


def main(dataset: Path, encoders: Path, out: Path, config: Config) -> Searches:
    """Write a plain item encoder to ``out``; return its visual-search metrics by part and slice.

    They are in ``search.json`` too.

    Args:
        dataset: Written by ``mimctr prepare``.
        encoders: Folder with image/ and text/, written by ``mimctr foundation`` or ``mimctr pretrain``.
        out: Stage folder.
        config: Settings.
    """
    device = pick_device(config.device)
    data = CtrDataset.open(dataset)
    encoder = load_towers(encoders, data, config).to(device)
    tables = {part: pair_table(data, part, config.pair_kinds) for part in ("validation", "test")}
    queries = np.unique(np.concatenate([table["query"].to_numpy() for table in tables.values()]))
    catalogue = Catalogue(data, encoder, queries[queries > 0], out / "pixels.npy")
    towers = catalogue.run_towers(encoder, device=device)
    start_plain(encoder, catalogue, towers, config)
    if config.center_by_category:
        catalogue.recenter(encoder, towers)
    found: Searches = {}
    for part, table in tables.items():
        pairs = usable_pairs(table, catalogue.pictures, catalogue.titles, catalogue.has_content).sample(
            config.max_held_out_pairs, config.seed
        )
        if len(pairs):
            found[part] = catalogue.search(encoder, pairs, towers)
    log_search(found)
    if config.keep_vectors:
        catalogue.keep(out, encoder, towers)
    encoder.cpu().save(out)
    write_json(out / SEARCH, found)
    return found
