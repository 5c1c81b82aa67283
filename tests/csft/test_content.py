import numpy as np
import polars as pl
import pytest
import torch

from csft.shop import NUM_ITEMS
from mimctr.data.dataset import CtrDataset
from mimctr.encoders.image import ImageEncoder
from mimctr.encoders.text import TextEncoder
from mimctr.recipes.catalogue import Catalogue, load_towers
from mimctr.recipes.content import Pictures, Titles, epoch_batch
from mimctr.recipes.item_config import ItemConfig
from mimctr.recipes.visual_search import Pairs, pair_slices, visual_search


def test_pictures_find_their_item_and_query(shop, encoders, tmp_path):
    data = CtrDataset.open(shop)
    encoder = ImageEncoder.load(encoders / "image")
    items, queries = np.arange(2, 2 + NUM_ITEMS), np.array([1, 3, 4])
    pictures = Pictures.decode(data, encoder, tmp_path / "pixels.npy", items=items, queries=queries)
    for item in items:
        raw = data.item_images.get(int(item) - 2)
        row = pictures.of_item[item]
        assert (raw is None) == (row == -1)
        if raw is not None:
            assert torch.equal(pictures.gather(np.array([row]))[0], encoder.pixels([raw])[0])
    for query in range(1, len(data.queries) + 1):
        row = pictures.of_query[query]
        assert (row >= 0) == (query in queries)
        if row >= 0:
            raw = data.queries.images.get(query - 1)
            assert torch.equal(pictures.gather(np.array([row]))[0], encoder.pixels([raw])[0])
    assert pictures.of_item[:2].tolist() == [-1, -1]
    assert pictures.of_query[0] == -1


def test_titles_find_their_item(shop, encoders):
    data = CtrDataset.open(shop)
    encoder = TextEncoder.load(encoders / "text")
    titles = Titles.tokenize(data, encoder)
    for row, title in enumerate(data.items["title"].to_list()):
        assert titles.known[row + 2] == (title is not None)
        if title is not None:
            ids, mask = titles.gather(np.array([row + 2]))
            expected = encoder.tokenize([title])
            assert torch.equal(ids, expected.ids)
            assert torch.equal(mask, expected.mask)


def test_vectors_of_the_catalogue_are_those_of_raw_items(shop, encoders, tmp_path):
    data = CtrDataset.open(shop)
    encoder = load_towers(
        encoders, data, ItemConfig(dim=4, hidden=3, dropout=0.0, bf16=False, center_by_category=True)
    )
    catalogue = Catalogue(data, encoder, np.array([1]), tmp_path / "pixels.npy")
    towers = catalogue.run_towers(encoder, device=torch.device("cpu"))
    items = np.arange(2, 2 + NUM_ITEMS)
    catalogue.recenter(encoder, towers)
    with torch.no_grad():
        fused = encoder(catalogue.item_vectors(items, towers)).fused
    images = [data.item_images.get(row) for row in range(NUM_ITEMS)]
    vectors, known = encoder.embed_items(
        images, data.items["title"].to_list(), data.items["category"].to_list()
    )
    assert known.tolist() == catalogue.has_content[2:].tolist()
    found = encoder.content(fused, catalogue.category_index(encoder)[items])[known]
    torch.testing.assert_close(found, vectors[known], rtol=1e-4, atol=1e-5)
    assert len(encoder.categories) > 1
    assert encoder.category_centers.abs().max() > 0
    assert not (tmp_path / "pixels.npy").exists()  # its space is freed with the last who reads it


def test_items_that_arrive_later_or_have_no_content_do_not_compete(shop):
    data = CtrDataset.open(shop)
    times = data.items["first_seen_time"].to_numpy()
    items = torch.ones(NUM_ITEMS + 2, 3)
    has_content = np.ones(NUM_ITEMS + 2, dtype=bool)
    has_content[4:9] = False
    first = np.array([3])
    pairs = Pairs(np.array([0]), np.array([-1]), np.array([10]), first, np.array([1]), np.array([times[1]]))
    found = visual_search(torch.ones(1, 3), items, data, pairs, has_content)
    category = data.items["category"][1]
    trained = 3 in data.pairs.filter(pl.col("part") == "train")["item"]
    assert list(found) == ["all", "item:seen" if trained else "item:unseen", f"category:{category}"]
    metrics = found["all"]
    assert all(slice_metrics == metrics for slice_metrics in found.values())
    assert metrics["num_pairs"] == 1
    # of 24 items 2 arrive later, 5 have no content, 1 is shown and 1 is the positive: 15 tie with it
    assert metrics["mrr"] == pytest.approx(1 / (1 + 15 / 2))
    assert metrics["chance_recall@10"] == pytest.approx(10 / 17)


@pytest.mark.parametrize(("count", "size"), [(10, 3), (10, 10), (4, 9)])
def test_batches_of_an_epoch_are_disjoint_and_resumable(count, size):
    steps = count // min(size, count)
    first = [epoch_batch(count, batch_size=size, seed=1, step=step) for step in range(steps)]
    assert len(np.unique(np.concatenate(first))) == steps * min(size, count)
    second = epoch_batch(count, batch_size=size, seed=1, step=steps)
    assert len(second) == len(first[0])
    assert np.array_equal(first[0], epoch_batch(count, batch_size=size, seed=1, step=0))
    assert not np.array_equal(first[0], second)


def test_slices_of_held_out_pairs_part_them_by_what_training_has_seen_and_by_category(shop):
    data = CtrDataset.open(shop)
    table = data.pairs.filter(pl.col("part") == "test")
    columns = [table[name].to_numpy() for name in ("query", "query_item", "item", "user", "time")]
    pairs = Pairs(columns[0], np.full(table.height, -1), *columns[1:])
    slices = pair_slices(data, pairs)
    trained = set(data.pairs.filter(pl.col("part") == "train")["item"].to_list())
    categories = data.items["category"].to_list()
    for row, item in enumerate(pairs.item.tolist()):
        inside = {name for name, mask in slices.items() if mask[row]}
        seen = "item:seen" if item in trained else "item:unseen"
        assert inside == {"all", seen, f"category:{categories[item - 2]}"}
