"""Measure every trained model of a run on the test part: results.json, predictions and neighbor pictures beside it.

mimctr evaluate runs/demo --out runs/demo/evaluate
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
from jaxtyping import Int
from numpy import ndarray
from pydantic import BaseModel, Field, ValidationError
from torch import Tensor

from mimctr.batch import FIRST_INDEX
from mimctr.center.snapshot import read_manifest
from mimctr.data.checksums import verify_dataset
from mimctr.data.dataset import CtrDataset
from mimctr.data.split import PARTS
from mimctr.errors import RunError, StaleSnapshot, first_of
from mimctr.evaluate.cohorts import (
    age_slices,
    arrival_slices,
    category_slices,
    content_slices,
    history_slices,
    query_slices,
    seen_slices,
    support_slices,
    whole,
)
from mimctr.evaluate.compare import BASE, UNTRAINED, Measurements, compare, measure_content_use
from mimctr.evaluate.gather import gather_curves, gather_searches, gather_stages
from mimctr.evaluate.machine import describe_machine, describe_versions
from mimctr.evaluate.results import (
    Coverage,
    DatasetFacts,
    ModelFacts,
    Part,
    Results,
    SkippedSlice,
    write_results,
)
from mimctr.evaluate.scoring import (
    Predictions,
    TestPart,
    measure_reliability,
    refuse_unusable,
    score,
    split_off_one_class,
)
from mimctr.evaluate.variants import ablated, labeled
from mimctr.files import read_json
from mimctr.recipes.category_groups import CategoryGroups
from mimctr.recipes.embed import ITEMS, open_content
from mimctr.recipes.export import export_predictions
from mimctr.recipes.neighbors import draw_neighbors
from mimctr.ubm.content_interest import InterestName
from mimctr.weights import load_tensors

logger = logging.getLogger(__name__)

RESULTS = "results.json"
PREDICTIONS = "predictions.parquet"
MODEL_RECORD = "model.json"
INTERESTS = get_args(InterestName)


class Config(CategoryGroups):
    """Settings of ``mimctr evaluate``."""

    dataset_name: str = Field("", description="As shown in the report; empty takes the run folder's name.")
    models: tuple[str, ...] = Field(
        (), description="Folders below train that are evaluated; none named: all. A recipe names its own."
    )
    embeds: tuple[str, ...] | None = Field(
        None, description="Folders below embed whose coverage is counted; where not given, all."
    )
    num_resamples: int = Field(
        1000, ge=2, description="Resamples of users behind every interval; a byte of memory each and user."
    )
    resample_seed: int = Field(0, ge=0, description="Of the resamples; all models share them.")
    num_age_sets: int = Field(10, ge=2, description="Sets of items by age. Paper: 10 (Figure 6).")
    max_categories: int = Field(
        50,
        ge=1,
        description="Categories measured on their own, the largest; those of the two groups besides.",
    )
    num_pictures: int = Field(
        8, ge=0, description="Held-out pairs whose neighbors are drawn, chosen at random."
    )
    num_neighbors: int = Field(5, ge=1, description="Neighbors per encoder on a picture.")
    picture_seed: int = Field(0, ge=0, description="Of the choice of pairs.")


class ModelRecord(BaseModel):
    """What a trained model's folder says of itself, as far as the evaluation needs it (``model.json``)."""

    ubm: str
    variant: str
    encoder: str | None
    seed: int
    dataset_hash: str
    training_hash: str | None = None
    content_fingerprint: str | None = None
    config: dict


def main(run: Path, out: Path, config: Config) -> Results:
    """Write ``out/results.json``, ``out/predictions.parquet`` (docs/results-schema.md) and ``out/pictures``.

    Args:
        run: Run folder with ``dataset`` and ``train``; stage records, metrics, ``embed``, ``plain`` and ``csft`` are
            used where they are there.
        out: Created if missing.
        config: Settings.

    Raises:
        RunError: there is no trained model, one was trained on another test part, or a file of the dataset is damaged.
        StaleSnapshot: a model was trained on other vectors than those of the run.
    """
    verify_dataset(run / "dataset")
    dataset = CtrDataset.open(run / "dataset")
    name = config.dataset_name or run.resolve().name
    rows = np.array(dataset.rows("test"))
    part, skipped = read_test_part(dataset, rows, config, name=name)
    folders = model_folders(run / "train", config.models)
    _tell_left_out(run / "train", folders)
    models, predictions = read_models(run, folders, rows, dataset_hash=dataset.manifest.source_hash)
    logger.info("evaluate: %d models on %d impressions", len(models), len(rows))
    refuse_unusable(part, predictions)
    measured = Measurements(part, predictions, num_resamples=config.num_resamples, seed=config.resample_seed)
    results = Results(
        dataset=describe_dataset(dataset, name),
        rows=score(part, predictions),
        comparisons=compare(measured, by_category=config.contrast),
        content_use=measure_content_use(measured),
        reliability=measure_reliability(predictions, part.clicks),
        skipped_slices=skipped,
        coverage=measure_coverage(dataset, embed_folders(run, config.embeds), rows),
        models=models,
        stages=gather_stages(run),
        curves=gather_curves(run),
        searches=gather_searches(run),
        pictures=draw_neighbors(
            dataset,
            run,
            out,
            num_pictures=config.num_pictures,
            num_neighbors=config.num_neighbors,
            seed=config.picture_seed,
        ),
        settings=config.model_dump(mode="json"),
        versions=describe_versions(),
        machine=describe_machine(),
    )
    export_predictions(out / PREDICTIONS, dataset, rows, models, predictions)
    write_results(out / RESULTS, results)
    return results


def read_test_part(
    dataset: CtrDataset, rows: Int[ndarray, "rows"], config: Config, *, name: str
) -> tuple[TestPart, list[SkippedSlice]]:
    """Return labels, users and slices of the impressions ``rows``, and the slices that have one class only."""
    impressions = dataset.impressions
    targets, users, clicks = impressions.target[rows], impressions.user[rows], impressions.click[rows] == 1
    items = dataset.items
    first_seen = np.r_[np.zeros(FIRST_INDEX, dtype=np.int64), items["first_seen_time"].to_numpy()]
    categories = [None] * FIRST_INDEX + items["category"].to_list()
    queries = impressions.query[rows]
    pictured = np.r_[[False] * FIRST_INDEX, dataset.item_images.numbers >= 0]
    titled = np.r_[[False] * FIRST_INDEX, items["title"].is_not_null().to_numpy()]
    texts = np.array([False, *(text is not None for text in dataset.queries.texts)])
    images = np.r_[False, dataset.queries.images.numbers >= 0]
    slices = (
        whole(len(rows))
        | age_slices(targets, first_seen, num_sets=config.num_age_sets)
        | seen_slices(targets, dataset.item_train_counts)
        | support_slices(targets, dataset.item_train_counts)
        | arrival_slices(targets, first_seen, test_start=dataset.manifest.test_start)
        | category_slices(
            targets,
            categories,
            most=config.max_categories,
            besides=config.content_sensitive + config.less_sensitive,
        )
        | history_slices(impressions.end[rows] - dataset.behaviors.offsets[users])
        | query_slices(texts[queries], images[queries])
        | content_slices(targets, pictured, titled)
    )
    kept, skipped = split_off_one_class(slices, clicks)
    if "all" not in kept:
        raise RunError(
            f"{dataset.folder}: its test part has no clicks, or nothing else. Nothing can be ranked there."
        )
    truth = impressions.true_probability
    return (
        TestPart(
            dataset=name,
            clicks=clicks,
            users=users,
            queries=queries,
            true_probability=None if truth is None else truth[rows],
            slices=kept,
        ),
        skipped,
    )


def read_models(
    run: Path, folders: Sequence[Path], rows: Int[ndarray, "rows"], *, dataset_hash: str
) -> tuple[list[ModelFacts], list[Predictions]]:
    """Return the trained models in ``folders`` and their predictions of the impressions ``rows``.

    Raises:
        RunError: a record is damaged, or a model was trained on other tables or another split.
    """
    models, predictions = [], []
    for folder in folders:
        record = read_model_record(folder, dataset_hash=dataset_hash)
        encoder = None if record.encoder == "none" else record.encoder
        _refuse_other_vectors(folder, record, embed_folder(run, encoder or "", record.seed))
        tensors = read_predictions(folder, rows)
        model = ModelFacts(
            ubm=record.ubm,
            variant=variant_of(record),
            seed=record.seed,
            encoder=encoder,
            folder=folder.relative_to(run).as_posix(),
            config=record.config,
        )
        models.append(model)
        predictions.append(
            Predictions(
                ubm=model.ubm,
                variant=model.variant,
                seed=model.seed,
                encoder=encoder,
                logits=tensors["logit"].numpy(),
                probabilistic=model.variant != UNTRAINED,
                shuffled_logits=tensors["shuffled_logit"].numpy() if "shuffled_logit" in tensors else None,
            )
        )
    _warn_of_unshuffled(predictions)
    return models, predictions


def read_model_record(folder: Path, *, dataset_hash: str | None = None) -> ModelRecord:
    """Return what a trained model's folder says of itself.

    Args:
        folder: Written by ``mimctr train``.
        dataset_hash: Of the tables that it must have been trained on; None: any.

    Raises:
        RunError: there is no model, its record is damaged, or it was trained on other tables.
    """
    path = folder / MODEL_RECORD
    try:
        record = ModelRecord.model_validate(read_json(path))
    except ValidationError as error:
        raise RunError(f"{path}: not a model's record ({error}). Train it again.") from None
    if dataset_hash not in (None, record.dataset_hash):
        raise RunError(
            f"{folder}: it was trained on tables {record.dataset_hash[:12]}, the dataset was made from "
            f"{dataset_hash[:12]}. Train it again on this dataset."
        )
    return record


def read_predictions(folder: Path, rows: Int[ndarray, "rows"]) -> dict[str, Tensor]:
    """Return what a trained model said of the impressions ``rows``: ``logit``, with content also ``shuffled_logit``.

    Raises:
        RunError: there is nothing, or it is of other impressions.
    """
    tensors, _ = load_tensors(folder / "predictions.safetensors")
    if not np.array_equal(tensors["row"].numpy(), rows):
        raise RunError(
            f"{folder}: it scored {len(tensors['row']):,} impressions that are not the {len(rows):,} of this test "
            "part. Train it again on this dataset."
        )
    return tensors


def model_folders(train: Path, names: Sequence[str] = ()) -> list[Path]:
    """Return the folders that are evaluated, in the order of their names.

    Args:
        train: Holds a folder for each trained model.
        names: Those that are wanted; none named: all that hold a finished training.

    Raises:
        RunError: there is none, or one of ``names`` holds no finished training.
    """
    finished = [record.parent for record in sorted(train.glob(f"*/{MODEL_RECORD}"))]
    missing = sorted(set(names) - {folder.name for folder in finished})
    if missing:
        raise RunError(
            f"{train}: holds no finished training in {', '.join(missing)}. Finish it with 'mimctr train' first."
        )
    if not finished:
        unfinished = _unfinished(train)
        found = f", but {unfinished}. Finish them with" if unfinished else ". Run"
        raise RunError(f"{train}: holds no trained model{found} 'mimctr train' first.")
    return [folder for folder in finished if not names or folder.name in names]


def _tell_left_out(train: Path, folders: Sequence[Path]) -> None:
    """Warn of the folders that are not evaluated."""
    unfinished = _unfinished(train)
    if unfinished:
        logger.warning("%s: left out %s. Finish them with 'mimctr train', or remove them.", train, unfinished)
    others = sorted({record.parent for record in train.glob(f"*/{MODEL_RECORD}")} - set(folders))
    if others:
        named = first_of([folder.name for folder in others])
        logger.warning("%s: left out %d models that the recipe does not name: %s.", train, len(others), named)


def _unfinished(train: Path) -> str:
    """Return which folders hold no finished training, for people; nothing where all do."""
    there = sorted(train.glob("[!.]*/"))
    names = [folder.name for folder in there if not (folder / MODEL_RECORD).exists()]
    told = f"{len(names)} of {len(there)} folders without {MODEL_RECORD}, which a training writes last: "
    return told + ", ".join(names) if names else ""


def variant_of(record: ModelRecord) -> str:
    """Return a model's variant, named by the interests that it lacks and by its label."""
    if record.variant in (BASE, UNTRAINED):
        return record.variant
    kept = record.config.get("interests", INTERESTS)
    variant = ablated(record.variant, [name for name in INTERESTS if name not in kept])
    return labeled(variant, record.config.get("label", ""))


def _refuse_other_vectors(model: Path, record: ModelRecord, embedded: Path) -> None:
    """See to it that the run's vectors, whose coverage is reported, are those that the model was trained on.

    Raises:
        StaleSnapshot: they came from another encoder.
    """
    trained_on = record.content_fingerprint
    if trained_on is None or not (embedded / ITEMS).is_dir():
        return
    found = read_manifest(embedded / ITEMS).fingerprint
    if found != trained_on:
        raise StaleSnapshot(
            f"{model}: it was trained on vectors of encoder {trained_on[:12]}, {embedded} holds those of {found[:12]}. "
            "Train it again on these, or run 'mimctr embed' with that encoder."
        )


def _warn_of_unshuffled(predictions: list[Predictions]) -> None:
    missing = [model for model in predictions if model.encoder is not None and model.shuffled_logits is None]
    if missing:
        logger.warning(
            "evaluate: %d of %d models with content were trained before mimctr scored shuffled vectors, so nothing is "
            "said of whether they use them. Train them again for that.",
            len(missing),
            sum(model.encoder is not None for model in predictions),
        )


def describe_dataset(dataset: CtrDataset, name: str) -> DatasetFacts:
    """Return sizes, boundaries and the pair rule."""
    manifest, impressions = dataset.manifest, dataset.impressions
    bounds = [manifest.train_start, manifest.validation_start, manifest.test_start, manifest.test_end]
    parts = []
    for number, part in enumerate(PARTS):
        rows = dataset.rows(part)
        span = slice(rows.start, rows.stop)
        parts.append(
            Part(
                part=part,
                start_time=bounds[number],
                end_time=bounds[number + 1],
                num_impressions=len(rows),
                num_clicks=int(np.count_nonzero(impressions.click[span])),
                num_users=len(np.unique(impressions.user[span])),
                num_items=len(np.unique(impressions.target[span])),
            )
        )
    return DatasetFacts(
        name=name,
        num_items=dataset.num_items,
        num_users=dataset.num_users,
        num_behaviors=len(dataset.behaviors),
        num_queries=len(dataset.queries),
        num_pairs=dataset.pairs.height,
        pair_rule=manifest.pair_rule,
        parts=parts,
    )


def embed_folder(run: Path, encoder: str, seed: int) -> Path:
    """Return where an encoder's vectors are: in a folder of its name, or in one for each seed of its training."""
    of_seed = run / "embed" / f"{encoder}-seed{seed}"
    return of_seed if of_seed.is_dir() else run / "embed" / encoder


def embed_folders(run: Path, names: Sequence[str] | None = None) -> list[Path]:
    """Return the folders of vectors below a run, in order; those named, or all for None."""
    return sorted(
        path for path in (run / "embed").glob("*") if path.is_dir() and (names is None or path.name in names)
    )


def measure_coverage(
    dataset: CtrDataset, folders: Sequence[Path], rows: Int[ndarray, "rows"]
) -> list[Coverage]:
    """Return, per folder of vectors, the share of targets, behaviors and query images with a vector."""
    impressions, behaviors = dataset.impressions, dataset.behaviors
    images = np.r_[False, dataset.queries.images.numbers >= 0]
    queries = impressions.query[rows]
    start, end = behaviors.offsets[impressions.user[rows]], impressions.end[rows]
    found = []
    for folder in folders:
        table = open_content(dataset, folder)
        known = table.item_rows >= 0
        before = np.r_[0, np.cumsum(known[behaviors.item])]
        asked = images[queries]
        counts = {
            "catalogue items": (int(known.sum()), dataset.num_items),
            "test targets": (int(known[impressions.target[rows]].sum()), len(rows)),
            "test behaviors": (int((before[end] - before[start]).sum()), int((end - start).sum())),
            "test query images": (int((table.query_rows[queries[asked]] >= 0).sum()), int(asked.sum())),
        }
        found += [
            Coverage(encoder=folder.name, of=of, known=number, total=total)
            for of, (number, total) in counts.items()
            if total
        ]
    return found
