"""mimctr cost: what content costs with the representation center and without it."""

from pathlib import Path
from typing import Annotated

import typer

from mimctr.cli.options import ConfigFile, Encoder, Json, Settings, show

NAME = "cost"
EXAMPLES = "Example: mimctr cost runs/demo --set ubm=din"


def command(
    run: Annotated[Path, typer.Argument(help="folder of a finished 'mimctr run'")],
    out: Annotated[Path | None, typer.Option(help="folder for the result; RUN/cost where not given")] = None,
    encoder: Encoder = "csft",
    config: ConfigFile = None,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Count and measure Base, MIM, and MIM with the encoder in the loop (the paper's Table 6)."""
    from mimctr.evaluate.cost import read_cost
    from mimctr.evaluate.paper.cost import cost_tables
    from mimctr.recipes import cost, stages
    from mimctr.recipes.config import load_config
    from mimctr.report.cost_table import plain_cost_table

    out = out or run / "cost"
    loaded = load_config(cost.Config, config, section=NAME, assignments=settings or [])
    stages.cost(run / "dataset", run / "embed" / encoder, run / encoder, out, loaded).run()
    found = read_cost(out / cost.RECORD)
    if as_json:
        show(found, as_json=True)
        return
    print(plain_cost_table(cost_tables(found)))
    print(f"results  {out / cost.RECORD}")
