"""mimctr reproduce: the paper's tables and figures on a dataset."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mimctr.cli.options import Json, Settings

if TYPE_CHECKING:
    from mimctr.recipes.reproduction.main import Finished

NAME = "reproduce"
EXAMPLES = (
    "Example: mimctr reproduce recipes/reproduce_bazaar.toml --out runs/paper --budget 120; "
    "mimctr reproduce recipes/reproduce_bazaar.toml --out runs/quick --quick; "
    "mimctr reproduce recipes/reproduce_fashion.toml --out runs/fashion --table 2 --figure 6 --plan"
)


def command(
    recipe: Annotated[Path, typer.Argument(help="a recipe (TOML), see recipes/reproduce_*.toml")],
    out: Annotated[Path, typer.Option(help="run folder; run again to go on or to redo only what changed")],
    table: Annotated[list[int] | None, typer.Option(help="a table of the paper; may be repeated")] = None,
    figure: Annotated[list[int] | None, typer.Option(help="a figure of the paper; may be repeated")] = None,
    also: Annotated[
        list[str] | None, typer.Option(help="what is no table: online, extensions, pairs")
    ] = None,
    budget: Annotated[
        float | None, typer.Option(help="minutes that may be spent now; run again to go on", min=0)
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="the recipe's settings for a first look")] = False,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan",
            help="say what would be done and how long it takes; makes tables and dataset where there are none, "
            "replaces nothing",
        ),
    ] = False,
    settings: Settings = None,
    json: Json = False,
) -> None:
    """Run the paper's evaluation: tables and figures, ours beside the paper's, and which findings hold."""
    from mimctr.recipes.config import load_config
    from mimctr.recipes.pace import Pace
    from mimctr.recipes.reproduction import main as reproduction
    from mimctr.recipes.reproduction.forecast import evaluation_seconds, forecast, forecast_table
    from mimctr.recipes.reproduction.recipe import Recipe

    config = load_config(Recipe, recipe, section=None, assignments=settings or [])
    if quick:
        config = load_config(Recipe, recipe, section=None, assignments=[*config.quick, *(settings or [])])
    named = [f"table {number}" for number in table or []] + [f"figure {number}" for number in figure or []]
    planning = reproduction.plan(config, out, [*named, *(also or [])], replace=not plan)
    seconds = None if budget is None else 60 * budget
    pace = Pace()
    shown = forecast_table(forecast(planning, pace, seconds), evaluation_seconds(planning, pace))
    if plan:
        print(shown)
        return
    print(shown, file=sys.stderr)
    again = shlex.join(["mimctr", *sys.argv[1:]])
    show(reproduction.main(planning, seconds=seconds, command=again), json=json)


def show(finished: "Finished", *, json: bool) -> None:
    """Print a reproduction: as JSON, or what held and where the report is."""
    from mimctr.report.reproduction_text import reproduction_summary

    if json:
        print(finished.reproduction.model_dump_json(indent=2))
        return
    print(reproduction_summary(finished.reproduction))
    print(f"report   {finished.page}")
    print(f"results  {finished.results}")
