"""mimctr fashion: the raw tables of the H&M fashion purchases."""

from pathlib import Path
from typing import Annotated

import typer

from mimctr.cli.options import Json, Out, show

NAME = "fashion"
EXAMPLES = "Example: mimctr fashion ../shared/data/fashion --out tables"


def command(
    data: Annotated[
        Path, typer.Argument(help="folder of the original data (docs/fashion.md says where to get it)")
    ],
    out: Out,
    negatives: Annotated[
        str, typer.Option(help="popularity (the fixed protocol) or category")
    ] = "popularity",
    attributes: Annotated[bool, typer.Option(help="add color, pattern ... as item fields")] = False,
    seed: Annotated[int, typer.Option(min=0, help="of the sampled negatives")] = 0,
    json: Json = False,
) -> None:
    """Write the raw tables of the H&M fashion purchases: photos, titles, purchases and sampled negatives."""
    from mimctr.recipes import sources
    from mimctr.recipes.config import build_config

    values = {"kind": "fashion", "path": data, "negatives": negatives, "attributes": attributes, "seed": seed}
    show(sources.make(build_config(sources.Fashion, values, where="fashion"), out), as_json=json)
