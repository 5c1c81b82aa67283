"""mimctr ab-test: ranking policies in the same sessions of the bazaar, clicks by the true probabilities."""

from pathlib import Path
from typing import Annotated

import typer

from mimctr.cli.options import Compared, ConfigFile, Encoder, Json, Settings, show

NAME = "ab-test"
EXAMPLES = "Example: mimctr ab-test runs/demo --ubm din --set max_sessions=2000"


def command(
    run: Annotated[Path, typer.Argument(help="folder of a finished 'mimctr run' of a bazaar")],
    out: Annotated[
        Path | None, typer.Option(help="folder for the result; RUN/online where not given")
    ] = None,
    ubm: Compared = "sim",
    encoder: Encoder = "csft",
    config: ConfigFile = None,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Simulate an A/B test of Base and Base+MIM: clicks and revenue of their rankings in the bazaar."""
    from mimctr.evaluate.online import read_online
    from mimctr.evaluate.paper.online import online_findings, online_table
    from mimctr.recipes import online, stages
    from mimctr.recipes.config import load_config
    from mimctr.recipes.online_models import find_models, find_offline_gain
    from mimctr.report.paper_table import plain_findings, plain_table
    from mimctr.report.wording import UBM_NAMES
    from mimctr.sources.bazaar.serving import World

    out = out or run / "online"
    loaded = load_config(online.Config, config, section=NAME, assignments=settings or [])
    World.read(run / "tables")  # refuses other tables before anything else is looked for
    models = find_models(run, ubm=ubm, encoder=encoder)
    stages.online(run / "tables", run / "dataset", models, out, loaded).run()
    found = read_online(out / online.RECORD)
    if as_json:
        show(found, as_json=True)
        return
    print(plain_table(online_table(found, UBM_NAMES)))
    offline = find_offline_gain(run, found.policies, ubm=ubm, encoder=encoder)
    print(plain_findings(online_findings(found, offline)))
    print(f"results  {out / online.RECORD}")
