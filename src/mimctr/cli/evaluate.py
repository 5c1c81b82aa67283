"""mimctr evaluate: every metric of every trained model in one results.json, their probabilities in one table."""

from pathlib import Path
from typing import Annotated

import typer

from mimctr.cli.options import ConfigFile, Out, Settings

NAME = "evaluate"
EXAMPLES = "Example: mimctr evaluate runs/demo --out runs/demo/evaluate"


def command(
    run: Annotated[Path, typer.Argument(help="run folder with dataset/ and train/")],
    out: Out,
    config: ConfigFile = None,
    settings: Settings = None,
) -> None:
    """Measure every trained model of a run on the test part, overall and by slice; export its predictions."""
    from mimctr.recipes import evaluate, stages
    from mimctr.recipes.config import load_config

    stages.evaluate(
        run, out, load_config(evaluate.Config, config, section=NAME, assignments=settings or [])
    ).run()
    print(out / "results.json")
