"""The paper's Tables 3, 4 and 5, as far as they are about encoders: every row an item encoder, judged by visual search.

A row is a chain of stages (towers, plain geometry or C-SFT, search), each made once and kept when unchanged. Seeds vary
pre-training and C-SFT; data and foundation models stay.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, model_validator

from mimctr.data.dataset import CtrDataset
from mimctr.distributed import is_main
from mimctr.encoders.registry import find
from mimctr.evaluate.encoder_results import EncoderResults, RowResult, write_encoder_results
from mimctr.evaluate.searches import Searched, measure
from mimctr.files import atomic_path
from mimctr.recipes import csft as csft_recipe
from mimctr.recipes import foundation as foundation_recipe
from mimctr.recipes import plain as plain_recipe
from mimctr.recipes import prepare as prepare_recipe
from mimctr.recipes import pretrain as pretrain_recipe
from mimctr.recipes import random_towers, sources, stages
from mimctr.recipes import search as search_recipe
from mimctr.recipes.encoder_rows import AFTER_DMA, MIM, ROWS, Row
from mimctr.recipes.grid import grid_points, keep_best
from mimctr.recipes.item_config import ItemConfig
from mimctr.recipes.visual_search import pair_table
from mimctr.report.encoder_tables import encoder_tables_markdown
from mimctr.train.run import Run
from mimctr.train.stage import read_record
from mimctr.weights import load_tensors

logger = logging.getLogger(__name__)

NO_WEIGHTS = "no weights"
JSON, MARKDOWN = "encoder_tables.json", "encoder_tables.md"


class Recipe(BaseModel):
    """The encoder tables of one dataset, as read from a TOML file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="Of the dataset, as shown in the tables.")
    source: sources.Source
    prepare: prepare_recipe.Config = prepare_recipe.Config()
    foundation: foundation_recipe.Config = foundation_recipe.Config()
    others: dict[str, foundation_recipe.Config] = Field(
        {}, description="Further foundation models by name: each three rows more, plain, after DMA and MIM."
    )
    pretrain: pretrain_recipe.Config = pretrain_recipe.Config()
    csft: csft_recipe.Config = Field(
        csft_recipe.Config(), description="Of MIM; its plain geometry is every row's."
    )
    search: search_recipe.Config = search_recipe.Config()
    seeds: list[NonNegativeInt] = Field([0, 1, 2], min_length=1, description="Of pre-training and C-SFT.")
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(
        {},
        description="Settings of [csft] with the values to try. Every row with C-SFT takes what is best on validation "
        "with the first seed.",
    )
    num_resamples: int = Field(1000, ge=0, description="Bootstrap resamples of users.")

    @model_validator(mode="after")
    def _rows_suit(self) -> "Recipe":
        for row in ROWS:
            csft_points(self, row)
        return self


class Entry(NamedTuple):
    """A row with the foundation models that it starts from."""

    name: str
    labels: dict[int, str]
    """What it is called in each table of the paper that it stands in."""
    row: Row
    foundation: foundation_recipe.Config
    folder: Path
    """Holds everything made from these foundation models."""


class Finished(NamedTuple):
    """Where finished tables are."""

    tables: str
    results: Path
    markdown: Path


def main(recipe: Recipe, out: Path) -> Finished:
    """Make every row's encoder in ``out``, with every seed; write ``encoder_tables.json`` and ``encoder_tables.md``.

    What is unchanged is kept, what was interrupted resumed. A row whose weights are not at hand, or of whose kind there
    is no pair, is not run, and says so.
    """
    dataset = out / "dataset"
    tables = sources.tables_folder(recipe.source, out / "tables")
    stages.prepare(tables, dataset, recipe.prepare)
    wanted = list(entries(recipe, out))
    reasons = {entry.name: reason_not_to_run(entry, recipe, dataset) for entry in wanted}
    run = [entry for entry in wanted if reasons[entry.name] is None]
    for seed in recipe.seeds:
        for entry in run:
            make_row(entry, seed, recipe, dataset=dataset, tables=tables)
    searched = {
        entry.name: [read_searched(search_folder(entry, seed, recipe)) for seed in recipe.seeds]
        for entry in run
    }
    results = EncoderResults(
        dataset=recipe.name,
        seeds=recipe.seeds,
        num_resamples=recipe.num_resamples,
        rows=[row_result(entry, recipe, reasons[entry.name]) for entry in wanted],
        measures=measure(searched, base="plain", best=MIM, num_resamples=recipe.num_resamples),
    )
    text = encoder_tables_markdown(results)
    if is_main():
        write_encoder_results(out / JSON, results)
        with atomic_path(out / MARKDOWN) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return Finished(text, out / JSON, out / MARKDOWN)


def entries(recipe: Recipe, out: Path) -> Iterator[Entry]:
    """Yield every row, then the rows of the other foundation models."""
    for row in ROWS:
        yield Entry(row.name, row.labels, row, recipe.foundation, out)
    for name, foundation in recipe.others.items():
        for row in ROWS:
            if row.name in ("plain", AFTER_DMA, MIM):
                labels = {3: f"{row.labels[3]}, {name}"}
                yield Entry(f"{row.name}, {name}", labels, row, foundation, out / "others" / name)


def csft_points(recipe: Recipe, row: Row) -> list[csft_recipe.Config]:
    """Return the settings of C-SFT that a row tries; none where it has no C-SFT."""
    if row.csft is None:
        return []
    config = csft_recipe.Config.model_validate(recipe.csft.model_dump() | row.csft)
    decided = {name for other in ROWS for name in other.csft or {}} | {"seed"}
    return grid_points(recipe.grid, config, decided=decided, where="grid")


def reason_not_to_run(entry: Entry, recipe: Recipe, dataset: Path) -> str | None:
    """Return why a row cannot be made: weights that are not at hand, or no pairs of its kind; None where it can."""
    weights = (entry.foundation.image_weights, entry.foundation.text_weights)
    if not all(given is None or at_hand(given) for given in weights):
        return NO_WEIGHTS
    kinds = (entry.row.csft or {}).get("pair_kinds", recipe.csft.pair_kinds)
    if entry.row.csft is not None:
        data = CtrDataset.open(dataset)
        if any(pair_table(data, part, kinds).is_empty() for part in ("train", "validation")):
            return f"no pairs of kind {', '.join(kinds)}"
    return None


def at_hand(weights: Path) -> bool:
    """Return whether given weights are on this machine: a folder, or in the hub's cache."""
    row = find(weights)
    if row is not None:
        return row.is_here()
    if weights.is_dir():
        return True
    try:
        return isinstance(try_to_load_from_cache(str(weights), "config.json"), str)
    except HFValidationError:  # a path to nowhere, which is no hub name either
        return False


def make_row(entry: Entry, seed: int, recipe: Recipe, *, dataset: Path, tables: Path) -> None:
    """Make one row's item encoder with one seed, and search with it; a fixed row only with the first seed."""
    row, first = entry.row, recipe.seeds[0]
    if row.fixed and seed != first:
        return
    logger.info("row %s, seed %d", entry.name, seed)
    at = entry.folder / f"seed{seed}"
    towers = make_towers(entry, seed, recipe, dataset=dataset, tables=tables)
    if row.csft is None:
        stages.plain(dataset, towers, at / row.name, plain_config(recipe.csft, seed))
    else:
        points = [_seeded(point, first) for point in csft_points(recipe, row)]
        tune = entry.folder / "tune" / row.name
        for number, point in enumerate(points if len(points) > 1 else []):
            stages.csft(dataset, csft_start(entry, first, recipe), tune / str(number), point)
        tuned = keep_best(
            points,
            recipe.grid,
            judge=lambda made: best_evaluation(made, recipe.csft.metric)[1],
            tune=tune,
            chosen=entry.folder / f"seed{first}" / row.name,
        )
        stages.csft(dataset, csft_start(entry, seed, recipe), at / row.name, _seeded(tuned, seed))
    stages.search(dataset, at / row.name, search_folder(entry, seed, recipe), recipe.search)


def search_folder(entry: Entry, seed: int, recipe: Recipe) -> Path:
    """Return where a row's search with a seed is; a fixed row's first search stands for all seeds."""
    return entry.folder / f"seed{recipe.seeds[0] if entry.row.fixed else seed}" / "search" / entry.row.name


def csft_start(entry: Entry, seed: int, recipe: Recipe) -> Path:
    """Return the encoders that C-SFT starts from: the towers, or the plain encoder that kept what they say."""
    at = entry.folder / f"seed{seed}"
    return at / AFTER_DMA if recipe.csft.keep_vectors else at / "towers" / entry.row.towers


def make_towers(entry: Entry, seed: int, recipe: Recipe, *, dataset: Path, tables: Path) -> Path:
    """Make the towers that a row starts from; return their folder. DMA goes on from DDA's result."""
    config, plain = entry.foundation, entry.folder / "foundation"
    stages.foundation(tables / "corpus" if config.needs_corpus else None, plain, config)
    at = entry.folder / f"seed{seed}" / "towers"
    if entry.row.towers == "random":
        stages.random_towers(plain, at / "random", random_towers.Config(seed=seed))
    if entry.row.towers in ("dda", "dma"):
        adapted = recipe.pretrain.model_copy(update={"alignment": False, "seed": seed})
        stages.pretrain(dataset, plain, at / "dda", adapted)
    if entry.row.towers == "dma":
        off = {"masked_image": False, "language": False}
        stages.pretrain(
            dataset, at / "dda", at / "dma", recipe.pretrain.model_copy(update={**off, "seed": seed})
        )
    return plain if entry.row.towers == "foundation" else at / entry.row.towers


def plain_config(csft: csft_recipe.Config, seed: int) -> plain_recipe.Config:
    """Return the settings of the plain geometry that C-SFT starts from."""
    shared = {name: getattr(csft, name) for name in ItemConfig.model_fields}
    return plain_recipe.Config.model_validate(shared | {"seed": seed})


def row_result(entry: Entry, recipe: Recipe, not_run: str | None) -> RowResult:
    """Return what a row is, what the grid chose for it and which steps of C-SFT were kept."""
    row = entry.row
    chosen, steps = {}, []
    if row.csft is not None and not_run is None:
        folders = [entry.folder / f"seed{seed}" / row.name for seed in recipe.seeds]
        chosen = {name: read_record(folders[0]).config[name] for name in recipe.grid}
        steps = [best_evaluation(folder, recipe.csft.metric)[0] for folder in folders]
    return RowResult(name=entry.name, labels=entry.labels, not_run=not_run, chosen=chosen, kept_steps=steps)


def best_evaluation(made: Path, metric: str) -> tuple[int, float]:
    """Return the step and the metric of the best evaluation of a C-SFT, whose weights it kept."""
    evaluations = [line for line in Run(made).metrics() if metric in line]
    best = max(evaluations, key=lambda line: line[metric])
    return int(best["step"]), best[metric]


def read_searched(folder: Path) -> dict[str, Searched]:
    """Return what :mod:`mimctr.recipes.search` wrote, by part."""
    tensors = {name: tensor.numpy() for name, tensor in load_tensors(folder / search_recipe.RANKS)[0].items()}
    found: dict[str, Searched] = {}
    for part in search_recipe.PARTS:
        inside = f"{part}.in."
        slices = {
            name.removeprefix(inside): mask for name, mask in tensors.items() if name.startswith(inside)
        }
        fields = {name: tensors[f"{part}.{name}"] for name in Searched._fields if name != "slices"}
        found[part] = Searched(**fields, slices=slices)
    return found


def _seeded(config: csft_recipe.Config, seed: int) -> csft_recipe.Config:
    return config.model_copy(update={"seed": seed})
