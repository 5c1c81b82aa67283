"""C-SFT and DMA in two processes of N/2 pairs, against one process of N: loss, gradient, memory, weights."""

import copy
import functools
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from encoders.small import image_encoder, text_encoder
from processes import run_in

from csft.shop import open_shop, write_shop
from csft.test_interest_loss import joined, known, written_out
from csft.test_text_queries import some_texts
from mimctr import distributed
from mimctr.csft import objectives
from mimctr.csft.loss import Candidates, Exclusions, Pool
from mimctr.csft.negatives import NegativeMemory, gather_candidates
from mimctr.errors import ConfigError
from mimctr.recipes import csft, fitting, pretrain
from mimctr.recipes.csft_examples import Batch, Examples
from mimctr.recipes.csft_towers import Towers
from mimctr.train.run import Run
from mimctr.weights import load_tensors, save_tensors

SETTINGS: dict[str, Any] = {
    "dim": 4,
    "hidden": 3,
    "batch_size": 8,
    "memory_warmup_steps": 2,
    "num_steps": 6,
    "evaluate_every": 4,
    "temperature": 0.2,
    "learn_temperature": True,
    "head_learning_rate": 0.01,
    "tower_learning_rate": 0.001,
    "start_pull": 0.01,
    "device": "cpu",
    "bf16": False,
    "augment": 0.0,
    "drop_modality": 0.0,
    "dropout": 0.0,
}
CASES: dict[str, dict[str, Any]] = {
    "k = 0": {"num_memory_batches": 0},
    "k = 1": {"num_memory_batches": 1},
    "k = 10": {"num_memory_batches": 10},
    "cached towers": {"num_memory_batches": 1, "trainable": "heads"},
    "pieces": {"tower_batch_size": 3},
    "category": {"objective": "category_cross_entropy"},
    "pairs": {"objective": "pair_cross_entropy"},
}


class Killed(Exception): ...


def record(
    shop: Path, encoders: Path, out: Path, settings: dict[str, Any], *, kill_at: int | None = None
) -> None:
    """Run C-SFT; write the gradient of every step, as each process has it after they were summed."""
    steps, sum_gradients = itertools.count(), distributed.sum_gradients
    folder = out.with_name(f"{out.name}-gradients")
    folder.mkdir(parents=True, exist_ok=True)

    def keep(parameters: list[torch.nn.Parameter]) -> None:
        sum_gradients(parameters)
        step = next(steps)
        found = {str(number): p.grad for number, p in enumerate(parameters) if p.grad is not None}
        save_tensors(folder / f"{step}-{distributed.rank()}.safetensors", found)
        if step == kill_at:
            raise Killed

    distributed.sum_gradients = keep
    try:
        csft.main(shop, encoders, out, csft.Config(**SETTINGS | settings))
    finally:
        distributed.sum_gradients = sum_gradients


def all_cases(shop: Path, encoders: Path, out: Path) -> None:
    csft.LOG_EVERY = 1
    for name, settings in CASES.items():
        record(shop, encoders, out / name, settings)


@pytest.fixture(scope="module")
def runs(shop, calm_encoders, tmp_path_factory) -> tuple[Path, Path]:
    """Folders of all cases in one process and in two."""
    out = tmp_path_factory.mktemp("processes")
    logged = csft.LOG_EVERY
    all_cases(shop, calm_encoders, out / "one")
    csft.LOG_EVERY = logged
    run_in(2, all_cases, shop, calm_encoders, out / "two")
    return out / "one", out / "two"


def metrics_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("case", list(CASES))
def test_two_processes_have_the_loss_the_gradient_and_the_search_of_one(runs, case):
    one, two = (folder / case for folder in runs)
    expected, found = metrics_of(one), metrics_of(two)
    assert [line["step"] for line in found] == [line["step"] for line in expected]
    for line, other in zip(found, expected, strict=True):
        assert line == pytest.approx(other, rel=2e-4, abs=1e-6)
    for step in range(SETTINGS["num_steps"]):
        name = f"{step}-0.safetensors"
        theirs, _ = load_tensors(one.with_name(f"{case}-gradients") / name)
        mine, _ = load_tensors(two.with_name(f"{case}-gradients") / name)
        others, _ = load_tensors(two.with_name(f"{case}-gradients") / f"{step}-1.safetensors")
        assert sorted(mine) == sorted(others) == sorted(theirs)
        largest = max(gradient.abs().max() for gradient in theirs.values())
        for number, gradient in theirs.items():
            assert torch.equal(mine[number], others[number])
            torch.testing.assert_close(mine[number], gradient, rtol=1e-3, atol=1e-4 * float(largest))


def killed_then_resumed(shop: Path, encoders: Path, out: Path, case: str) -> None:
    csft.LOG_EVERY = 1
    csft.Run = functools.partial(Run, checkpoint_seconds=0.0)
    with pytest.raises(Killed):
        record(shop, encoders, out, CASES[case], kill_at=4)


@pytest.mark.parametrize("case", ["k = 1"])
def test_a_run_of_two_processes_can_be_resumed_by_one(runs, shop, calm_encoders, tmp_path, monkeypatch, case):
    run_in(2, killed_then_resumed, shop, calm_encoders, tmp_path / "resumed", case)
    monkeypatch.setattr(csft, "LOG_EVERY", 1)
    record(shop, calm_encoders, tmp_path / "resumed", CASES[case])
    for line, other in zip(metrics_of(tmp_path / "resumed"), metrics_of(runs[0] / case), strict=True):
        assert line == pytest.approx(other, rel=2e-4, abs=1e-6)


def own_candidates(count: int, *, sorts: int, distinct: bool) -> Candidates:
    """This process's part of candidates that a generator draws for all: positives, then each sort of negatives."""
    generator = torch.Generator().manual_seed(3)
    total = distributed.size() * count
    keys = (
        torch.arange(sorts * total) if distinct else torch.randint(7, (sorts * total,), generator=generator)
    )
    columns = [
        keys,
        *(torch.randn(sorts * total, 4, generator=generator, dtype=torch.float64) for _ in range(3)),
        torch.rand(sorts * total, generator=generator) < 0.8,
        torch.rand(sorts * total, generator=generator) < 0.8,
    ]
    own = distributed.own_rows(total)
    return Candidates(*(column.unflatten(0, (sorts, total))[:, own].flatten(0, 1) for column in columns))


def space_and_time() -> None:
    """The loss of both processes' shares is the double loop over all pairs, with duplicates and a full memory."""
    count, sorts, batches = 3, 2, 10
    for distinct in (True, False):
        own = own_candidates(count, sorts=sorts, distinct=distinct)
        with distributed.alone():
            expected_pool = own_candidates(2 * count, sorts=sorts, distinct=distinct)
        everyones = gather_candidates(own, count)
        for mine, theirs in zip(everyones, expected_pool, strict=True):
            assert torch.equal(mine, theirs)
        memory = NegativeMemory(batches, len(everyones.item_keys), 4).double()
        memory.item_keys = memory.item_keys.long()
        for age in range(batches):
            shift = (age + 1) * 1000 if distinct else age
            older = everyones._replace(item_keys=everyones.item_keys + shift)
            memory.enqueue(older._replace(fused=everyones.fused.flip(0) + age))
        pool = memory.extend(everyones)
        candidates = joined(pool)
        query = torch.randn(2 * count, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
        mine = query[distributed.own_rows(2 * count)]
        objective = objectives.MultiLevelInfoNCE(temperature=0.2, text_weight=0.3, image_weight=0.7)
        first = distributed.rank() * count
        bought = {(row, key) for row in range(2 * count) for key in (row, 5, 9)} if not distinct else set()
        own_bought = [(row - first, key) for row, key in bought if first <= row < first + count]
        exclusions = Exclusions(pool, count, first=first, known=known(*own_bought))
        share = objective(mine, own, pool, exclusions, torch.zeros(sorts * count, dtype=torch.int64))
        levels = ((1.0, candidates.fused, torch.ones(len(candidates.item_keys), dtype=torch.bool)),)
        levels += ((0.3, candidates.text, candidates.has_text), (0.7, candidates.image, candidates.has_image))
        expected = sum(
            w * written_out(query, view, candidates, has, temperature=0.2, bought=bought)
            for w, view, has in levels
        )
        assert float(distributed.total(share)) == pytest.approx(expected, rel=1e-5)
        if distinct:
            pairs, processes = count, distributed.size()
            assert objective.facts(exclusions)["negatives"] == 2 * pairs * processes * (batches + 1) - 1


def test_space_time_negatives_are_those_of_all_processes_and_of_the_last_batches():
    run_in(2, space_and_time)


def reach() -> None:
    """The other process's query pulls at this process's candidates, too."""
    own = own_candidates(2, sorts=2, distinct=True)
    own = own._replace(fused=own.fused.requires_grad_())
    pool = gather_candidates(own, 2)
    query = torch.randn(2, 4, dtype=torch.float64) * (distributed.rank() == 1)  # process 0 asks nothing
    objective = objectives.MultiLevelInfoNCE(text_weight=0.0, image_weight=0.0)
    exclusions = Exclusions(Pool(pool), 2, first=2 * distributed.rank())
    objective(query, own, Pool(pool), exclusions, torch.zeros(4, dtype=torch.int64)).backward()
    assert (own.fused.grad.abs().sum(1) > 0).all()


def test_gradient_reaches_the_candidates_of_the_other_process():
    run_in(2, reach)


def without(column: str, rows: pl.Expr) -> pl.Expr:
    return pl.when(rows).then(None).otherwise(pl.col(column))


@pytest.fixture(scope="module")
def sparse_shop(tmp_path_factory) -> Path:
    """A shop of which half of the items lack a title and a quarter a picture, asked with pictures and texts."""
    row = pl.int_range(pl.len())
    columns = {"title": without("title", row < 12), "image": without("image", row >= 18)}
    return write_shop(tmp_path_factory.mktemp("sparse"), columns=columns, edit=some_texts)


SPARSE = {"batch_size": 2, "hard_negatives": False, "text_queries": True, "num_steps": 12}


def test_a_process_may_have_no_title_or_no_picture(sparse_shop, calm_encoders, tmp_path, monkeypatch):
    """Mutant: run a tower on no rows, which BERT and ViT refuse."""
    config = csft.Config(**SETTINGS | SPARSE)
    data, _, catalogue, pairs = open_shop(sparse_shop, calm_encoders, tmp_path, text_queries=True)
    examples = Examples(data, pairs, catalogue.has_content, config)
    batches = [examples.batch(step) for step in range(SPARSE["num_steps"])]
    pictures = np.array([(b.pictures >= 0) | catalogue.has_image[b.items] for b in batches])
    titles = np.array([(b.texts >= 0) | catalogue.has_text[b.items] for b in batches])
    assert (pictures.any(1) & ~pictures.all(1)).any()  # a process has one, the other none
    assert (titles.any(1) & ~titles.all(1)).any()

    monkeypatch.setattr(csft, "LOG_EVERY", 1)
    record(sparse_shop, calm_encoders, tmp_path / "one", SPARSE)
    run_in(2, record, sparse_shop, calm_encoders, tmp_path / "two", SPARSE)
    expected = [line for line in metrics_of(tmp_path / "one") if "recall@10" in line]
    found = [line for line in metrics_of(tmp_path / "two") if "recall@10" in line]
    assert len(found) == 4
    for line, other in zip(found, expected, strict=True):
        assert line == pytest.approx(other, rel=2e-3)


def adapting(shop: Path, encoders: Path, out: Path) -> None:
    """The first process has the one picture of a step; both know its statistics, and the gradient reaches the tower."""
    _, encoder, catalogue, _ = open_shop(shop, encoders, out)
    encoder.image_encoder.adapt_batch_norm = True
    alone = copy.deepcopy(encoder.image_encoder)
    towers = Towers(catalogue, encoder, torch.device("cpu"), csft.Config(**SETTINGS | SPARSE))
    encoder.train()
    item = np.array([17 if distributed.rank() == 0 else 21])  # both have a title, the second no picture
    none, key = np.array([-1]), torch.tensor([1])
    query, found = towers.vectors(Batch(none, item, np.array([0]), item, key, key, key))
    assert catalogue.has_image[item] == found.has_image == (distributed.rank() == 0)
    (encoder.query_views(query).sum() + found.image.square().sum()).backward()
    with distributed.alone():
        alone.train()(catalogue.pictures.gather(catalogue.pictures.of_item[[17]]))
    for name, value in alone.network.named_buffers():
        torch.testing.assert_close(encoder.image_encoder.network.get_buffer(name), value)
    parameters = list(encoder.image_encoder.parameters())
    distributed.sum_gradients(parameters)
    assert all(parameter.grad.isfinite().all() for parameter in parameters)


def test_batch_norm_waits_for_a_process_without_pictures(sparse_shop, tmp_path):
    """Mutant: a process without pictures runs no tower, and the other one waits for its part of the statistics."""
    image_encoder("resnet").save(tmp_path / "encoders" / "image")
    text_encoder().save(tmp_path / "encoders" / "text")
    run_in(2, adapting, sparse_shop, tmp_path / "encoders", tmp_path)


def refused(shop: Path, encoders: Path, out: Path) -> None:
    csft.Towers = None  # nothing is run before the settings are known to be right
    with pytest.raises(ConfigError, match="batch of 7 rows: does not divide over 2 processes"):
        csft.main(shop, encoders, out, csft.Config(**SETTINGS | {"batch_size": 7}))
    for rows, size, said in ((1, 8, "1 rows to train on: fewer than 2 processes"), (9, 7, "batch of 7 rows")):
        with pytest.raises(ConfigError, match=said):
            fitting.fit(
                Run(out / "run"),
                torch.nn.Linear(2, 2),
                lambda _: pytest.fail("a step was taken"),
                lambda: pytest.fail("it was evaluated"),
                trained=np.arange(rows),
                batch_size=size,
                num_steps=2,
                learning_rate=0.1,
                weight_decay=0.0,
                seed=0,
            )


def test_a_batch_that_does_not_divide_is_refused_before_anything_is_run(shop, calm_encoders, tmp_path):
    run_in(2, refused, shop, calm_encoders, tmp_path)


def align_in(shop: Path, encoders: Path, out: Path) -> None:
    fitting.LOG_EVERY = 1
    steps = {"masked_image": False, "language": False, "alignment_steps": 5, "batch_size": 6}
    pretrain.main(shop, encoders, out, pretrain.Config(**steps, device="cpu", bf16=False))


def test_alignment_in_two_processes_ends_where_one_does(shop, calm_encoders, tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "LOG_EVERY", 1)
    align_in(shop, calm_encoders, tmp_path / "one")
    run_in(2, align_in, shop, calm_encoders, tmp_path / "two")
    expected, found = (metrics_of(tmp_path / name / "run" / "alignment") for name in ("one", "two"))
    assert len(found) == len(expected)
    for line, other in zip(found, expected, strict=True):
        assert line == pytest.approx(other, rel=2e-3)


def test_positives_of_the_second_process_are_not_the_first_rows():
    candidates = own_candidates(4, sorts=2, distinct=True)
    excluded = Exclusions(
        Pool(candidates._replace(item_keys=torch.zeros(8, dtype=torch.int64))), 2, first=2
    ).whole()
    assert (~excluded).nonzero().tolist() == [[0, 2], [1, 3]]
