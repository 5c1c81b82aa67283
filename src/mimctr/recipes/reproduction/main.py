"""Run the paper's evaluation on a dataset, as far as time allows, and write it down."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mimctr.distributed import is_main
from mimctr.errors import ConfigError
from mimctr.evaluate.paper.schema import Reproduction, write_reproduction
from mimctr.recipes import sources, stages
from mimctr.recipes.pace import Pace
from mimctr.recipes.reproduction import report
from mimctr.recipes.reproduction.assemble import assemble, read_peers_of
from mimctr.recipes.reproduction.recipe import EXPERIMENTS, Recipe
from mimctr.recipes.reproduction.steps import Reproduction as Planning
from mimctr.recipes.workers import at_a_time


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
        DataError: what other libraries reached is unreadable, or of other data.
    """
    unknown = [name for name in wanted if name not in EXPERIMENTS]
    if unknown:
        raise ConfigError(f"{unknown[0]}: no such experiment. There are {', '.join(EXPERIMENTS)}.")
    tables = sources.make_tables(recipe.source, out / "tables")
    stages.prepare(tables, out / "dataset", recipe.prepare).run()
    read_peers_of(out)  # refused now, not after hours
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
        write_reproduction(planning.out / report.JSON, reproduction)
        report.main(planning.out)
    return Finished(reproduction, planning.out / report.JSON, planning.out / report.PAGE)
