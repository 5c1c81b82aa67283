"""mimctr foundation: the plain encoders that everything starts from."""

from pathlib import Path
from typing import Annotated

import typer

from mimctr.cli.options import ConfigFile, Out, Settings

NAME = "foundation"
EXAMPLES = "Example: mimctr foundation --corpus tables/corpus --out foundation"


def command(
    out: Out,
    corpus: Annotated[Path | None, typer.Option(help="generic corpus to train plain encoders on")] = None,
    config: ConfigFile = None,
    settings: Settings = None,
) -> None:
    """Get plain encoders: load public weights, or train small ones on a generic corpus."""
    from mimctr.recipes import foundation, stages
    from mimctr.recipes.config import load_config

    stages.foundation(
        corpus, out, load_config(foundation.Config, config, section=NAME, assignments=settings or [])
    ).run()
    print(out)
