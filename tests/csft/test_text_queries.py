"""Queries that are only a text (an extension): they ask through the titles' head, in training, search and embed."""

import functools
import logging
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from encoders.small import TITLES, shake
from processes import run_in

from csft.shop import NUM_ITEMS, open_shop, write_shop
from csft.test_csft_recipe import SETTINGS, kill_at, metrics_of
from mimctr.center.snapshot import Snapshot
from mimctr.data.dataset import CtrDataset
from mimctr.encoders.item import ItemEncoder
from mimctr.recipes import csft, embed, plain, search
from mimctr.recipes.csft_examples import Examples
from mimctr.recipes.csft_neighbors import PICTURE
from mimctr.recipes.csft_towers import Towers
from mimctr.train.run import Run
from mimctr.weights import load_tensors

ROW = pl.int_range(pl.len())
CPU = torch.device("cpu")


def some_texts(searched: pl.DataFrame) -> pl.DataFrame:
    """Let a third of the searches ask with a picture, a third with a text, a third with both."""
    texts = pl.Series([f"{TITLES[row % 5]} {TITLES[row % 6]}" for row in range(searched.height)])
    return searched.with_columns(
        query_image=pl.when(ROW % 3 != 1).then("query_image"), query_text=pl.when(ROW % 3 != 0).then(texts)
    )


def only_texts(searched: pl.DataFrame) -> pl.DataFrame:
    """Let every search ask for its item with a text of the item's own, which is in no title."""
    words = " ".join(TITLES).split()
    texts = [
        f"{words[item % len(words)]} {words[item % 7]} {words[item % 5]}"
        for item in searched["item_id"].to_list()
    ]
    return searched.drop("query_image").with_columns(query_text=pl.Series(texts), kind=pl.lit("purchase"))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> Path:
    """The shop, asked with pictures, texts and both."""
    return write_shop(tmp_path_factory.mktemp("mixed"), edit=some_texts)


@pytest.fixture(scope="module")
def read(tmp_path_factory) -> Path:
    """The shop, asked with texts alone."""
    return write_shop(tmp_path_factory.mktemp("read"), edit=only_texts)


def asked(data: CtrDataset, query: int) -> tuple[bytes | None, str | None]:
    """Return picture and text of a query."""
    return data.queries.images.get(query - 1), data.queries.texts[query - 1]


def test_a_query_asks_with_its_picture_or_else_with_its_text(mixed, encoders, tmp_path, caplog):
    """From the raw queries. Mutants: let the text of a query with both ask; count places from the first title."""
    with caplog.at_level(logging.INFO):
        data, encoder, catalogue, pairs = open_shop(mixed, encoders, tmp_path, text_queries=True)
    assert "their query is a text" not in caplog.text
    table = data.pairs.filter((pl.col("part") == "train") & (pl.col("kind") == "purchase"))
    table = table.filter(pl.Series(catalogue.has_content[table["item"].to_numpy()]))
    assert pairs.item.tolist() == table["item"].to_list()
    for row, query in enumerate(table["query"]):
        image, text = asked(data, query)
        assert (pairs.picture[row] >= 0) == (image is not None) == (pairs.text[row] < 0)
        if image is not None:
            pixels = catalogue.pictures.gather(pairs.picture[row : row + 1])
            assert torch.equal(pixels[0], encoder.image_encoder.pixels([image])[0])
        else:
            ids, mask = catalogue.titles.gather(pairs.text[row : row + 1])
            expected = encoder.text_encoder.tokenize([text])
            assert ids[mask].tolist() == expected.ids[expected.mask].tolist()
    assert (pairs.text >= 0).sum() > 5 < (pairs.picture >= 0).sum()


def test_without_the_setting_texts_are_left_out_and_counted(mixed, encoders, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        data, _, _, pairs = open_shop(mixed, encoders, tmp_path)
    table = data.pairs.filter((pl.col("part") == "train") & (pl.col("kind") == "purchase"))
    texts = [query for query in table["query"] if asked(data, query)[0] is None]
    assert f"{len(texts)} of {table.height} interest pairs are left out: their query is a text" in caplog.text
    assert (pairs.picture >= 0).all()
    assert (pairs.text < 0).all()


@pytest.mark.parametrize("settings", [{}, {"trainable": "heads"}, {"tower_batch_size": 3}], ids=str)
def test_a_batch_holds_the_vectors_of_its_queries(mixed, encoders, tmp_path, settings):
    """Each query alone, from its raw content. Mutants: no order of the batch; texts not told apart from titles."""
    data, encoder, catalogue, pairs = open_shop(mixed, encoders, tmp_path, text_queries=True)
    shake(encoder)
    table = data.pairs.filter((pl.col("part") == "train") & (pl.col("kind") == "purchase"))
    raw = {}
    for row in table.iter_rows(named=True):
        image, text = asked(data, row["query"])
        raw[row["user"], row["item"], row["time"]] = image if image is not None else text
    config = csft.Config(batch_size=12, augment=0.0, text_queries=True, **settings)
    towers, examples = (
        Towers(catalogue, encoder, CPU, config),
        Examples(data, pairs, catalogue.has_content, config),
    )
    keys = {(p, t): (u, i, s) for p, t, _, i, u, s in zip(*(c.tolist() for c in pairs), strict=True)}
    seen = set()
    for step in range(4):
        batch = examples.batch(step)
        queries, items = towers.vectors(batch)
        found = encoder.query_views(queries)
        for row, place in enumerate(zip(batch.pictures.tolist(), batch.texts.tolist(), strict=True)):
            content = raw[keys[place]]
            seen.add(type(content))
            if isinstance(content, bytes):
                expected = encoder.query_view(encoder.image_vectors(encoder.image_encoder.pixels([content])))
            else:
                vector = encoder.text_vectors(*encoder.text_encoder.tokenize([content]))
                expected = encoder.text_view(vector)
            torch.testing.assert_close(found[row : row + 1], expected, rtol=1e-4, atol=1e-5)
        for row, item in enumerate(batch.items.tolist()):
            title = data.items["title"][item - 2]
            assert bool(items.has_text[row]) == (title is not None)
            if title is not None:
                vector = encoder.text_vectors(*encoder.text_encoder.tokenize([title]))
                torch.testing.assert_close(items.text[row : row + 1], vector, rtol=1e-4, atol=1e-5)
    assert seen == {bytes, str}


@pytest.mark.parametrize("settings", [{}, {"trainable": "heads"}], ids=str)
def test_off_is_as_if_nobody_had_asked_with_a_text(mixed, encoders, tmp_path, settings):
    """Bit for bit, and on where nobody does, too. Mutant: run the texts of pairs that are not used.

    Without masking: what was bought after a text is known to be bought, whether or not the pair is trained on.
    """
    without = write_shop(tmp_path / "shop", edit=lambda table: some_texts(table).filter(ROW % 3 != 1))
    config = {**SETTINGS, "num_pictures": 2, "mask_bought": False, **settings}
    runs = {"off": (mixed, False), "nobody": (without, False), "on": (without, True)}
    for name, (shop, text_queries) in runs.items():
        csft.main(
            shop, encoders, tmp_path / name, csft.Config(**config, text_queries=text_queries, bf16=False)
        )
    for name in ("nobody", "on"):
        mine, _ = load_tensors(tmp_path / name / "best.safetensors")
        theirs, _ = load_tensors(tmp_path / "off" / "best.safetensors")
        assert sorted(mine) == sorted(theirs)
        assert all(torch.equal(tensor, theirs[key]) for key, tensor in mine.items())
        for file in ("metrics.jsonl", PICTURE):
            assert (tmp_path / name / file).read_bytes() == (tmp_path / "off" / file).read_bytes()


def test_held_out_search_tells_pictures_and_texts_apart(mixed, encoders, tmp_path):
    """Parts and whole are one mean. Mutant: swap the slices' names."""
    shared = {"text_queries": True, "bf16": False, "device": "cpu", "pair_kinds": []}
    settings = {**SETTINGS, **shared}
    found = csft.main(mixed, encoders, tmp_path / "csft", csft.Config(**settings, num_pictures=3))
    assert (tmp_path / "csft" / PICTURE).exists()
    data = CtrDataset.open(mixed)
    judged = plain.main(
        mixed,
        encoders,
        tmp_path / "plain",
        plain.Config(dim=4, hidden=3, **shared),
    )
    assert judged["test"] == {name: pytest.approx(metrics) for name, metrics in found["test_before"].items()}
    again = search.main(
        mixed, tmp_path / "csft", tmp_path / "search", search.Config(device="cpu", pair_kinds=[])
    )
    assert again["test"] == {name: pytest.approx(metrics) for name, metrics in found["test"].items()}
    table = data.pairs.filter(pl.col("part") == "test")
    content = (data.items["has_image"] | data.items["title"].is_not_null()).to_list()
    queries = [q for q, item in zip(table["query"], table["item"], strict=True) if content[item - 2]]
    texts = sum(asked(data, query)[0] is None for query in queries)
    parts = [found["test"][name] for name in ("query:image", "query:text")]
    assert [part["num_pairs"] for part in parts] == [len(queries) - texts, texts]
    mean = sum(part["mrr"] * part["num_pairs"] for part in parts) / len(queries)
    assert found["test"]["all"]["mrr"] == pytest.approx(mean)


def test_texts_learn_what_they_ask_for(read, encoders, tmp_path):
    """Every item has a text of its own, which says it in other words. Chance has the mean of 1 / rank."""
    settings = {
        **SETTINGS,
        "dim": 16,
        "hidden": 16,
        "batch_size": 16,
        "num_steps": 150,
        "evaluate_every": 50,
        "num_memory_batches": 0,
        "metric": "mrr",
        "bf16": False,
        "text_queries": True,
    }
    found = csft.main(read, encoders, tmp_path / "csft", csft.Config(**settings))
    assert not (tmp_path / "csft" / PICTURE).exists()  # a text is not drawn
    before, after = (found[part]["all"]["mrr"] for part in ("test_before", "test"))
    chance = sum(1 / rank for rank in range(1, NUM_ITEMS - 1)) / (NUM_ITEMS - 2)
    assert chance < 0.2
    assert after > max(0.5, 2 * before)


def test_a_killed_run_with_texts_ends_bit_for_bit_like_an_undisturbed_one(
    mixed, encoders, tmp_path, monkeypatch
):
    monkeypatch.setattr(csft, "Run", functools.partial(Run, checkpoint_seconds=0.0))
    config = csft.Config(**SETTINGS, text_queries=True, bf16=False)
    csft.main(mixed, encoders, tmp_path / "undisturbed", config)
    kill_at(4, lambda: csft.main(mixed, encoders, tmp_path / "killed", config))
    csft.main(mixed, encoders, tmp_path / "killed", config)
    for name in ("metrics.jsonl", "search.json", "encoder.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()


def run_csft(shop: Path, encoders: Path, out: Path) -> None:
    csft.LOG_EVERY = 1
    calm = {"augment": 0.0, "drop_modality": 0.0, "dropout": 0.0, "num_steps": 5, "bf16": False}
    csft.main(shop, encoders, out, csft.Config(**{**SETTINGS, **calm, "text_queries": True}))


def test_two_processes_with_texts_have_the_loss_and_the_search_of_one(
    mixed, calm_encoders, tmp_path, monkeypatch
):
    """Mutant: share the pictures of a batch but not its texts."""
    monkeypatch.setattr(csft, "LOG_EVERY", 1)
    run_csft(mixed, calm_encoders, tmp_path / "one")
    run_in(2, run_csft, mixed, calm_encoders, tmp_path / "two")
    one, two = (metrics_of(tmp_path / name) for name in ("one", "two"))
    assert len(one) == len(two)
    for line, other in zip(two, one, strict=True):
        assert line == pytest.approx(other, rel=2e-4, abs=1e-6)


@pytest.mark.parametrize("keep_vectors", [False, True])
def test_embed_gives_every_query_that_is_only_a_text_its_vector(mixed, encoders, tmp_path, keep_vectors):
    """Each query alone. Mutants: rows of texts not counted from 1; centers of pictures for texts."""
    settings = {**SETTINGS, "num_steps": 3, "text_queries": True, "center_by_category": True, "bf16": False}
    if keep_vectors:
        settings |= {"trainable": "heads", "keep_vectors": True}
    csft.main(mixed, encoders, tmp_path / "csft", csft.Config(**settings))
    summary = embed.main(
        mixed, tmp_path / "csft", tmp_path / "embed", embed.Config(device="cpu", num_workers=1, batch_size=3)
    )
    data, model = CtrDataset.open(mixed), ItemEncoder.load(tmp_path / "csft")
    snapshot = Snapshot.open(tmp_path / "embed" / "queries", encoder=model.fingerprint)
    places = snapshot.rows(np.arange(1, len(data.queries) + 1))
    assert (places >= 0).all()
    assert summary.num_queries == len(data.queries)
    assert model.text_query_centers.isfinite().all()
    for query in range(1, len(data.queries) + 1):
        image, text = asked(data, query)
        vector, _ = model.embed_query_texts([text]) if image is None else model.embed_query_images([image])
        np.testing.assert_allclose(snapshot.vectors[places[query - 1]], vector[0], atol=1e-3)
    table = embed.open_content(data, tmp_path / "embed")
    assert (table.query_rows[1:] >= 0).all()
