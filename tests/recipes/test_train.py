"""The training recipe on a small shop whose clicks depend on nothing but what items look like."""

import json
import math
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import polars as pl
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.optim.optimizer import register_optimizer_step_pre_hook

from mimctr import precision
from mimctr.center.snapshot_writer import write_snapshot
from mimctr.data.dataset import CtrDataset
from mimctr.data.prepare import prepare_tables
from mimctr.errors import ConfigError, DataError, RunError
from mimctr.evaluate.metrics import auc
from mimctr.files import read_json
from mimctr.recipes import ctr_fitting
from mimctr.recipes.ctr_model import UBMS, build_model, build_ubm, load_model
from mimctr.recipes.embed import ITEMS, QUERIES, open_content
from mimctr.recipes.train import Config, main
from mimctr.train.run import Run
from mimctr.weights import load_tensors, save_tensors

NUM_STYLES, NUM_ITEMS, NUM_USERS, NUM_IMPRESSIONS = 4, 160, 120, 6000
NUM_NEW = 40
"""Items that appear in the last fifth of the log only: no model has seen them."""
DAY = 86_400
SMALL = {
    "embedding_dim": 4,
    "field_dim": 2,
    "hidden_dims": (16,),
    "batch_size": 256,
    "max_length": 10,
    "device": "cpu",
    "learning_rate": 0.01,
}

RESUMABLE = {
    "variant": "mim",
    "ubm": "sim",
    "epochs": 2,
    "dropout": 0.2,
    "checkpoint_seconds": 0.0,
    "patience": 50,
}


def write_shop(folder: Path) -> np.ndarray:
    """Write raw tables and return each item's style. A user likes one style; content is all that shows it."""
    rng = np.random.default_rng(0)
    styles = rng.integers(0, NUM_STYLES, NUM_ITEMS)
    liked = rng.integers(0, NUM_STYLES, NUM_USERS)
    time = np.sort(rng.integers(0, 100 * DAY, NUM_IMPRESSIONS)) + 1_700_000_000
    user = rng.integers(0, NUM_USERS, NUM_IMPRESSIONS)
    late = np.arange(NUM_IMPRESSIONS) >= NUM_IMPRESSIONS * 4 // 5
    old = NUM_ITEMS - NUM_NEW
    item = np.where(
        late, rng.integers(old, NUM_ITEMS, NUM_IMPRESSIONS), rng.integers(0, old, NUM_IMPRESSIONS)
    )
    click = rng.random(NUM_IMPRESSIONS) < np.where(styles[item] == liked[user], 0.8, 0.1)
    folder.mkdir()
    catalogue = {"item_id": np.arange(NUM_ITEMS), "title": [f"item {i}" for i in range(NUM_ITEMS)]}
    pl.DataFrame(catalogue | {"category": ["lamp", "chair"] * (NUM_ITEMS // 2)}).write_parquet(
        folder / "items.parquet"
    )
    pl.DataFrame(
        {"user_id": user, "item_id": item, "time": time, "click": click.astype(np.int8)}
    ).write_parquet(folder / "impressions.parquet")
    return styles


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared dataset and, in ``content``, a vector per item that is its style."""
    folder = tmp_path_factory.mktemp("shop")
    styles = write_shop(folder / "tables")
    prepare_tables(folder / "tables", folder / "dataset")
    np.save(folder / "styles.npy", styles)
    write_content(folder, folder / "content", dim=NUM_STYLES)
    return folder


def write_content(shop: Path, folder: Path, *, dim: int) -> None:
    """Write a vector per item that is its style."""
    items = CtrDataset.open(shop / "dataset").items
    styles = np.load(shop / "styles.npy")
    vectors = np.eye(dim, dtype=np.float32)[styles[items["item_id"].to_numpy()]]
    write_snapshot(folder / ITEMS, items["item_key"].to_numpy(), vectors, encoder="styles")
    nothing = np.zeros((0, dim), dtype=np.float32)
    write_snapshot(folder / QUERIES, np.zeros(0, dtype=np.int64), nothing, encoder="styles")


def turn_test_clicks(shop: Path, folder: Path) -> None:
    """Write the shop's tables and dataset again, every click of the test part turned round."""
    tables = pl.read_parquet(shop / "tables" / "impressions.parquet")
    start = CtrDataset.open(shop / "dataset").manifest.test_start
    turned = tables.with_columns(
        pl.when(pl.col("time") >= start)
        .then(1 - pl.col("click"))
        .otherwise(pl.col("click"))
        .cast(pl.Int8)
        .alias("click")
    )
    (folder / "tables").mkdir()
    turned.write_parquet(folder / "tables" / "impressions.parquet")
    pl.read_parquet(shop / "tables" / "items.parquet").write_parquet(folder / "tables" / "items.parquet")
    prepare_tables(folder / "tables", folder / "dataset")


def train(shop: Path, out: Path, **settings: object) -> dict[str, float]:
    config = Config(**(SMALL | settings))
    return main(shop / "dataset", None if config.variant == "base" else shop / "content", out, config)


def score(shop: Path, out: Path) -> float:
    dataset = CtrDataset.open(shop / "dataset")
    rows = dataset.rows("test")
    tensors, _ = load_tensors(out / "predictions.safetensors")
    assert tensors["row"].tolist() == list(rows)
    assert tensors["logit"].dtype == torch.float32
    return auc(dataset.impressions.click[rows.start : rows.stop], tensors["logit"].numpy())


@pytest.fixture(scope="module")
def undisturbed(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run leaves that nobody kills."""
    out = tmp_path_factory.mktemp("undisturbed")
    train(shop, out, **RESUMABLE)
    return out


class TestLearning:
    """All test items are new, so IDs know nothing of them; their style is in their vectors."""

    def test_base_cannot_know_new_items(self, shop: Path, tmp_path: Path):
        train(shop, tmp_path, variant="base", ubm="din", epochs=2)
        assert 0.44 < score(shop, tmp_path) < 0.56

    @pytest.mark.parametrize("ubm", ["mean", "din", "dien", "bst", "sim", "twin"])
    def test_content_interest_tells_what_a_user_will_click(self, ubm: str, shop: Path, tmp_path: Path):
        train(shop, tmp_path, variant="mim", ubm=ubm, epochs=8)
        assert score(shop, tmp_path) > 0.75

    def test_the_extensions_do_no_harm(self, shop: Path, tmp_path: Path):
        train(shop, tmp_path, variant="mim_plus", ubm="mean", epochs=4)
        assert score(shop, tmp_path) > 0.78

    def test_permuted_vectors_tell_nothing(self, shop: Path, tmp_path: Path):
        # Mutant: the permutation forgotten, and the leak control a copy of mim.
        train(shop, tmp_path, variant="mim_permuted", ubm="mean", epochs=4)
        assert 0.44 < score(shop, tmp_path) < 0.56

    def test_the_untrained_cosine_is_the_mean_over_the_history(self, shop: Path, tmp_path: Path):
        train(shop, tmp_path, variant="untrained_cosine")
        tensors, _ = load_tensors(tmp_path / "predictions.safetensors")
        dataset = CtrDataset.open(shop / "dataset")
        vectors = np.eye(NUM_STYLES)[np.random.default_rng(0).integers(0, NUM_STYLES, NUM_ITEMS)]
        item_id = np.r_[-1, -1, dataset.items["item_id"].to_numpy()]
        for row, logit in zip(tensors["row"][:50].tolist(), tensors["logit"][:50].tolist(), strict=True):
            impression = dataset.impressions
            start = dataset.behaviors.offsets[impression.user[row]]
            seen = dataset.behaviors.item[start : impression.end[row]][-10:]
            same = [vectors[item_id[item]] @ vectors[item_id[impression.target[row]]] for item in seen]
            assert logit == pytest.approx(np.mean(same) if same else 0.0, abs=1e-6)
        assert score(shop, tmp_path) > 0.78


class TestAuxiliaryLoss:
    @pytest.mark.parametrize("ubm", ["sim", "dien"])
    def test_it_trains_what_it_is_for(self, ubm: str, shop: Path, tmp_path: Path):
        # Mutant: an auxiliary loss that is computed and never added, so that its weight means nothing.
        found = []
        for weight in (0.0, 1.0):
            train(
                shop,
                tmp_path / str(weight),
                variant="base",
                ubm=ubm,
                auxiliary_weight=weight,
                schedule="constant",
            )
            found.append(load_tensors(tmp_path / str(weight) / "model.safetensors")[0])
        search = [name for name in found[0] if "ubm.soft" in name] if ubm == "sim" else list(found[0])
        assert any(not torch.equal(found[0][name], found[1][name]) for name in search)


class TestShuffledVectors:
    """What a model says of the test part when its items' vectors are permuted within category."""

    def test_a_model_that_knows_nothing_else_falls_to_chance(self, shop: Path, tmp_path: Path):
        # Mutant: the model scored on its own vectors twice.
        train(shop, tmp_path, variant="mim", ubm="mean", epochs=4)
        tensors, _ = load_tensors(tmp_path / "predictions.safetensors")
        clicks = CtrDataset.open(shop / "dataset").impressions.click[tensors["row"].numpy()]
        assert auc(clicks, tensors["logit"].numpy()) > 0.75
        assert 0.44 < auc(clicks, tensors["shuffled_logit"].numpy()) < 0.56

    @pytest.mark.parametrize("variant", ["mim", "mim_plus", "mim_permuted", "untrained_cosine"])
    def test_vectors_that_say_the_category_and_no_more_are_not_missed(
        self, variant: str, shop: Path, tmp_path: Path
    ):
        # Mutants: vectors permuted across categories; another model, or one in training mode, scored with them.
        dataset = CtrDataset.open(shop / "dataset")
        items = dataset.items.head(NUM_ITEMS - 7)  # and some without a vector
        vectors = np.eye(2, NUM_STYLES, dtype=np.float32)[(items["category"] == "lamp").cast(int).to_numpy()]
        write_snapshot(tmp_path / "content" / ITEMS, items["item_key"].to_numpy(), vectors, encoder="kinds")
        nothing = np.zeros((0, NUM_STYLES), dtype=np.float32)
        write_snapshot(tmp_path / "content" / QUERIES, np.zeros(0, dtype=np.int64), nothing, encoder="kinds")
        config = Config(**SMALL, variant=variant, ubm="sim", dropout=0.2, epochs=1)
        main(shop / "dataset", tmp_path / "content", tmp_path / "out", config)
        tensors, _ = load_tensors(tmp_path / "out" / "predictions.safetensors")
        assert tensors["logit"].std() > 0
        assert torch.equal(tensors["shuffled_logit"], tensors["logit"])

    def test_the_leak_control_is_shuffled_anew(self, shop: Path, tmp_path: Path):
        train(shop, tmp_path, variant="mim_permuted", ubm="mean")
        tensors, _ = load_tensors(tmp_path / "predictions.safetensors")
        assert not torch.equal(tensors["shuffled_logit"], tensors["logit"])

    def test_base_has_nothing_to_shuffle(self, shop: Path, tmp_path: Path):
        train(shop, tmp_path, variant="base", ubm="mean")
        assert set(load_tensors(tmp_path / "predictions.safetensors")[0]) == {"row", "logit"}


class TestResume:
    """Mutants: best weights or patience missing from the checkpoint; dropout drawn from a running generator; batches
    of a resumed epoch started over."""

    @pytest.mark.parametrize("fatal_step", [1, 20, 33])
    def test_a_killed_run_ends_bit_for_bit_where_an_undisturbed_one_ends(
        self, fatal_step: int, undisturbed: Path, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        real = ctr_fitting.take_step

        def killed(*arguments: object, step: int, **named: object) -> float:
            if step == fatal_step:
                raise KeyboardInterrupt
            return real(*arguments, step=step, **named)

        monkeypatch.setattr(ctr_fitting, "take_step", killed)
        with pytest.raises(KeyboardInterrupt):
            train(shop, tmp_path, **RESUMABLE)
        assert not (tmp_path / "model.json").exists()
        monkeypatch.undo()
        train(shop, tmp_path, **RESUMABLE)
        for name in ("metrics.jsonl", "model.json"):
            assert (tmp_path / name).read_text() == (undisturbed / name).read_text()
        for name in ("model.safetensors", "predictions.safetensors"):
            expected, _ = load_tensors(undisturbed / name)
            found, _ = load_tensors(tmp_path / name)
            assert all(torch.equal(found[key], expected[key]) for key in expected)

    def test_a_run_killed_after_its_early_stop_trains_no_further(
        self, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        settings = RESUMABLE | {"patience": 1, "learning_rate": 1e-9, "epochs": 20}
        monkeypatch.setattr("mimctr.recipes.train.save_tensors", self.fail)
        with pytest.raises(KeyboardInterrupt):
            train(shop, tmp_path, **settings)
        lines = (tmp_path / "metrics.jsonl").read_text()
        monkeypatch.undo()
        train(shop, tmp_path, **settings)
        assert (tmp_path / "metrics.jsonl").read_text() == lines

    def test_a_killed_run_stops_early_where_an_undisturbed_one_does(
        self, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        # Four looks an epoch that find nothing better than the first one: patience is over after the fourth.
        monkeypatch.setattr(ctr_fitting, "measure", lambda *_: {"auc": 0.5})
        settings = RESUMABLE | {"patience": 3}
        real = ctr_fitting.take_step

        def killed(*arguments: object, step: int, **named: object) -> float:
            if step == 13:
                raise KeyboardInterrupt
            return real(*arguments, step=step, **named)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(ctr_fitting, "take_step", killed)
            train(shop, tmp_path, **settings)
        before = (tmp_path / "metrics.jsonl").read_text().splitlines()
        train(shop, tmp_path, **settings)
        assert (len(before), len((tmp_path / "metrics.jsonl").read_text().splitlines())) == (2, 4)

    def fail(self, *_: object) -> None:
        raise KeyboardInterrupt

    def test_a_checkpoint_of_other_settings_is_refused(
        self, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr("mimctr.recipes.train.save_tensors", self.fail)
        with pytest.raises(KeyboardInterrupt):
            train(shop, tmp_path, **RESUMABLE)
        with pytest.raises(RunError, match="belongs to a training with other settings"):
            train(shop, tmp_path, **(RESUMABLE | {"learning_rate": 0.5}))


def scalars(folder: Path) -> list[dict[str, float]]:
    """What TensorBoard shows of a run, in the form of ``metrics.jsonl``."""
    events = EventAccumulator(str(folder))
    events.Reload()
    lines: dict[int, dict[str, float]] = {}
    for name in events.Tags()["scalars"]:
        shown = events.Scalars(name)
        assert len({event.step for event in shown}) == len(shown), "a step stands there twice"
        for event in shown:
            lines.setdefault(event.step, {"step": event.step})[name] = event.value
    return [lines[step] for step in sorted(lines)]


def logged(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: pytest.approx(value, rel=1e-6) for name, value in line.items()} for line in lines]


class TestTensorBoard:
    SETTINGS: ClassVar[dict[str, object]] = RESUMABLE | {"tensorboard": True, "checkpoint_seconds": 1e9}

    def test_it_shows_what_the_metrics_say(self, shop: Path, tmp_path: Path):
        train(shop, tmp_path, **self.SETTINGS)
        assert scalars(tmp_path) == logged(tmp_path)
        assert len(logged(tmp_path)) == 8

    @pytest.mark.parametrize("saved_step", [None, 6])
    def test_a_resumed_run_shows_every_step_once(
        self, saved_step: int | None, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        # Looks at steps 4, 9, 14 ...; killed at 13, it goes on from 6, or from the start.
        real = ctr_fitting.take_step

        def killed(*arguments: object, step: int, **named: object) -> float:
            if step == 13:
                raise KeyboardInterrupt
            return real(*arguments, step=step, **named)

        def save_once(run: Run, step: int, *arguments: object, **named: object) -> None:
            if step == saved_step:
                run.checkpoint(step, *arguments, **named)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(ctr_fitting, "take_step", killed)
            patch.setattr(Run, "checkpoint_if_due", save_once)
            train(shop, tmp_path, **self.SETTINGS)
        assert [line["step"] for line in scalars(tmp_path)] == [4, 9]
        train(shop, tmp_path, **self.SETTINGS)
        assert scalars(tmp_path) == logged(tmp_path)

    def test_without_the_setting_nothing_is_written(self, undisturbed: Path):
        assert not list(undisturbed.glob("events*"))

    def test_a_missing_package_is_one_line(self, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
        with pytest.raises(ConfigError, match=r'Install it: pip install "mimctr\[tensorboard\]"'):
            train(shop, tmp_path, **self.SETTINGS)


class TestEarlyStop:
    def test_the_best_weights_on_validation_are_the_ones_that_score(self, shop: Path, tmp_path: Path):
        # Mutant: the last weights kept.
        validation = train(shop, tmp_path, variant="mim", ubm="mean", epochs=6, learning_rate=0.1)
        looks = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
        best = max(looks, key=lambda look: look["validation_auc"])
        assert validation["auc"] == best["validation_auc"]
        assert read_json(tmp_path / "model.json")["best_step"] == best["step"]

    def test_training_stops_when_patience_is_over(self, shop: Path, tmp_path: Path):
        train(shop, tmp_path, variant="base", ubm="mean", epochs=50, patience=2, evaluations_per_epoch=1)
        looks = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
        aucs = [look["validation_auc"] for look in looks]
        assert len(aucs) < 50
        assert aucs.index(max(aucs)) == len(aucs) - 3

    def test_the_test_part_has_no_say(self, shop: Path, tmp_path: Path):
        # Mutant: early stop on the test part. Its clicks turned round must not change a single weight.
        turn_test_clicks(shop, tmp_path)
        settings = SMALL | {"variant": "base", "ubm": "din", "epochs": 2}
        for dataset, out in ((shop / "dataset", "a"), (tmp_path / "dataset", "b")):
            main(dataset, None, tmp_path / out, Config(**settings))
        weights = [load_tensors(tmp_path / out / "model.safetensors")[0] for out in "ab"]
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
        assert (tmp_path / "a" / "metrics.jsonl").read_text() == (
            tmp_path / "b" / "metrics.jsonl"
        ).read_text()


class TestModelFolder:
    @pytest.mark.parametrize(
        ("variant", "ubm"),
        [("base", "sim"), ("mim_plus", "sim"), ("mim", "dien"), ("mim", "bst"), ("mim", "twin")],
    )
    def test_a_loaded_model_predicts_what_was_written(
        self, variant: str, ubm: str, shop: Path, tmp_path: Path
    ):
        options = {"interest_norm": "batch", "cross_layers": 1, "hash_buckets": {"item": 7, "user": 5}}
        options["content_width"] = NUM_STYLES - 1
        extended = {"sim_search": "content", "attention_mix": True} if variant == "mim_plus" else {}
        train(shop, tmp_path, variant=variant, ubm=ubm, **options, **extended)
        model = load_model(tmp_path)
        dataset = CtrDataset.open(shop / "dataset")
        rows = np.array(dataset.rows("test"))[:100]
        batch = dataset.batch(rows, max_length=10)
        if variant != "base":
            batch = open_content(dataset, shop / "content").attach(batch)
        with torch.no_grad():
            found = model(batch).logit
        expected = load_tensors(tmp_path / "predictions.safetensors")[0]["logit"][:100]
        torch.testing.assert_close(found, expected)

    def test_a_model_from_before_content_was_narrowed_is_loaded_as_it_was(self, shop: Path, tmp_path: Path):
        """Mutant: it is built with today's default."""
        dim = Config().content_width + 8
        write_content(shop, tmp_path / "content", dim=dim)
        settings = Config(**(SMALL | {"variant": "mim", "ubm": "mean", "content_width": 0}))
        main(shop / "dataset", tmp_path / "content", tmp_path / "model", settings)
        record = read_json(tmp_path / "model" / "model.json")
        del record["config"]["content_width"]
        (tmp_path / "model" / "model.json").write_text(json.dumps(record))
        model, dataset = load_model(tmp_path / "model"), CtrDataset.open(shop / "dataset")
        assert model.dense.content.narrow is None
        batch = open_content(dataset, tmp_path / "content").attach(
            dataset.batch(np.array(dataset.rows("test")), max_length=10)
        )
        with torch.no_grad():
            found = model(batch).logit
        expected = load_tensors(tmp_path / "model" / "predictions.safetensors")[0]["logit"]
        torch.testing.assert_close(found, expected)

    def test_a_model_trained_in_bfloat16_is_judged_as_it_is_served(
        self, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        # Mutants: offline scores are rounded as those of training are, online ones are not; training is not.
        monkeypatch.setattr(precision, "_cpu_has_bfloat16", lambda: True)
        settings = {"variant": "mim", "ubm": "din", "learning_rate": 0.05}
        validation = train(shop, tmp_path / "rounded", **settings, bf16=True)
        model, dataset = load_model(tmp_path / "rounded"), CtrDataset.open(shop / "dataset")
        content = open_content(dataset, shop / "content")
        found = {}
        for part in ("validation", "test"):
            batch = content.attach(dataset.batch(np.array(dataset.rows(part)), max_length=10))
            with torch.no_grad():
                found[part] = model(batch).logit
            assert found[part].dtype == torch.float32
        expected = load_tensors(tmp_path / "rounded" / "predictions.safetensors")[0]["logit"]
        torch.testing.assert_close(found["test"], expected)
        rows = dataset.rows("validation")
        clicks = dataset.impressions.click[rows.start : rows.stop]
        assert validation["auc"] == pytest.approx(auc(clicks, found["validation"].numpy()), abs=1e-6)
        train(shop, tmp_path / "exact", **settings)
        weights = [load_tensors(tmp_path / name / "model.safetensors")[0] for name in ("rounded", "exact")]
        assert not torch.equal(*(one["dense.mlp.out.weight"] for one in weights))

    def test_the_record_names_the_model_and_what_it_was_made_from(self, shop: Path, tmp_path: Path):
        validation = train(shop, tmp_path, variant="mim", ubm="din", encoder="csft", seed=3)
        record = read_json(tmp_path / "model.json")
        names = {
            name: record[name]
            for name in ("ubm", "variant", "encoder", "seed", "content_fingerprint", "content_dim")
        }
        assert names == {
            "ubm": "din",
            "variant": "mim",
            "encoder": "csft",
            "seed": 3,
            "content_fingerprint": "styles",
            "content_dim": NUM_STYLES,
        }
        assert record["validation"] == validation
        assert Config.model_validate(record["config"]) == Config(
            **(SMALL | {"variant": "mim", "ubm": "din", "encoder": "csft", "seed": 3})
        )
        weights, _ = load_tensors(tmp_path / "model.safetensors")
        buffers = ("embedding.item_rows", "embedding.user_rows", "embedding.item_fields")
        counted = sum(value.numel() for name, value in weights.items() if name not in buffers)
        assert record["num_parameters"] == counted
        assert not (tmp_path / "checkpoint.safetensors").exists()

    def test_weights_of_another_model_are_refused(self, shop: Path, tmp_path: Path):
        train(shop, tmp_path, variant="base", ubm="mean")
        weights, _ = load_tensors(tmp_path / "model.safetensors")
        weights.pop("dense.mlp.out.bias")
        save_tensors(tmp_path / "model.safetensors", weights)
        with pytest.raises(RunError, match=r"do not fit its model.json .*mlp.out.bias.*Train it again"):
            load_model(tmp_path)

    @pytest.mark.parametrize(
        ("changed", "told"),
        [
            ({"a_later_setting": 1}, r"config\.a_later_setting: Extra inputs are not permitted"),
            ({"ubm": "a later one"}, r"config\.ubm: Input should be 'mean'"),
        ],
    )
    def test_a_model_of_another_version_is_refused(
        self, changed: dict, told: str, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        # Mutant: pydantic's own words in several lines, which a service takes for a bug of its own.
        folder = tmp_path / "model"
        folder.mkdir()
        record = {"config": Config(**(SMALL | {"variant": "base"})).model_dump(mode="json") | changed}
        (folder / "model.json").write_text(json.dumps(record))
        save_tensors(folder / "model.safetensors", {"a": torch.zeros(1)})
        with pytest.raises(
            RunError, match=rf"model.json: {told}.*another version of mimctr\. Train it again\.$"
        ):
            load_model(folder)
        (folder / "bundle.json").write_text("{}")
        with pytest.raises(
            RunError, match=r"another version of mimctr\. Run 'mimctr export' again\.$"
        ) as caught:
            load_model(folder)
        assert "\n" not in str(caught.value)

    def test_seeds_give_different_models_and_one_seed_the_same(self, shop: Path, tmp_path: Path):
        for out, seed in (("a", 0), ("b", 0), ("c", 1)):
            train(shop, tmp_path / out, variant="base", ubm="mean", seed=seed)
        logits = [load_tensors(tmp_path / out / "predictions.safetensors")[0]["logit"] for out in "abc"]
        assert torch.equal(logits[0], logits[1])
        assert not torch.equal(logits[0], logits[2])


@pytest.mark.parametrize(
    "settings",
    [
        {"schedule": "cosine"},
        {"bf16": True},
        {"din_activation": "dice"},
        {"embedding_l2_scope": "batch", "embedding_l2": 0.01},
        {"lazy_rows_above": 10},
        {"ubm": "dien", "bf16": True, "dien_cell": "authors", "dien_attention": "activation_unit"},
        {"ubm": "bst", "bf16": True, "bst_pooling": "target", "bst_dropout": 0.2},
        {"ubm": "twin", "bf16": True, "twin_k": 3},
        {"bf16": True, "cross_layers": 2},
        {"hash_buckets": {"item": 30, "user": 20}, "embedding_l2_scope": "batch"},
        {"cross_layers": 2, "cross_rank": 4, "cross_structure": "parallel"},
        {"ubm": "sim", "interests": ("content", "fusion")},
        {"ubm": "dien", "interests": ("id", "content")},
        {"ubm": "twin", "interests": ("id", "fusion"), "content_scope": "retrieved"},
        {"variant": "mim_plus", "ubm": "sim", "bf16": True, "sim_search": "content", "sim_k": 3},
        {"variant": "mim_plus", "ubm": "sim", "sim_search": "content", "attention_mix": True, "sim_k": 3},
        {"variant": "mim_plus", "ubm": "twin", "bf16": True, "attention_mix": True, "twin_k": 3},
    ],
    ids=str,
)
def test_options_of_the_training_train(settings: dict, shop: Path, tmp_path: Path):
    train(shop, tmp_path, **({"variant": "mim", "ubm": "din", "epochs": 8} | settings))
    assert score(shop, tmp_path) > 0.72


def first_gradients(shop: Path, out: Path, **settings: object) -> dict[str, torch.Tensor]:
    """What the optimizer gets in the first step, by number of the parameter."""
    seen: list[dict[str, torch.Tensor]] = []

    def keep(optimizer: torch.optim.Optimizer, *_: object) -> None:
        chosen = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        seen.append({str(number): p.grad.double().clone() for number, p in enumerate(chosen)})

    handle = register_optimizer_step_pre_hook(keep)
    train(shop, out, variant="base", ubm="mean", **settings)
    handle.remove()
    return seen[0]


class TestGradientClipping:
    """Mutants: each weight clipped by itself; every gradient scaled to the norm, short ones too."""

    def test_a_long_gradient_is_scaled_to_the_norm_as_a_whole(self, shop: Path, tmp_path: Path):
        free = first_gradients(shop, tmp_path / "a")
        norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in free.values()))
        clipped = first_gradients(shop, tmp_path / "b", max_gradient_norm=norm / 4)
        for name, gradient in free.items():
            torch.testing.assert_close(clipped[name], gradient / 4, rtol=1e-4, atol=1e-9)

    def test_a_short_gradient_stays_as_it_is(self, shop: Path, tmp_path: Path):
        train(shop, tmp_path / "a", variant="base", ubm="mean")
        train(shop, tmp_path / "b", variant="base", ubm="mean", max_gradient_norm=1e6)
        weights = [load_tensors(tmp_path / out / "model.safetensors")[0] for out in "ab"]
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize("lazy_rows_above", [10, 1_000_000])
@pytest.mark.parametrize("ubm", ["dien", "twin"])
def test_a_killed_run_with_a_penalty_of_the_batch_s_rows_ends_as_an_undisturbed_one(
    ubm: str, lazy_rows_above: int, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # DIEN draws negatives in every step; the counts of the penalty are made anew.
    settings = RESUMABLE | {"ubm": ubm, "embedding_l2_scope": "batch", "embedding_l2": 0.01, "epochs": 1}
    settings |= {"lazy_rows_above": lazy_rows_above}
    train(shop, tmp_path / "a", **settings)
    real = ctr_fitting.take_step

    def killed(*arguments: object, step: int, **named: object) -> float:
        if step == 9:
            raise KeyboardInterrupt
        return real(*arguments, step=step, **named)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ctr_fitting, "take_step", killed)
        train(shop, tmp_path / "b", **settings)
    train(shop, tmp_path / "b", **settings)
    weights = [load_tensors(tmp_path / out / "model.safetensors")[0] for out in "ab"]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    train(shop, tmp_path / "c", **(settings | {"embedding_l2": 0.0}))
    free = load_tensors(tmp_path / "c" / "model.safetensors")[0]
    assert not torch.equal(free["embedding.tables.item.weight"], weights[0]["embedding.tables.item.weight"])


@pytest.mark.parametrize(
    ("ubm", "max_length", "scope"),
    [("sim", 100, "all"), ("sim", 101, "retrieved"), ("twin", 101, "retrieved"), ("bst", 101, "all")],
)
def test_content_is_read_where_a_search_has_found_something(ubm: str, max_length: int, scope: str):
    # BST cuts to the newest behaviors too, but it does not search.
    assert Config(ubm=ubm, max_length=max_length).resolved_scope == scope
    assert Config(ubm=ubm, max_length=max_length, content_scope="all").resolved_scope == "all"


@pytest.mark.parametrize("ubm", UBMS)
def test_every_name_builds_its_model_with_its_settings(ubm: str):
    settings = {"dien_cell": "authors", "bst_length": 7, "sim_k": 5, "twin_k": 6, "twin_num_heads": 3}
    model = build_ubm(Config(ubm=ubm, **settings), 8, num_kinds=4)
    assert type(model) is UBMS[ubm]
    found = {
        "dien": lambda: model.evolution.cell == "authors",
        "bst": lambda: (model.length, model.width) == (7, 8 * 16),
        "sim": lambda: model.k == 5,
        "twin": lambda: (model.k, model.num_heads, model.kind.num_embeddings) == (6, 3, 4),
    }
    assert ubm not in found or found[ubm]()


def test_the_extensions_of_a_user_behavior_model_are_off_until_they_are_named():
    settings = {"sim_search": "content", "attention_mix": True}
    plain = [build_ubm(Config(ubm=ubm), 8, num_kinds=4) for ubm in ("sim", "twin")]
    extended = [build_ubm(Config(ubm=ubm, **settings), 8, num_kinds=4) for ubm in ("sim", "twin")]
    assert [model.needs_relevance for model in plain + extended] == [False, False, True, True]
    assert extended[0].search == "content"
    assert [name for name, _ in extended[0].named_parameters() if "mix" in name] == ["exact.mix.weights"]
    assert [name for name, _ in extended[1].named_parameters() if "mix" in name] == ["mix.weights"]


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_without_its_own_loss_dien_draws_no_negatives(weight: float, shop: Path):
    dataset = CtrDataset.open(shop / "dataset")
    config = Config(ubm="dien", variant="base", auxiliary_weight=weight)
    model = build_model(dataset, config, content_dim=None).train()
    batch = dataset.batch(np.arange(8), max_length=5)
    assert (model.embedding(batch).negatives is None) == (weight == 0)
    assert (model(batch).auxiliary is None) == (weight == 0)


class TestBadInput:
    @pytest.mark.parametrize(
        ("variant", "ubm", "settings", "asked"),
        [
            ("base", "sim", {"sim_search": "content"}, r"sim_search = 'content'"),
            (
                "mim",
                "sim",
                {"sim_search": "content", "attention_mix": True},
                r"sim_search = 'content', attention_mix",
            ),
            ("mim_permuted", "twin", {"attention_mix": True}, r"attention_mix = true"),
        ],
    )
    def test_an_extension_is_refused_in_a_row_that_says_nothing_of_it(
        self, variant: str, ubm: str, settings: dict, asked: str, shop: Path, tmp_path: Path
    ):
        with pytest.raises(
            ConfigError, match=f"^{asked}.*has in the variant 'mim_plus' alone, not in '{variant}'"
        ):
            train(shop, tmp_path / "model", variant=variant, ubm=ubm, **settings)
        assert not (tmp_path / "model").exists()

    def test_content_is_asked_for_where_the_variant_reads_it(self, shop: Path, tmp_path: Path):
        with pytest.raises(ConfigError, match="'mim' reads content vectors, and none are given"):
            main(shop / "dataset", None, tmp_path, Config(variant="mim"))

    def test_a_dataset_without_training_part_is_refused(self, shop: Path, tmp_path: Path):
        # The warm-up takes everything that would be the training part.
        dataset = CtrDataset.open(shop / "dataset")
        manifest = read_json(shop / "dataset" / "manifest.json") | {
            "train_start": dataset.manifest.validation_start
        }
        copy = tmp_path / "dataset"
        copy.mkdir()
        for path in (shop / "dataset").iterdir():
            if path.name != "manifest.json":
                (copy / path.name).symlink_to(path)
        (copy / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(DataError, match="its training part has no impressions"):
            main(copy, None, tmp_path / "out", Config(variant="base"))

    def test_a_diverged_training_says_at_which_step(self, shop: Path, tmp_path: Path):
        with pytest.raises(RunError, match=r"the loss is (nan|inf) at step \d+; training has diverged"):
            train(shop, tmp_path, variant="base", ubm="din", learning_rate=1e30, epochs=3)
