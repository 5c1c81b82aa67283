"""mimctr sweep: search settings of 'mimctr train' by validation AUC."""

from pathlib import Path
from typing import Annotated

import typer

from mimctr.cli.options import Content, Json, Settings

NAME = "sweep"
EXAMPLES = (
    "Example: mimctr sweep dataset --content embed --search learning_rate=log:1e-4:1e-2 --search ubm=din,sim "
    "--minutes 60 --out sweep"
)


def command(
    dataset: Annotated[Path, typer.Argument(help="folder written by 'mimctr prepare'")],
    out: Annotated[
        Path,
        typer.Option(
            help="folder for the result; run again to go on, after the end with larger --minutes or --num-trials"
        ),
    ],
    search: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SETTING=VALUES",
            help="of 'mimctr train'; values are a range, log:1e-4:1e-2 or linear:0:0.5, or a list, a,b,c; may be "
            "repeated",
        ),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="training time at most, that of earlier calls included")
    ] = None,
    num_trials: Annotated[
        int | None, typer.Option(help="trials at most, those of earlier calls included")
    ] = None,
    content: Content = None,
    config: Annotated[
        Path | None,
        typer.Option(help="recipe (TOML): [sweep] says what is searched, [train] has all other settings"),
    ] = None,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Search settings of 'mimctr train' by validation AUC, within a time (docs/sweep.md); needs mimctr[sweep].

    --set is for settings of 'mimctr train' that are not searched.
    """
    from mimctr.recipes import sweep, train
    from mimctr.recipes.config import load_config
    from mimctr.recipes.sweep_space import search_assignments
    from mimctr.report.sweep import sweep_table

    budget = {"minutes": minutes, "num_trials": num_trials}
    given = [f"{name}={value}" for name, value in budget.items() if value is not None]
    given += search_assignments(search or [])
    finished = sweep.main(
        dataset,
        content,
        out,
        load_config(
            sweep.Config, config, section=NAME, assignments=given, beside=["train"], option="command line"
        ),
        load_config(train.Config, config, section="train", assignments=settings or [], beside=[NAME]),
    )
    if as_json:
        print(finished.model_dump_json(indent=2))
        return
    print(sweep_table(finished))
    print(f"best settings  {out / sweep.BEST}")
    print(f"all trials     {out / sweep.RESULTS}")
    print(f"picture        {out / sweep.PICTURE}")
