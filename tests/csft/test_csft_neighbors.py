"""The picture beside the encoder shows what held-out search found, for pairs chosen at random."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from csft.shop import NUM_ITEMS, START, open_shop
from mimctr.recipes import csft
from mimctr.recipes.catalogue import start_plain
from mimctr.recipes.csft_neighbors import PICTURE, NeighborSheet
from mimctr.recipes.neighbors import draw_pairs

SETTINGS = {"dim": 4, "hidden": 3, "batch_size": 8, "num_steps": 2, "evaluate_every": 1, "device": "cpu"}


@pytest.mark.parametrize("query", ["image", "item"])
def test_ranks_are_counted_among_items_with_a_picture_that_were_known(
    shop_of_behaviors, encoders, tmp_path, query
):
    """By a loop over the items. Mutant: let items compete that arrive after the purchase, or the query's own."""
    data, encoder, catalogue, _ = open_shop(shop_of_behaviors, encoders, tmp_path)
    towers = catalogue.run_towers(encoder, device=torch.device("cpu"))
    config = csft.Config(**SETTINGS, query=query, num_pictures=6)
    start_plain(encoder, catalogue, towers, config)
    sheet = NeighborSheet(catalogue, config)
    sheet.look("now", encoder, towers)
    drawn = draw_pairs(data, sheet._table, sheet._views, num_neighbors=3)
    assert len(drawn) == 6

    index = np.arange(2, 2 + NUM_ITEMS)
    fused = dict(zip(index.tolist(), catalogue.fused(encoder, index, towers), strict=True))
    arrival = dict(zip(index.tolist(), data.items["first_seen_time"].to_list(), strict=True))
    for pair, result in zip(sheet._table.to_dicts(), drawn, strict=True):
        assert pair["part"] == "test"
        picture = towers.pictures[catalogue.pictures.of_item[pair["query_item"]]]
        asked = fused[pair["query_item"]] if query == "item" else encoder.query_view(picture[None])[0]
        cosines = {
            item: F.cosine_similarity(asked, vector, dim=0).item()
            for item, vector in fused.items()
            if catalogue.has_image[item] and item != pair["query_item"] and arrival[item] <= pair["time"]
        }
        if pair["item"] in cosines:
            rank = sum(value >= cosines[pair["item"]] for value in cosines.values())
            assert result.caption == f"Rank of the purchase: now {rank} of {len(cosines)}."
        else:
            assert result.caption == "The purchase has no image, so it is not among the candidates."
    assert (
        min(pair["time"] for pair in sheet._table.to_dicts()) < START + 9500
    )  # someone asked before the last came


def test_the_picture_depends_on_the_seed_and_can_be_left_out(shop, encoders, tmp_path):
    def made(name, **settings):
        csft.main(shop, encoders, tmp_path / name, csft.Config(**SETTINGS, **settings, bf16=False))
        return tmp_path / name / PICTURE

    first, again = made("first", num_pictures=3), made("again", num_pictures=3)
    assert first.read_bytes() == again.read_bytes()
    assert not made("none", num_pictures=0).exists()
    one = made("one", num_pictures=1)
    with Image.open(first) as three, Image.open(one) as single:
        assert three.format == "JPEG"
        assert three.height > 3 * single.height
    assert made("other", num_pictures=1, seed=1).read_bytes() != one.read_bytes()
