"""The evaluation of a small run: real dataset and folders, generated predictions."""

import io
import json
import shutil

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from mimctr.center.snapshot_writer import write_snapshot
from mimctr.data.dataset import CtrDataset
from mimctr.errors import DataError, RunError, StaleSnapshot
from mimctr.evaluate.results import read_results
from mimctr.recipes import evaluate, prepare, report, stages
from mimctr.recipes.neighbors import choose_pairs
from mimctr.report.headline import headline
from mimctr.report.summary import Summary
from mimctr.weights import load_tensors, save_tensors

START = 1_600_000_000
NUM_ITEMS, NUM_USERS, NUM_IMPRESSIONS = 40, 30, 1500


def picture(number):
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), (number * 6, 90, 40)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def dataset_folder(tmp_path_factory):
    """A prepared dataset whose items arrive over time, with known click probabilities."""
    generator = np.random.default_rng(0)
    first_seen = START + np.sort(generator.integers(0, 900, NUM_ITEMS)) * 60
    first_seen[:10] = START
    times = START + np.sort(generator.integers(100, 1000, NUM_IMPRESSIONS)) * 60
    arrived = np.searchsorted(first_seen, times, side="right")
    probability = generator.uniform(0.1, 0.7, NUM_IMPRESSIONS)
    impressions = pl.DataFrame(
        {
            "user_id": generator.integers(1, NUM_USERS + 1, NUM_IMPRESSIONS),
            "item_id": 100 + (generator.random(NUM_IMPRESSIONS) * arrived).astype(int),
            "time": times,
            "click": (generator.random(NUM_IMPRESSIONS) < probability).astype(int),
            "true_probability": probability,
        }
    ).unique(["user_id", "item_id", "time"], keep="first", maintain_order=True)
    items = pl.DataFrame(
        {
            "item_id": np.arange(100, 100 + NUM_ITEMS),
            "title": [None if number % 7 == 2 else f"title {number}" for number in range(NUM_ITEMS)],
            "image": [None if number == 3 else picture(number) for number in range(NUM_ITEMS)],
            "category": [f"c{number % 3}" for number in range(NUM_ITEMS)],
            "first_seen_time": first_seen,
        }
    )
    folder = tmp_path_factory.mktemp("tables")
    impressions.write_parquet(folder / "impressions.parquet")
    items.write_parquet(folder / "items.parquet")
    out = tmp_path_factory.mktemp("run") / "dataset"
    impressions.sample(fraction=1.0, shuffle=True, seed=0).write_parquet(out.parent / "impressions.parquet")
    prepare.main(
        folder, out, prepare.Config(test_fraction=0.3, pair_kinds=("click",), pair_query_kinds=("click",))
    )
    return out


@pytest.fixture
def run(tmp_path, dataset_folder):
    """A run with Base and Base+MIM of one UBM and two seeds, stage records, metrics and a snapshot."""
    (tmp_path / "dataset").symlink_to(dataset_folder)
    (tmp_path / "tables.parquet").symlink_to(dataset_folder.parent / "impressions.parquet")
    dataset = CtrDataset.open(tmp_path / "dataset")
    for seed in (0, 1):
        for variant, strength in [("base", 0.5), ("mim", 2.0)]:
            write_model(tmp_path, dataset, variant, seed=seed, strength=strength)
    items = np.arange(2, 2 + NUM_ITEMS - 5)
    vectors = np.random.default_rng(0).normal(size=(len(items), 4)).astype(np.float32)
    write_snapshot(tmp_path / "embed/csft/items", dataset.item_keys[items], vectors, encoder="e1")
    write_snapshot(
        tmp_path / "embed/csft/queries",
        np.empty(0, dtype=np.int64),
        np.empty((0, 4), np.float32),
        encoder="e1",
    )
    return tmp_path


def write_model(run, dataset, variant, *, seed, strength, name=None, **changes):
    folder = run / "train" / (name or f"mean-{variant}-seed{seed}")
    folder.mkdir(parents=True)
    rows = dataset.rows("test")
    truth = dataset.impressions.true_probability[rows.start : rows.stop]
    noise = np.random.default_rng([seed, len(variant)]).normal(size=len(rows))
    logits = (strength * 3 * (truth - 0.4) + noise).astype(np.float32)
    record = {
        "ubm": "mean",
        "variant": variant,
        "encoder": "none" if variant == "base" else "csft",
        "seed": seed,
        "dataset_hash": dataset.manifest.source_hash,
        "config": {"batch_size": 1024},
        "fields": {},
    }
    (folder / "model.json").write_text(json.dumps({**record, **changes}))
    (folder / "metrics.jsonl").write_text('{"step": 3, "validation_auc": 0.6}\n')
    tensors = {"row": torch.arange(rows.start, rows.stop), "logit": torch.from_numpy(logits)}
    if variant != "base":
        tensors["shuffled_logit"] = torch.from_numpy(noise.astype(np.float32))
    save_tensors(folder / "predictions.safetensors", tensors)
    return logits


CONFIG = evaluate.Config(dataset_name="small", num_resamples=20, num_age_sets=4)


def test_results_hold_the_numbers_of_every_model(run):
    evaluate.main(run, run / "evaluate", CONFIG)
    results = read_results(run / "evaluate" / "results.json")
    dataset = CtrDataset.open(run / "dataset")
    rows = np.array(dataset.rows("test"))
    clicks = dataset.impressions.click[rows]
    logits = {(row.variant, row.seed): row.auc for row in results.rows if row.slice == "all"}
    assert set(logits) == {("base", 0), ("base", 1), ("mim", 0), ("mim", 1)}
    (row,) = (row for row in results.rows if (row.variant, row.seed, row.slice) == ("mim", 1, "all"))
    assert row.ceiling_auc == pytest.approx(roc_auc_score(clicks, dataset.impressions.true_probability[rows]))
    assert (row.num_impressions, row.num_clicks, row.encoder) == (len(rows), clicks.sum(), "csft")
    assert results.dataset.parts[2].num_impressions == len(rows)
    assert sum(part.num_impressions for part in results.dataset.parts) == len(dataset.impressions)
    (gain,) = (
        item
        for item in results.comparisons
        if (item.variant, item.slice, item.minus_slice) == ("mim", "all", None)
    )
    assert gain.difference > 0
    assert {curve.metric for curve in results.curves} == {"validation_auc"}


def test_slices_are_those_of_the_dataset(run):
    results = evaluate.main(run, run / "evaluate", CONFIG)
    dataset = CtrDataset.open(run / "dataset")
    rows = np.array(dataset.rows("test"))
    sizes = {row.slice: row.num_impressions for row in results.rows} | {
        item.slice: item.num_impressions for item in results.skipped_slices
    }
    targets = dataset.impressions.target[rows]
    newest = sorted(
        set(targets.tolist()), key=lambda item: (dataset.items["first_seen_time"][item - 2], item)
    )
    quarter = [item for rank, item in enumerate(newest[::-1]) if rank * 4 // len(newest) == 0]
    assert sizes["age:S1"] == np.isin(targets, quarter).sum()
    assert sizes["item:unseen"] == sum(int(dataset.item_train_counts[item] == 0) for item in targets)
    histories = [
        int(dataset.impressions.end[row] - dataset.behaviors.offsets[dataset.impressions.user[row]])
        for row in rows
    ]
    assert sizes["history:10-49"] == sum(10 <= length < 50 for length in histories)
    assert sizes["category:c1"] == sum(
        dataset.items["category"][item - 2] == "c1" for item in targets.tolist()
    )


def test_targets_are_sliced_by_whether_they_have_an_image_and_a_title(run, dataset_folder):
    results = evaluate.main(run, run / "evaluate", CONFIG)
    dataset = CtrDataset.open(dataset_folder)
    sizes = {row.slice: row.num_impressions for row in results.rows} | {
        item.slice: item.num_impressions for item in results.skipped_slices
    }
    shown = (
        dataset.impressions.target[np.array(dataset.rows("test"))] - 2
    )  # place in the catalogue: item_id 100 first
    assert dataset.items["item_id"].to_list() == list(range(100, 100 + NUM_ITEMS))
    for kind, missing in [("image", shown == 3), ("title", shown % 7 == 2)]:
        assert 0 < missing.sum() < len(shown)
        assert (sizes[f"{kind}:no"], sizes[f"{kind}:yes"]) == (missing.sum(), (~missing).sum())


def test_exported_predictions_join_the_raw_impressions_and_give_the_same_auc(run):
    results = evaluate.main(run, run / "evaluate", CONFIG)
    exported = pl.read_parquet(run / "evaluate" / "predictions.parquet")
    dataset = CtrDataset.open(run / "dataset")
    assert exported["row"].to_list() == list(dataset.rows("test"))
    names = [f"mean-{variant}-seed{seed}" for variant in ("base", "mim") for seed in (0, 1)]
    assert exported.columns == [
        "row",
        "user_id",
        "item_id",
        "time",
        "click",
        *(f"probability:{name}" for name in names),
    ]
    raw = pl.read_parquet(run / "tables.parquet")
    keys = ["user_id", "item_id", "time"]
    joined = exported.join(raw, on=keys, how="left", validate="1:1", suffix="_raw", maintain_order="left")
    assert joined["click"].to_list() == joined["click_raw"].to_list()
    truth = dataset.impressions.true_probability[np.array(dataset.rows("test"))]
    assert joined["true_probability"].to_list() == truth.tolist()
    for row in results.rows:
        if row.slice == "all":
            probability = exported[f"probability:mean-{row.variant}-seed{row.seed}"]
            assert roc_auc_score(exported["click"], probability) == pytest.approx(row.auc)
            assert probability.sum() / exported["click"].sum() == pytest.approx(row.pcoc)


def test_what_only_ranks_is_exported_as_a_score(run):
    dataset = CtrDataset.open(run / "dataset")
    logits = write_model(run, dataset, "untrained_cosine", seed=0, strength=1.0)
    evaluate.main(run, run / "evaluate", CONFIG)
    exported = pl.read_parquet(run / "evaluate" / "predictions.parquet")
    assert exported["score:mean-untrained_cosine-seed0"].to_list() == logits.tolist()


def test_what_shuffled_vectors_cost_comes_from_the_models_own_predictions(run):
    results = evaluate.main(run, run / "evaluate", CONFIG)
    dataset = CtrDataset.open(run / "dataset")
    rows = dataset.rows("test")
    noise = [np.random.default_rng([seed, 3]).normal(size=len(rows)) for seed in (0, 1)]
    clicks = dataset.impressions.click[rows.start : rows.stop]
    (found,) = results.content_use
    assert (found.variant, found.seeds) == ("mim", [0, 1])
    assert found.shuffled_auc == pytest.approx(np.mean([roc_auc_score(clicks, one) for one in noise]))


def test_models_of_before_are_evaluated_and_named(run, caplog):
    path = run / "train/mean-mim-seed0/predictions.safetensors"
    tensors, _ = load_tensors(path)
    del tensors["shuffled_logit"]
    save_tensors(path, tensors)
    results = evaluate.main(run, run / "evaluate", CONFIG)
    assert [item.seeds for item in results.content_use] == [[1]]
    assert "1 of 2 models with content were trained before" in caplog.text


def test_coverage_counts_what_a_loop_counts(run):
    results = evaluate.main(run, run / "evaluate", CONFIG)
    dataset = CtrDataset.open(run / "dataset")
    known = set(range(2, 2 + NUM_ITEMS - 5))
    behaviors = found = 0
    for row in dataset.rows("test"):
        start = dataset.behaviors.offsets[dataset.impressions.user[row]]
        items = dataset.behaviors.item[start : dataset.impressions.end[row]].tolist()
        behaviors += len(items)
        found += sum(item in known for item in items)
    coverage = {item.of: (item.known, item.total) for item in results.coverage}
    targets = dataset.impressions.target[np.array(dataset.rows("test"))].tolist()
    assert coverage == {
        "catalogue items": (NUM_ITEMS - 5, NUM_ITEMS),
        "test targets": (sum(item in known for item in targets), len(targets)),
        "test behaviors": (found, behaviors),
    }


def test_no_vectors_are_looked_at_where_none_are_named(run):
    """Models of Base alone. Mutant: none named is all, also a folder that is only half made."""
    (run / "embed" / "half").mkdir()
    (run / "embed" / "half" / "stage.started.json").write_text("{}")
    config = CONFIG.model_copy(update={"models": ("mean-base-seed0", "mean-base-seed1"), "embeds": ()})
    record = stages.evaluate(run, run / "evaluate", config).run()
    assert not any(name.startswith("embed") for name in record.inputs)
    assert read_results(run / "evaluate" / "results.json").coverage == []
    with pytest.raises(RunError, match="half: the stage that makes it was interrupted"):
        stages.evaluate(run, run / "evaluate", CONFIG.model_copy(update={"models": config.models})).run()


def test_the_largest_categories_and_those_of_the_contrast_are_measured(run, caplog):
    """Mutants: every category is; those of the contrast are left out where they are small."""
    caplog.set_level("INFO")
    dataset = CtrDataset.open(run / "dataset")
    targets = dataset.impressions.target[np.array(dataset.rows("test"))]
    sizes = [int((targets % 3 == (2 + number) % 3).sum()) for number in range(3)]  # item_index 2 is of c0
    largest, _, least = sorted(range(3), key=lambda number: -sizes[number])
    config = CONFIG.model_copy(update={"max_categories": 1, "content_sensitive": (f"c{least}",)})
    results = evaluate.main(run, run / "evaluate", config)
    names = {row.slice for row in results.rows if row.slice.startswith("category:")}
    assert names == {f"category:c{largest}", f"category:c{least}"}
    share = 100 * (sizes[largest] + sizes[least]) / sum(sizes)
    assert f"2 of 3 categories, with {share:.1f} % of the impressions, are measured" in caplog.text


def test_the_report_of_an_evaluated_run_is_one_page(run):
    evaluate.main(run, run / "evaluate", CONFIG)
    page = report.main(run, run / "report").read_text()
    assert "small" in page
    assert "Base+MIM" in page


def test_what_is_left_out_is_told(run, caplog):
    # Mutant: an unfinished training is passed over in silence.
    for name in ("mean-mim-seed2", "sim-mim-seed0"):
        (run / "train" / name).mkdir()
        (run / "train" / name / "checkpoint.safetensors").write_bytes(b"half")
    results = evaluate.main(run, run / "evaluate", CONFIG)
    assert len(results.models) == 4
    assert (
        "train: left out 2 of 6 folders without model.json, which a training writes last: mean-mim-seed2, "
        "sim-mim-seed0. Finish them with 'mimctr train', or remove them." in caplog.text
    )


def test_unfinished_trainings_alone_are_refused(tmp_path, dataset_folder):
    (tmp_path / "dataset").symlink_to(dataset_folder)
    (tmp_path / "train" / "mean-mim-seed2").mkdir(parents=True)
    with pytest.raises(
        RunError, match=r"no trained model, but 1 of 1 folders without .*: mean-mim-seed2\. Fin"
    ):
        evaluate.main(tmp_path, tmp_path / "evaluate", CONFIG)


def test_an_unfinished_training_of_the_command_line_is_refused(run):
    (run / "train" / "mean-mim-seed2").mkdir()
    (run / "train" / "mean-mim-seed2" / "stage.started.json").write_text("{}")
    with pytest.raises(RunError, match="mean-mim-seed2: the stage that makes it was interrupted"):
        stages.evaluate(run, run / "evaluate", CONFIG).run()


def test_a_recipe_evaluates_the_models_that_it_names(run, caplog):
    """Mutant: what an earlier recipe trained beside it is reported too, or refused for its older vectors."""
    dataset = CtrDataset.open(run / "dataset")
    write_model(run, dataset, "mim", seed=7, strength=0.5, name="of-before")
    names = tuple(path.name for path in (run / "train").glob("*") if path.name != "of-before")
    stages.evaluate(run, run / "evaluate", CONFIG.model_copy(update={"models": names})).run()
    found = read_results(run / "evaluate" / "results.json")
    assert sorted(model.folder for model in found.models) == sorted(f"train/{name}" for name in names)
    assert "left out 1 models that the recipe does not name: of-before." in caplog.text
    with pytest.raises(
        RunError, match=r"holds no finished training in never\. Finish it with 'mimctr train'"
    ):
        evaluate.model_folders(run / "train", (*names, "never"))


ABLATED = {"config": {"interests": ["id", "content"]}}


def test_an_ablation_is_named_by_what_it_lacks(run):
    # Mutant: called Base+MIM, or refused beside it as a second model of the same name.
    dataset = CtrDataset.open(run / "dataset")
    write_model(run, dataset, "mim", seed=0, strength=0.5, name="ablated", **ABLATED)
    write_model(run, dataset, "mim_plus", seed=0, strength=0.5, config={"interests": ["content"]})
    write_model(run, dataset, "base", seed=2, strength=0.5, **ABLATED)  # has the ID interest alone anyway
    results = evaluate.main(run, run / "evaluate", CONFIG)
    variants = {"base", "mim", "mim_without_fusion", "mim_plus_without_id_fusion"}
    assert {model.variant for model in results.models} == variants
    assert {row.variant for row in results.rows} == variants
    against = {item.against for item in results.comparisons if item.variant == "mim_without_fusion"}
    assert against == {"base", "mim"}
    labels = ["Base", "Base+MIM", "Base+MIM w/o fusion interest", "MIM+ w/o ID and fusion interests"]
    assert [row.label for row in Summary(results).table()] == labels
    page = report.main(run, run / "report").read_text()
    for label in labels:
        assert label in page


def test_models_of_one_variant_are_told_apart_by_their_label(run):
    # Mutant: the label is forgotten, and the second MIM+ refused as one of the same name.
    dataset = CtrDataset.open(run / "dataset")
    for label in ("", "SimTier"):
        config = {"label": label} if label else {}
        name = f"mim_plus-{label}"
        write_model(run, dataset, "mim_plus", seed=0, strength=1.0, name=name, config=config)
    results = evaluate.main(run, run / "evaluate", CONFIG)
    assert {row.variant for row in results.rows} == {"base", "mim", "mim_plus", "mim_plus:SimTier"}
    against = {item.against for item in results.comparisons if item.variant == "mim_plus:SimTier"}
    assert against == {"base", "mim", "mim_plus"}
    assert "MIM+, SimTier" in [row.label for row in Summary(results).table()]


def test_each_seed_may_have_vectors_of_its_own(run):
    # Mutant: a model is compared with another seed's vectors.
    dataset = CtrDataset.open(run / "dataset")
    shutil.move(run / "embed" / "csft", run / "embed" / "csft-seed0")
    shutil.copytree(run / "embed" / "csft-seed0", run / "embed" / "other")
    fingerprint = json.loads((run / "embed/csft-seed0/items/manifest.json").read_text())["fingerprint"]
    write_model(run, dataset, "mim_plus", seed=0, strength=1.0, content_fingerprint=fingerprint)
    results = evaluate.main(run, run / "evaluate", CONFIG.model_copy(update={"embeds": ("csft-seed0",)}))
    assert {item.encoder for item in results.coverage} == {"csft-seed0"}
    write_model(run, dataset, "mim_plus", seed=0, strength=1.0, name="x", content_fingerprint="f" * 64)
    with pytest.raises(StaleSnapshot, match="csft-seed0 holds those of"):
        evaluate.main(run, run / "evaluate", CONFIG)


def test_a_report_about_an_ablation_says_so(run):
    dataset = CtrDataset.open(run / "dataset")
    for seed in (0, 1):
        shutil.rmtree(run / "train" / f"mean-mim-seed{seed}")
        write_model(run, dataset, "mim", seed=seed, strength=2.0, **ABLATED)
    summary = Summary(evaluate.main(run, run / "evaluate", CONFIG))
    assert headline(summary).startswith("Content interest (Base+MIM w/o fusion interest) ")
    page = report.main(run, run / "report").read_text()
    assert "Base+MIM w/o fusion interest" in page
    assert '<th class="number">Base+MIM</th>' not in page


def test_models_of_other_tables_are_refused(run):
    dataset = CtrDataset.open(run / "dataset")
    write_model(run, dataset, "mim_plus", seed=0, strength=1.0, dataset_hash="f" * 64)
    with pytest.raises(RunError, match="mim_plus-seed0: it was trained on tables ffffffffffff"):
        evaluate.main(run, run / "evaluate", CONFIG)


def test_models_of_other_vectors_are_refused(run):
    # Mutant: the coverage of one encoder's vectors told beside the results of another's.
    dataset = CtrDataset.open(run / "dataset")
    write_model(run, dataset, "mim_plus", seed=0, strength=1.0, content_fingerprint="f" * 64)
    with pytest.raises(
        StaleSnapshot, match="mim_plus-seed0: it was trained on vectors of encoder ffffffffffff"
    ):
        evaluate.main(run, run / "evaluate", CONFIG)


def test_predictions_of_other_impressions_are_refused(run):
    path = run / "train/mean-mim-seed0/predictions.safetensors"
    save_tensors(path, {"row": torch.arange(5), "logit": torch.zeros(5)})
    with pytest.raises(RunError, match="mean-mim-seed0: it scored 5 impressions that are not the"):
        evaluate.main(run, run / "evaluate", CONFIG)


def test_a_run_without_models_is_refused(tmp_path, dataset_folder):
    (tmp_path / "dataset").symlink_to(dataset_folder)
    with pytest.raises(RunError, match="holds no trained model"):
        evaluate.main(tmp_path, tmp_path / "evaluate", CONFIG)


def test_more_age_sets_than_items_are_refused(run):
    with pytest.raises(DataError, match="cannot make 100 sets"):
        evaluate.main(run, run / "evaluate", CONFIG.model_copy(update={"num_age_sets": 100}))


def test_pictures_are_of_test_pairs_and_no_query_twice():
    pairs = pl.DataFrame(
        {
            "query": [1, 1, 2, 0, 0, 3],
            "query_item": [0, 0, 0, 7, 8, 0],
            "item": [5, 6, 5, 5, 5, 5],
            "kind": ["purchase"] * 6,
            "part": ["test", "test", "test", "test", "train", "validation"],
        }
    )
    chosen = choose_pairs(pairs, 10, seed=0)
    assert {(pair["query"], pair["query_item"]) for pair in chosen.to_dicts()} == {(1, 0), (2, 0), (0, 7)}
    assert choose_pairs(pairs, 2, seed=0).height == 2
    clicks = pairs.with_columns(
        kind=pl.when(pl.col("query") == 2).then(pl.lit("purchase")).otherwise(pl.lit("click"))
    )
    assert choose_pairs(clicks, 10, seed=0)["query"].to_list() == [2]
    held_out = choose_pairs(pairs.filter(pl.col("part") != "test"), 10, seed=0)
    assert held_out["query"].to_list() == [3]
    assert choose_pairs(pairs.filter(pl.col("part") == "train"), 10, seed=0).is_empty()
