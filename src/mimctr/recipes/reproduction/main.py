"""Run the paper's evaluation on a dataset, as far as time allows, and write it down."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from mimctr.distributed import from_main, is_main
from mimctr.errors import ConfigError, RunError
from mimctr.evaluate.paper.schema import Reproduction, write_reproduction
from mimctr.recipes import sources, stages
from mimctr.recipes.pace import Pace
from mimctr.recipes.reproduction import report
from mimctr.recipes.reproduction.assemble import assemble, read_peers_of
from mimctr.recipes.reproduction.forecast import seconds_after
from mimctr.recipes.reproduction.recipe import EXPERIMENTS, Recipe
from mimctr.recipes.reproduction.steps import Reproduction as Planning
from mimctr.recipes.workers import at_a_time
from mimctr.train.stage import Stage


class Finished(NamedTuple):
    """A reproduction, and where it is."""

    reproduction: Reproduction
    results: Path
    page: Path


def plan(recipe: Recipe, out: Path, wanted: Sequence[str], *, replace: bool = True) -> Planning:
    """Return the plan of the experiments ``wanted``; raw tables and dataset are made for it.

    Args:
        recipe: Settings.
        out: Run folder.
        wanted: Names of experiments; none named: all.
        replace: Make raw tables and dataset anew where they are of other settings.

    Raises:
        ConfigError: there is no such experiment, or a context field tells where an item stood.
        RunError: C-SFT has nothing to train on, or nothing may be replaced and something would be.
        DataError: a part is too small, or what other libraries reached is unreadable or of other data.
    """
    unknown = [name for name in wanted if name not in EXPERIMENTS]
    if unknown:
        raise ConfigError(f"{unknown[0]}: no such experiment. There are {', '.join(EXPERIMENTS)}.")
    tables = sources.tables_folder(recipe.source, out / "tables")
    if not isinstance(recipe.source, sources.Tables):
        _make(sources.stage(recipe.source, tables), replace=replace)
    _make(stages.prepare(tables, out / "dataset", recipe.prepare), replace=replace)
    read_peers_of(out)  # refused now, not after hours
    asked = [name for name in EXPERIMENTS if name in wanted or not wanted]
    workers = at_a_time(recipe.num_workers, [recipe.train.device])
    return Planning(recipe, out, tables=tables, wanted=asked, num_workers=workers)


def _make(stage: Stage, *, replace: bool) -> None:
    """Make what a plan is made from.

    Raises:
        RunError: something else is in its place, and may not be replaced.
    """
    other = None if replace else from_main(stage.replaces)
    if other is not None:
        raise RunError(
            f"{stage.out}: {other}, and --plan replaces nothing. Leave out --plan to make it anew, or choose another "
            "folder."
        )
    stage.run()


def main(planning: Planning, *, seconds: float | None, command: str) -> Finished:
    """Make what there is time for, and write ``reproduction.json`` and the report.

    Args:
        planning: From :func:`plan`.
        seconds: That all may take; None: any. The evaluation of what is made has its part of it.
        command: That the result says goes on.
    """
    pace = Pace()
    reasons = planning.plan.run(pace, seconds=seconds, after=partial(seconds_after, planning, pace))
    reproduction = assemble(planning, reasons, command=command)
    if is_main():
        write_reproduction(planning.out / report.JSON, reproduction)
        report.main(planning.out)
    return Finished(reproduction, planning.out / report.JSON, planning.out / report.PAGE)
