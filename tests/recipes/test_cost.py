"""The encoder in the loop says what the center says, and costs what its items cost."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from encoders.small import item_encoder, picture, shake
from typer.testing import CliRunner

from mimctr.batch import FIRST_INDEX
from mimctr.center.snapshot_writer import write_snapshot
from mimctr.cli import app
from mimctr.data.dataset import CtrDataset
from mimctr.data.prepare import prepare_tables
from mimctr.encoders.item import ItemEncoder
from mimctr.errors import ConfigError, RunError, StaleSnapshot
from mimctr.evaluate.cost import read_cost
from mimctr.recipes import cost, cost_measure, embed
from mimctr.recipes.cost import Config
from mimctr.recipes.cost_content import EncodedContent
from mimctr.recipes.cost_measure import Inputs, compared_rows, count_step, open_side
from mimctr.train.flops import count_operations

NUM_ITEMS, NUM_EVENTS, START, LENGTH = 30, 400, 1_600_000_000, 4
SMALL = Config(
    ubm="mean",
    max_length=LENGTH,
    hidden_dims=(8,),
    batch_size=32,
    num_steps=2,
    num_warmup_steps=1,
    compared_batch_size=4,
    num_compared_steps=1,
    items_at_once=3,
    device="cpu",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's dataset, item encoder and vectors. Item 0 has no picture, 1 no title, 2 neither; all share a title."""
    folder = tmp_path_factory.mktemp("cost")
    tables = folder / "tables"
    tables.mkdir()
    random = np.random.default_rng(0)
    titled = [None if n in (1, 2) else "red hat" for n in range(NUM_ITEMS)]
    shown = [None if n in (0, 2) else picture(n) for n in range(NUM_ITEMS)]
    items = {"item_id": np.arange(NUM_ITEMS), "title": titled, "image": shown}
    pl.DataFrame(items | {"category": ["bags", "hats"] * (NUM_ITEMS // 2)}).write_parquet(
        tables / "items.parquet"
    )
    events = {
        "user_id": random.integers(0, 5, NUM_EVENTS),
        "item_id": random.integers(0, NUM_ITEMS, NUM_EVENTS),
        "time": START + np.arange(NUM_EVENTS),
        "click": random.integers(0, 2, NUM_EVENTS),
    }
    pl.DataFrame(events).write_parquet(tables / "impressions.parquet")
    prepare_tables(tables, folder / "dataset")
    torch.manual_seed(0)
    encoder = item_encoder()
    shake(encoder)
    encoder.save(folder / "csft")
    embed.main(
        folder / "dataset",
        folder / "csft",
        folder / "embed" / "csft",
        embed.Config(device="cpu", num_workers=1),
    )
    return folder


@pytest.fixture
def inputs(run, tmp_path) -> Inputs:
    return Inputs(run / "dataset", run / "embed" / "csft", run / "csft", tmp_path)


def encoded(inputs: Inputs, **settings: bool) -> tuple[CtrDataset, EncodedContent]:
    data = CtrDataset.open(inputs.dataset)
    items = np.arange(NUM_ITEMS) + FIRST_INDEX
    path, settings = inputs.scratch / "pixels.npy", {"trained": False, "distinct": False} | settings
    encoder = ItemEncoder.load(inputs.encoder)
    return data, EncodedContent(data, encoder, items, path, items_at_once=3, **settings)


def full_rows(data: CtrDataset) -> np.ndarray:
    """Return impressions of which target and behaviors all have picture and title, and no position is padding."""
    found = []
    for row in data.rows("train"):
        batch = data.batch(np.array([row]), max_length=LENGTH)
        shown = torch.cat([batch.target, batch.behaviors.flatten()])
        if batch.mask.shape[1] == LENGTH and batch.mask.all() and (shown >= FIRST_INDEX + 3).all():
            found.append(row)
    return np.array(found[:6])


@pytest.mark.parametrize("distinct", [False, True])
def test_every_item_of_a_batch_has_the_vector_that_embedding_it_alone_gives(inputs, distinct):
    """Mutants: behaviors in the place of others; the target among them."""
    data, content = encoded(inputs, distinct=distinct)
    encoder = ItemEncoder.load(inputs.encoder)
    batch = data.batch(np.asarray(data.rows("train"))[:20], max_length=LENGTH)
    found = content.attach(batch).content
    alone = {}
    for row, item in enumerate(data.items.iter_rows(named=True)):
        vectors, known = encoder.embed_items([data.item_images.get(row)], [item["title"]], [item["category"]])
        alone[row + FIRST_INDEX] = vectors[0], bool(known)
    for place, target in enumerate(batch.target.tolist()):
        torch.testing.assert_close(found.target[place], alone[target][0], rtol=1e-4, atol=1e-5)
        assert found.target_known[place] == alone[target][1]
        for position, item in enumerate(batch.behaviors[place].tolist()):
            vector, known = alone[item] if item else (torch.zeros(encoder.dim), False)
            torch.testing.assert_close(found.behaviors[place, position], vector, rtol=1e-4, atol=1e-5)
            assert found.behaviors_known[place, position] == known


def test_an_impression_costs_its_target_and_its_behaviors(inputs):
    """Mutant: padding is encoded too, or the target is not."""
    data, content = encoded(inputs)
    rows = full_rows(data)
    assert len(rows) > 2
    batch = data.batch(rows, max_length=LENGTH)
    with count_operations() as counted:
        content.attach(batch)
    item = data.items.row(5, named=True)
    with count_operations() as alone:
        ItemEncoder.load(inputs.encoder).embed_items(
            [data.item_images.get(5)], [item["title"]], [item["category"]]
        )
    with count_operations() as nothing:
        ItemEncoder.load(inputs.encoder)
    assert counted.products == len(rows) * (LENGTH + 1) * (alone.products - nothing.products)


def test_each_different_item_once_costs_as_many_items(inputs):
    data, content = encoded(inputs)
    batch = data.batch(full_rows(data), max_length=LENGTH)
    _, once = encoded(inputs, distinct=True)
    with count_operations() as every:
        content.attach(batch)
    with count_operations() as different:
        once.attach(batch)
    items = torch.cat([batch.target, batch.behaviors.flatten()])
    assert len(items.unique()) < len(items)
    assert different.products * len(items) == every.products * len(items.unique())


@pytest.mark.parametrize(("side", "reached"), [("without_center", False), ("end_to_end", True)])
def test_gradients_reach_the_towers_end_to_end_only(inputs, side, reached):
    setup = open_side(inputs, SMALL, side)
    count_step(setup, SMALL, "training")
    encoder = setup.attach.__self__.encoder
    for tower in (encoder.image_encoder, encoder.text_encoder, encoder.fusion):
        moved = [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in tower.parameters()]
        assert any(moved) == reached


def test_the_center_costs_no_run_of_the_encoder(inputs):
    """MIM's inference from the center plus the encoder's run is MIM's inference without the center."""
    center, without = (open_side(inputs, SMALL, side) for side in ("mim", "without_center"))
    data = CtrDataset.open(inputs.dataset)
    batch = data.batch(compared_rows(data, SMALL)[: SMALL.compared_batch_size], max_length=LENGTH)
    with count_operations() as run:
        without.attach(batch)
    found = [count_step(setup, SMALL, "inference").products for setup in (center, without)]
    assert found[1] - found[0] == run.products / len(batch)
    assert found[0] > 0


def test_vectors_that_are_not_the_encoder_s_are_refused_before_anything_is_counted(inputs, run, tmp_path):
    data, encoder = CtrDataset.open(run / "dataset"), ItemEncoder.load(run / "csft")
    table = embed.open_content(data, run / "embed" / "csft").snapshot
    vectors = np.roll(table.vectors.astype(np.float32), 1, axis=0)
    for name in ("items", "queries"):
        write_snapshot(tmp_path / "wrong" / name, table.keys, vectors, encoder=encoder.fingerprint)
    wrong = inputs._replace(content=tmp_path / "wrong")
    assert cost.check(inputs, SMALL).agreement.least_cosine > 0.999
    with pytest.raises(StaleSnapshot, match=r"differ from those there: least cosine -?0\.\d+ over \d+ items"):
        cost.check(wrong, SMALL)


def test_a_log_that_is_too_short_is_refused(inputs):
    config = SMALL.model_copy(update={"compared_batch_size": 10_000})
    with pytest.raises(RunError, match=r"training part has \d+ impressions, and 20,000 are measured"):
        cost.check(inputs, config)


@pytest.mark.slow
def test_the_command_measures_every_side_in_processes_of_their_own(run, tmp_path):
    words = [
        f"--set={name}={value}"
        for name, value in SMALL.model_dump().items()
        if name not in ("hidden_dims", "distinct")
    ]
    words += ["--set=hidden_dims=[8]", "--set=distinct=false"]
    result = CliRunner().invoke(app, ["cost", str(run), "--out", str(tmp_path / "out"), "--json", *words])
    assert result.exit_code == 0, result.output
    found = read_cost(tmp_path / "out" / "cost.json")
    assert json.loads(result.stdout) == found.model_dump(mode="json")
    assert [(one.side, one.mode) for one in found.measured] == [
        (side, mode)
        for side in ("base", "without_center", "end_to_end", "mim")
        for mode in ("training", "inference")
    ]
    by_side = {(one.side, one.mode): one.operations.products for one in found.measured}
    assert (
        by_side["end_to_end", "training"] > by_side["without_center", "training"] > by_side["mim", "training"]
    )
    assert by_side["end_to_end", "inference"] == by_side["without_center", "inference"]
    assert all(one.compared.memory_bytes > 0 for one in found.measured)
    shown = CliRunner().invoke(app, ["cost", str(run), "--out", str(tmp_path / "out"), *words])
    assert "Base+MIM end to end" in shown.stdout


def test_bfloat16_is_not_measured_where_there_is_none(inputs, monkeypatch):
    monkeypatch.setattr(cost_measure, "has_bfloat16", lambda device: False)
    with pytest.raises(ConfigError, match=r"cost\.towers: this processor has no products in bfloat16"):
        open_side(inputs, SMALL.model_copy(update={"towers": "bfloat16"}), "end_to_end")
    open_side(inputs, SMALL.model_copy(update={"towers": "float32"}), "end_to_end")
