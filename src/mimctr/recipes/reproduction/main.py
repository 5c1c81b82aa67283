"""Run the paper's evaluation on a dataset, as far as time allows, and write it down."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mimctr.distributed import is_main
from mimctr.errors import ConfigError
from mimctr.evaluate.paper.schema import Reproduction, write_reproduction
from mimctr.files import atomic_path
from mimctr.recipes import sources, stages
from mimctr.recipes.pace import Pace
from mimctr.recipes.reproduction.assemble import assemble
from mimctr.recipes.reproduction.recipe import EXPERIMENTS, Recipe
from mimctr.recipes.reproduction.steps import Reproduction as Planning
from mimctr.recipes.workers import at_a_time
from mimctr.report.reproduction_page import anchor, render_reproduction
from mimctr.report.reproduction_plots import draw
from mimctr.report.reproduction_text import reproduction_markdown

JSON, PAGE, MARKDOWN, FIGURES = "reproduction.json", "reproduction.html", "reproduction.md", "figures"


class Finished(NamedTuple):
    """A reproduction, and where it is."""

    reproduction: Reproduction
    results: Path
    page: Path


def plan(recipe: Recipe, out: Path, wanted: Sequence[str]) -> Planning:
    """Return the plan of the experiments ``wanted``; raw tables and dataset are made for it.

    Raises:
        ConfigError: there is no such experiment.
        RunError: C-SFT has nothing to train on.
    """
    unknown = [name for name in wanted if name not in EXPERIMENTS]
    if unknown:
        raise ConfigError(f"{unknown[0]}: no such experiment. There are {', '.join(EXPERIMENTS)}.")
    tables = sources.make_tables(recipe.source, out / "tables")
    stages.prepare(tables, out / "dataset", recipe.prepare).run()
    asked = [name for name in EXPERIMENTS if name in wanted or not wanted]
    workers = at_a_time(recipe.num_workers, [recipe.train.device])
    return Planning(recipe, out, tables=tables, wanted=asked, num_workers=workers)


def main(planning: Planning, *, seconds: float | None, command: str) -> Finished:
    """Make what there is time for, and write ``reproduction.json`` and the report.

    Args:
        planning: From :func:`plan`.
        seconds: That the steps may take; None: any. Evaluation comes on top.
        command: That the result says goes on.
    """
    reasons = planning.plan.run(Pace(), seconds=seconds)
    reproduction = assemble(planning, reasons, command=command)
    if is_main():
        write_reproduction(planning.out / JSON, reproduction)
        report(planning.out, reproduction)
    return Finished(reproduction, planning.out / JSON, planning.out / PAGE)


def report(out: Path, reproduction: Reproduction) -> None:
    """Write page, Markdown and figures beside ``reproduction.json``."""
    texts = {
        PAGE: render_reproduction(reproduction, out),
        MARKDOWN: reproduction_markdown(reproduction, figures=FIGURES),
    }
    for name, text in texts.items():
        with atomic_path(out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    for figure in reproduction.figures:
        drawing = draw(figure)
        for ending in ("svg", "png"):
            with atomic_path(out / FIGURES / f"{anchor(figure.key)}.{ending}") as temporary:
                drawing.savefig(temporary, format=ending, dpi=160, facecolor="white")
