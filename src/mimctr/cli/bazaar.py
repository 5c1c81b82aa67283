"""mimctr bazaar: generate a marketplace whose right answer is known."""

from typing import Annotated

import typer

from mimctr.cli.options import Json, Out, show

NAME = "bazaar"
EXAMPLES = "Example: mimctr bazaar --size tiny --out tables"


def command(
    out: Out,
    size: Annotated[str, typer.Option(help="tiny, small, medium or large")] = "small",
    seed: Annotated[int, typer.Option(min=0, help="the same seed gives the same bytes")] = 0,
    random_pages: Annotated[
        bool,
        typer.Option(
            "--random-pages", help="pages in random order, with propensities: for 'mimctr off-policy'"
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Write the raw tables of a generated marketplace: images, titles, clicks with known probabilities."""
    from mimctr.recipes import sources
    from mimctr.recipes.config import build_config

    config = build_config(
        sources.Bazaar,
        {"kind": "bazaar", "size": size, "seed": seed, "random_pages": random_pages},
        where="bazaar",
    )
    show(sources.make(config, out), as_json=json)
