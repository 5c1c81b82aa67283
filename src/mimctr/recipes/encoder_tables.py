"""The paper's Tables 3, 4 and 5, as far as they are about encoders: every row an item encoder, judged by visual search.

A row is a chain of stages (towers, plain geometry or C-SFT, search), each made once and kept when unchanged. Seeds vary
pre-training and C-SFT; data and foundation models stay.
"""

import itertools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from mimctr.data.dataset import CtrDataset
from mimctr.distributed import is_main
from mimctr.encoders.registry import find
from mimctr.errors import RunError
from mimctr.evaluate.encoder_results import EncoderResults, RowResult, write_encoder_results
from mimctr.evaluate.searches import Searched, measure
from mimctr.files import atomic_path
from mimctr.recipes import search as search_recipe
from mimctr.recipes import sources, stages
from mimctr.recipes.encoder_plan import EncoderPlan, best_evaluation
from mimctr.recipes.encoder_recipe import Entry, Recipe, entries, made_with
from mimctr.recipes.encoder_rows import MIM
from mimctr.recipes.pace import Pace
from mimctr.recipes.plan import Plan
from mimctr.recipes.visual_search import pair_table
from mimctr.report.encoder_tables import encoder_tables_markdown
from mimctr.train.stage import read_record
from mimctr.weights import load_tensors

__all__ = ["Recipe", "main"]

logger = logging.getLogger(__name__)

NO_WEIGHTS = "no weights"
JSON, MARKDOWN = "encoder_tables.json", "encoder_tables.md"


class Finished(NamedTuple):
    """Where finished tables are."""

    tables: str
    results: Path
    markdown: Path


def main(recipe: Recipe, out: Path) -> Finished:
    """Make every row's encoder in ``out``, with every seed; write ``encoder_tables.json`` and ``encoder_tables.md``.

    What is unchanged is kept, what was interrupted resumed. A row whose weights are not at hand, or of whose kind there
    is no pair, is not run, and says so.

    Raises:
        RunError: no row can be run.
    """
    dataset = out / "dataset"
    tables = sources.make_tables(recipe.source, out / "tables")
    stages.prepare(tables, dataset, recipe.prepare).run()
    wanted = list(entries(recipe, out))
    reasons = {entry.name: reason_not_to_run(entry, recipe, dataset) for entry in wanted}
    run = [entry for entry in wanted if reasons[entry.name] is None]
    if not run:
        raise RunError(f"{dataset}: {reasons[wanted[0].name]}, so no row can be run.")
    plan = Plan()
    num_items = CtrDataset.open(dataset).num_items
    steps = EncoderPlan(plan, recipe, dataset=dataset, tables=tables, num_items=num_items)
    for seed, entry in itertools.product(recipe.seeds, run):
        steps.search(entry, seed)
    plan.run(Pace())
    searched = {
        entry.name: [read_searched(entry.search(made_with(entry, seed, recipe))) for seed in recipe.seeds]
        for entry in run
    }
    results = EncoderResults(
        dataset=recipe.name,
        seeds=recipe.seeds,
        num_resamples=recipe.num_resamples,
        rows=[row_result(entry, recipe, reasons[entry.name], seeds=recipe.seeds) for entry in wanted],
        measures=measure(searched, base="plain", best=MIM, num_resamples=recipe.num_resamples),
    )
    text = encoder_tables_markdown(results)
    if is_main():
        write_encoder_results(out / JSON, results)
        with atomic_path(out / MARKDOWN) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return Finished(text, out / JSON, out / MARKDOWN)


def reason_not_to_run(entry: Entry, recipe: Recipe, dataset: Path) -> str | None:
    """Return why a row cannot be made and judged; None where it can.

    Weights are not at hand, or there are no pairs of the kind that it is trained on, or of those that are searched for.
    """
    weights = (entry.foundation.image_weights, entry.foundation.text_weights)
    if not all(given is None or at_hand(given) for given in weights):
        return NO_WEIGHTS
    kinds = (entry.row.csft or {}).get("pair_kinds", recipe.csft.pair_kinds)
    data = CtrDataset.open(dataset)
    if entry.row.csft is not None and any(
        pair_table(data, part, kinds).is_empty() for part in ("train", "validation")
    ):
        return f"no pairs of kind {', '.join(kinds)}"
    for part in search_recipe.PARTS:
        if pair_table(data, part, recipe.search.pair_kinds).is_empty():
            kinds = recipe.search.pair_kinds or ["any"]
            return f"no pairs of kind {', '.join(kinds)} to search for in the {part} part"
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


def row_result(entry: Entry, recipe: Recipe, not_run: str | None, *, seeds: Sequence[int]) -> RowResult:
    """Return what a row is, what the grid chose for it and which steps of C-SFT were kept with each seed."""
    row = entry.row
    chosen, steps = {}, []
    if row.csft is not None and not_run is None:
        folders = [entry.encoder(seed) for seed in seeds]
        chosen = {name: read_record(folders[0]).config[name] for name in recipe.grid}
        steps = [best_evaluation(folder, recipe.csft.metric)[0] for folder in folders]
    return RowResult(name=entry.name, labels=entry.labels, not_run=not_run, chosen=chosen, kept_steps=steps)


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
