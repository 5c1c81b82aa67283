"""What a reproduction will do, and what of it fits into a time, before it does it."""

from functools import partial
from pathlib import Path
from typing import NamedTuple

from rich.box import SIMPLE_HEAD
from rich.table import Table

from mimctr.evaluate.written import duration
from mimctr.recipes.pace import Pace
from mimctr.recipes.plan import added_seconds, fitting
from mimctr.recipes.reproduction.recipe import EXPERIMENTS
from mimctr.recipes.reproduction.steps import Reproduction
from mimctr.report.table import plain_text


class Forecast(NamedTuple):
    """What is left to do for an experiment."""

    experiment: str
    about: str
    num_steps: int
    num_made: int
    seconds: float
    """That its steps should still take; steps that serve several are counted for the first."""
    num_without_time: int


EVALUATE = "evaluate"
"""Kind of what comes after all steps: every model is evaluated for its tables, whatever was made before."""


def evaluation_seconds(planning: Reproduction, pace: Pace) -> float:
    """Return how long the evaluation of all models should take."""
    return sum(seconds_after(planning, pace, step.folder) for step in planning.plan)


def seconds_after(planning: Reproduction, pace: Pace, folder: Path) -> float:
    """Return how long the evaluation of what a step makes should take: none of what is no model."""
    num_scores = planning.num_scores(folder)
    return pace.seconds(EVALUATE, num_scores) if num_scores else 0.0


def forecast(planning: Reproduction, pace: Pace, seconds: float | None) -> list[Forecast]:
    """Return, for every experiment, what is left to do and whether there is time for it.

    Args:
        planning: The plan.
        pace: How long steps should take; learns from those that are made.
        seconds: That all may take, evaluation included; None: any.
    """
    made = planning.plan.made()
    planning.plan.learn(pace, made)
    left = planning.plan.left(pace)
    after = partial(seconds_after, planning, pace)
    for_steps = None if seconds is None else seconds - sum(map(after, made))
    without_time = fitting(left, for_steps, num_workers=planning.plan.num_workers, after=after)
    added = added_seconds(left, planning.plan.num_workers)
    found = []
    for experiment in planning.wanted:
        own = [step for step in planning.plan if experiment in planning.plan.serves(step.folder)]
        found.append(
            Forecast(
                experiment,
                EXPERIMENTS[experiment],
                len(own),
                sum(step.folder in made for step in own),
                sum(added.pop(step.folder, 0.0) for step in own),
                sum(step.folder in without_time for step in own),
            )
        )
    return found


def forecast_table(found: list[Forecast], evaluation: float) -> str:
    """Return a forecast as plain text, a line an experiment.

    Args:
        found: Of the experiments.
        evaluation: Seconds that comes after all of them.
    """
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("experiment", "what"):
        table.add_column(name, no_wrap=True)
    for name in ("steps", "made", "time left", "without time"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in found:
        left = duration(one.seconds) if one.seconds else ""
        cut = str(one.num_without_time) if one.num_without_time else ""
        table.add_row(one.experiment, one.about, str(one.num_steps), str(one.num_made), left, cut)
    if evaluation:
        table.add_row("evaluation", "of all models", "", "", duration(evaluation), "")
    table.add_section()
    table.add_row("all", "", "", "", duration(sum(one.seconds for one in found) + evaluation), "")
    return plain_text(table)
