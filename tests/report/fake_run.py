"""A made-up run folder with the shape of a real one: the numbers come from generated predictions, not from training."""

import itertools
from pathlib import Path

import numpy as np
from PIL import Image

from mimctr.evaluate.cohorts import age_slices, category_slices, history_slices, seen_slices, whole
from mimctr.evaluate.compare import Measurements, compare, measure_content_use
from mimctr.evaluate.results import (
    Coverage,
    Curve,
    DatasetFacts,
    Machine,
    ModelFacts,
    Part,
    PictureSheet,
    Results,
    Search,
    StageFacts,
    write_results,
)
from mimctr.evaluate.scoring import Predictions, TestPart, measure_reliability, score, split_off_one_class

CATEGORIES = ["Clothes", "Home Decoration", "Sports", "Toys", "FMCG", "Pets", "from $5 to $10"]
"""The last one has two dollar signs: matplotlib would read a formula between them."""
NUM_ITEMS, NUM_USERS, NUM_ROWS = 300, 150, 6000


def make_part() -> tuple[TestPart, np.ndarray, np.ndarray, list]:
    """A test part; the taste that makes its clicks; the age set of each target (0 newest)."""
    generator = np.random.default_rng(0)
    targets = generator.integers(2, NUM_ITEMS + 2, NUM_ROWS)
    users = generator.integers(2, NUM_USERS + 2, NUM_ROWS)
    taste = generator.normal(size=NUM_ROWS)
    probability = 1 / (1 + np.exp(1.5 - taste))
    clicks = generator.random(NUM_ROWS) < probability
    first_seen = np.arange(NUM_ITEMS + 2) * 3600
    categories = [None, None] + [CATEGORIES[item % 7] for item in range(NUM_ITEMS)]
    slices = (
        whole(NUM_ROWS)
        | age_slices(targets, first_seen)
        | seen_slices(targets, np.where(first_seen > 250 * 3600, 0, 5))
        | category_slices(targets, categories)
        | history_slices(generator.integers(0, 80, NUM_ROWS))
    )
    kept, skipped = split_off_one_class(slices, clicks)
    part = TestPart(
        dataset="made-up",
        clicks=clicks,
        users=users,
        queries=np.arange(NUM_ROWS) // 8 % 700,
        true_probability=probability,
        slices=kept,
    )
    age = 1 - (targets - 2) / NUM_ITEMS
    return part, taste, age, skipped


def make_results(
    *,
    ubms: tuple[str, ...] = ("mean", "din", "sim"),
    variants: tuple[str, ...] = ("base", "mim", "mim_plus", "mim_permuted", "untrained_cosine"),
    seeds: tuple[int, ...] = (0, 1),
    encoders: tuple[str, ...] = ("csft",),
    without: tuple[tuple[str, str, int], ...] = (),
    full: bool = True,
) -> Results:
    """Results with every part, or (``full`` False) with the optional parts empty; ``without`` models, by UBM, variant
    and seed."""
    part, taste, age, skipped = make_part()
    strength = {"base": 0.3 + 0.4 * age, "mim": 0.75, "mim_plus": 0.9, "mim_permuted": 0.3 + 0.4 * age}
    predictions = []
    for variant, (place, ubm), seed in itertools.product(variants, enumerate(ubms), seeds):
        if (ubm, variant, seed) in without or (variant == "untrained_cosine" and (place or seed)):
            continue
        for number, encoder in enumerate([None] if variant == "base" else encoders):
            generator = np.random.default_rng([len(variant), place, seed])
            if variant == "untrained_cosine":
                logits = 0.5 * taste + np.random.default_rng(9).normal(size=NUM_ROWS)
            else:
                noise = np.random.default_rng(place).normal(size=NUM_ROWS)
                noise = noise + 0.2 * generator.normal(size=NUM_ROWS) - 1.5
                logits = strength[variant] * taste + noise
            logits = logits + 0.1 * number * generator.normal(size=NUM_ROWS)
            shuffled = None if variant == "base" else (logits - 0.3 * taste).astype(np.float32)
            predictions.append(
                Predictions(
                    ubm=ubm,
                    variant=variant,
                    encoder=encoder,
                    seed=seed,
                    logits=logits.astype(np.float32),
                    probabilistic=variant != "untrained_cosine",
                    shuffled_logits=shuffled,
                )
            )
    models = [
        ModelFacts(
            ubm=model.ubm,
            variant=model.variant,
            seed=model.seed,
            encoder=model.encoder,
            folder="-".join(
                filter(None, [f"train/{model.ubm}", model.variant, model.encoder, f"seed{model.seed}"])
            ),
            config={"learning_rate": 0.005, "batch_size": 1024},
        )
        for model in predictions
    ]
    measured = Measurements(part, predictions, num_resamples=30, seed=0)
    return Results(
        dataset=DatasetFacts(
            name="made-up",
            num_items=NUM_ITEMS,
            num_users=NUM_USERS,
            num_behaviors=40_000,
            num_queries=500,
            num_pairs=2_345,
            pair_rule="image query and the item purchased within the same session",
            parts=[
                Part(
                    part=name,
                    start_time=1_700_000_000 + 86_400 * day,
                    end_time=1_700_000_000 + 86_400 * (day + 10),
                    num_impressions=NUM_ROWS,
                    num_clicks=1_234,
                    num_users=NUM_USERS,
                    num_items=NUM_ITEMS,
                )
                for day, name in [(0, "train"), (10, "validation"), (20, "test")]
            ],
        ),
        rows=score(part, predictions),
        comparisons=compare(measured),
        content_use=measure_content_use(measured) if full else [],
        reliability=measure_reliability(predictions, part.clicks) if full else [],
        skipped_slices=skipped,
        coverage=[
            Coverage(encoder="csft", of="test targets", known=5_900, total=6_000),
            Coverage(encoder="csft", of="test behaviors", known=117_000, total=120_000),
        ]
        if full
        else [],
        models=models,
        stages=_stages(models) if full else [],
        curves=_curves(models) if full else [],
        searches=[
            Search(
                encoder=encoder,
                part=part,
                metrics={
                    "recall@1": recall / 8,
                    "recall@10": recall,
                    "recall@100": 2 * recall,
                    "mrr": recall / 3,
                    "chance_recall@10": 0.0031,
                },
            )
            for encoder, part, recall in [
                ("plain", "validation", 0.06123),
                ("plain", "test", 0.0534),
                ("csft", "test", 0.31),
                ("csft", "test_before", 0.0891),
            ]
        ]
        if full
        else [],
        pictures=[
            PictureSheet(
                file=f"pictures/neighbors-{number:02d}.png",
                title=f"Held-out pair {number}",
                caption=f"Rank of the purchase among 298: before C-SFT {91 * number}, after C-SFT {3 * number}.",
            )
            for number in (1, 2)
        ]
        if full
        else [],
        settings={"num_resamples": 30},
        versions={"python": "3.11.7", "mimctr": "0.1.0", "torch": "2.13.0"},
        machine=Machine(system="Linux 6.1", processor="Made-up CPU", num_cores=2, memory_bytes=24 << 30),
    )


def _stages(models: list[ModelFacts]) -> list[StageFacts]:
    folders = [
        "dataset",
        "foundation",
        "plain",
        "pretrain",
        "csft",
        "embed/csft",
        *(m.folder for m in models),
    ]
    return [
        StageFacts(
            folder=folder,
            name=folder.split("/")[0],
            key=f"{number:064x}",
            config={"batch_size": 256, "device": "auto"},
            inputs={"dataset": f"{number:064x}"},
            versions={"mimctr": "0.1.0"},
            seconds=12.5 * (number + 1),
            peak_memory_bytes=(number + 1) << 28,
        )
        for number, folder in enumerate(folders)
    ]


def _curves(models: list[ModelFacts]) -> list[Curve]:
    generator = np.random.default_rng(0)
    steps = list(range(0, 2000, 50))
    fall = np.exp(-np.arange(40) / 10)

    def curve(folder: str, metric: str, values: np.ndarray) -> Curve:
        noisy = values + 0.01 * generator.normal(size=40)
        return Curve(folder=folder, metric=metric, steps=steps, values=noisy.tolist())

    curves = []
    for model in models:
        if model.variant == "untrained_cosine":
            continue
        top = 0.62 if model.variant == "base" else 0.66
        curves.append(curve(model.folder, "loss", 0.5 + 0.2 * fall))
        curves.append(curve(model.folder, "validation_auc", top - 0.1 * fall))
    curves.append(curve("csft", "loss", 2 + 3 * fall))
    curves.append(curve("csft", "recall@10", 0.4 - 0.3 * fall))
    curves.append(curve("csft", "chance_recall@10", np.full(40, 0.02)))
    curves.append(curve("csft", "negatives", 1000 * (1 - fall)))
    curves.append(curve("pretrain/dma", "loss", 1 + 3 * fall))
    curves.append(curve("pretrain/dma", "held_out_loss", 1.2 + 3 * fall))
    return curves


def make_run(folder: Path, results: Results) -> Path:
    """Write ``results`` and a picture file for each sheet as a run would."""
    write_results(folder / "evaluate" / "results.json", results)
    for place, sheet in enumerate(results.pictures):
        path = folder / "evaluate" / sheet.file
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (800, 300), (200, 40 * place, 90)).save(path)
    return folder
