"""Online is offline: the same inputs have the same score, from raw ids through a bundle and a center."""

import json
from unittest import mock

import numpy as np
import polars as pl
import pytest
import torch

from mimctr.center.center import Center
from mimctr.center.log import Change
from mimctr.center.publish import bring_up_to_date
from mimctr.center.record import State, encode
from mimctr.data.prepare import prepare_tables
from mimctr.data.split import SplitRule
from mimctr.errors import DataError, RunError, StaleSnapshot
from mimctr.recipes.bundle import main as export
from mimctr.recipes.ctr_model import UBMS
from mimctr.serve.bundle import Bundle
from mimctr.serve.scorer import NO_BEHAVIORS, Behaviors, Request, Scorer
from serve.shops import DIM, RawLog, offline, open_scorer


@pytest.mark.parametrize("variant", ["base", "mim", "mim_plus"])
@pytest.mark.parametrize("ubm", UBMS)
def test_a_score_is_the_offline_one(shop, tmp_path, ubm, variant):
    """Mutants: a history with what comes later; the oldest kept; a gap of another impression; a shifted vocabulary."""
    scorer, log = open_scorer(shop, tmp_path, ubm=ubm, variant=variant), RawLog(shop)
    wanted = offline(shop, tmp_path / "model")
    assert len(wanted) > 50
    for row, probability in list(wanted.items())[:40]:
        assert scorer.score(log.request(row)).probabilities[0] == pytest.approx(probability, abs=1e-5)


@pytest.mark.parametrize("ubm", ["sim", "dien"])
def test_candidates_do_not_see_one_another(shop, tmp_path, ubm):
    """Mutant: a batch statistic, or a shared row that is written to."""
    scorer, log = open_scorer(shop, tmp_path, ubm=ubm, variant="mim"), RawLog(shop)
    names = pl.read_parquet(shop / "tables" / "items.parquet")["item_id"].to_list()
    many = scorer.score(log.request(800, names))
    for place in (0, 7, 41):
        alone = scorer.score(log.request(800, [names[place]]))
        assert many.probabilities[place] == pytest.approx(alone.probabilities[0], abs=1e-6)
        assert many.states[place] == alone.states[0]
    assert (many.states == State.MISS).sum() == 5
    assert (many.num_behaviors, many.num_known <= 8) == (8, True)


def test_nobody_and_nothing_has_a_score(shop, tmp_path):
    """Unknown user, unknown candidate, no history: a probability, and no vector."""
    scorer = open_scorer(shop, tmp_path, ubm="sim", variant="mim")
    request = Request(None, np.array([2**60, 2**61]), NO_BEHAVIORS, 1_800_000_000)
    scores = scorer.score(request)
    assert ((scores.probabilities > 0) & (scores.probabilities < 1)).all()
    assert scores.probabilities[0] == scores.probabilities[1]
    assert scores.states.tolist() == [State.MISS] * 2
    assert (scores.num_behaviors, scores.num_known) == (0, 0)


def test_a_history_of_ten_thousand(shop, tmp_path):
    """The newest are kept, in whatever order they come."""
    scorer, log = open_scorer(shop, tmp_path, ubm="sim", variant="mim"), RawLog(shop)
    request = log.request(850)
    count = 10_000
    rng = np.random.default_rng(0)
    old = Behaviors(
        rng.choice(request.candidates, count), 1_600_000_000 + np.arange(count), ["click"] * count
    )
    both = Behaviors(
        np.concatenate([request.behaviors.items, old.items]),
        np.concatenate([request.behaviors.times, old.times]),
        [*request.behaviors.kinds, *old.kinds],
    )
    expected = scorer.score(request).probabilities[0]
    assert scorer.score(request._replace(behaviors=both)).probabilities[0] == pytest.approx(
        expected, abs=1e-6
    )


def test_what_comes_later_is_not_seen(shop, tmp_path):
    scorer, log = open_scorer(shop, tmp_path, ubm="din", variant="mim"), RawLog(shop)
    request = log.request(850)
    items, times, kinds = request.behaviors
    late = Behaviors(
        np.append(items, request.candidates), np.append(times, request.time), [*kinds, "purchase"]
    )
    now, then = scorer.score(request._replace(behaviors=late)), scorer.score(request)
    assert now.probabilities[0] == then.probabilities[0]
    sooner = scorer.score(request._replace(behaviors=late, time=request.time + 1))
    assert sooner.probabilities[0] != then.probabilities[0]


def test_a_new_item_has_a_vector_as_soon_as_the_log_has_it(shop, tmp_path):
    scorer = open_scorer(shop, tmp_path, ubm="sim", variant="mim")
    center, key = Center(shop / "center"), 2**59 + int(np.random.default_rng().integers(2**40))
    request = Request(None, np.array([key]), NO_BEHAVIORS, 1_800_000_000)
    before = scorer.score(request)
    payload = encode(np.ones((1, DIM), np.float32), "float16")[0].tobytes()
    center.log.append(center.log.take_over("test"), [Change(key=key, payloads={1: payload})])
    bring_up_to_date(center.log, scorer.store, 1, lambda: center.open_base(1))
    after = scorer.score(request)
    assert (before.states[0], after.states[0]) == (State.MISS, State.HIT)
    assert before.probabilities[0] != after.probabilities[0]


def test_vectors_of_another_encoder_are_refused(shop, tmp_path):
    """Mutant: the fingerprint is not compared."""
    scorer = open_scorer(shop, tmp_path, ubm="mean", variant="mim")
    other = scorer.space._replace(fingerprint="another encoder")
    with pytest.raises(
        StaleSnapshot, match="trained on vectors of encoder e, the center serves those of another enco"
    ):
        Scorer(scorer.bundle, scorer.model, space=other, store=scorer.store)
    with pytest.raises(StaleSnapshot, match="serves those of none"):
        Scorer(scorer.bundle, scorer.model)


def test_vectors_of_another_width_are_refused(shop, tmp_path):
    """An import may have any name. Mutant: the name is all that is compared."""
    scorer = open_scorer(shop, tmp_path, ubm="mean", variant="mim")
    wider = scorer.space._replace(generation=2, dim=DIM + 3)
    with pytest.raises(
        StaleSnapshot, match=r"reads vectors of 5 numbers, those of generation 2 have 8\. Act"
    ):
        scorer.on(wider)
    base = open_scorer(shop, tmp_path / "base", ubm="mean", variant="base")
    assert base.on(wider).space == wider  # it reads none


def test_a_field_that_the_model_does_not_have_is_told(shop, tmp_path):
    scorer, log = open_scorer(shop, tmp_path, ubm="mean", variant="base"), RawLog(shop)
    with pytest.raises(DataError, match="context fields: the model has no context_our; it has context_hour"):
        scorer.score(log.request(850)._replace(context_fields={"context_our": "1h"}))
    with pytest.raises(DataError, match=r"candidates: there are none"):
        scorer.score(log.request(850, []))


def test_what_is_no_number_is_no_score(shop, tmp_path):
    """Mutant: it goes out as a probability, in what is then no JSON."""
    scorer, log = open_scorer(shop, tmp_path, ubm="mean", variant="mim"), RawLog(shop)
    request = log.request(850, [1, 2, 3])
    for value in (np.nan, np.inf, -np.inf):
        scorer.engine = mock.Mock()
        scorer.engine.logits.return_value = torch.tensor([0.0, value, value])
        told = (
            rf"bundle: 2 of 3 logits are not finite, the first is that of item key {request.candidates[1]}\."
        )
        with pytest.raises(FloatingPointError, match=told):
            scorer.score(request)


def test_a_damaged_bundle_is_refused(shop, tmp_path):
    """Mutant: files are not compared with their hashes."""
    open_scorer(shop, tmp_path, ubm="mean", variant="base")
    folder = tmp_path / "bundle"
    manifest = json.loads((folder / "bundle.json").read_text())
    for name in manifest["files"]:
        whole = (folder / name).read_bytes()
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 1
        (folder / name).write_bytes(flipped)
        with pytest.raises(RunError, match=f"{name}: missing or damaged"):
            Bundle(folder)
        (folder / name).write_bytes(whole)
    (folder / "bundle.json").write_text(json.dumps(manifest | {"schema_version": 9}))
    with pytest.raises(RunError, match="not a bundle of schema 2"):
        Bundle(folder)
    with pytest.raises(RunError, match="holds no bundle"):
        Bundle(tmp_path / "model")
    with pytest.raises(RunError, match="exists already"):
        export(tmp_path / "model", shop / "dataset", folder)


@pytest.mark.parametrize("other", [{"split": SplitRule(test_fraction=0.3)}, {"min_count": 10_000}])
def test_a_bundle_has_the_values_of_its_training(shop, tmp_path, other):
    """Mutant: tables that are the same tell the dataset; every value then has another value's embedding."""
    open_scorer(shop, tmp_path, ubm="mean", variant="base")
    prepare_tables(shop / "tables", tmp_path / "other", **other)
    told = r"model: it was trained on another split of these tables, or with another min_count; .* Name the dataset of"
    with pytest.raises(RunError, match=told):
        export(tmp_path / "model", tmp_path / "other", tmp_path / "bundle-of-other")
    record = json.loads((tmp_path / "model" / "model.json").read_text())
    del record["training_hash"]  # as models of before have none
    (tmp_path / "model" / "model.json").write_text(json.dumps(record))
    export(tmp_path / "model", tmp_path / "other", tmp_path / "bundle-of-other", onnx=False)


def test_a_blank_value_is_none_as_in_the_log(shop, tmp_path):
    """Mutant: what prepare reads as nothing is an unknown value here."""
    bundle = open_scorer(shop, tmp_path, ubm="mean", variant="base").bundle
    asked = {
        value: bundle.value_index("user", "user_age", value)
        for value in (None, "", " \u200b", "old", "ancient")
    }
    assert asked == {None: 0, "": 0, " \u200b": 0, "old": asked["old"], "ancient": 1}
    assert asked["old"] >= 2
