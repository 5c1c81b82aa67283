"""mimctr off-policy: what models would have been clicked, from a log with propensities."""

from pathlib import Path
from typing import Annotated

import typer

from mimctr.cli.options import Compared, ConfigFile, Encoder, Json, Settings, show

NAME = "off-policy"
EXAMPLES = "Example: mimctr off-policy runs/shop --ubm din"


def command(
    run: Annotated[Path, typer.Argument(help="folder of a finished 'mimctr run' on a log with propensities")],
    out: Annotated[
        Path | None, typer.Option(help="folder for the result; RUN/off-policy where not given")
    ] = None,
    ubm: Compared = "sim",
    encoder: Encoder = "csft",
    config: ConfigFile = None,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Estimate the clicks on Base's and Base+MIM's order of logged pages, by inverse propensities."""
    from mimctr.evaluate.off_policy import read_off_policy
    from mimctr.evaluate.paper.off_policy import off_policy_findings, off_policy_table
    from mimctr.recipes import off_policy, stages
    from mimctr.recipes.config import load_config
    from mimctr.recipes.online_models import find_models, find_offline_gain
    from mimctr.report.paper_table import plain_findings, plain_table
    from mimctr.report.wording import UBM_NAMES

    out = out or run / NAME
    loaded = load_config(off_policy.Config, config, section=NAME, assignments=settings or [])
    models = find_models(run, ubm=ubm, encoder=encoder)
    stages.off_policy(run / "dataset", models, out, loaded).run()
    found = read_off_policy(out / off_policy.RECORD)
    if as_json:
        show(found, as_json=True)
        return
    print(plain_table(off_policy_table(found, UBM_NAMES)))
    offline = find_offline_gain(run, found.policies, ubm=ubm, encoder=encoder)
    print(plain_findings(off_policy_findings(found, offline)))
    print(f"results  {out / off_policy.RECORD}")
