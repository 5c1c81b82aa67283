"""A simulated A/B test: policies rank the same sessions of the bazaar, clicks fall by the true probabilities.

mimctr ab-test runs/demo
"""

import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Float
from numpy import ndarray
from pydantic import Field, NonNegativeInt, model_validator

from mimctr.data.dataset import CtrDataset
from mimctr.errors import DataError
from mimctr.evaluate.ab_results import compare_policies
from mimctr.evaluate.ab_test import Market
from mimctr.evaluate.machine import describe_machine, describe_versions
from mimctr.evaluate.online import AS_LOGGED, TRUTH, Online, Policy, write_online
from mimctr.progress import track
from mimctr.recipes.category_groups import CategoryGroups
from mimctr.recipes.online_models import Trained, describe_models
from mimctr.recipes.online_scores import Histories, open_scorer, score_offers
from mimctr.sources.bazaar.serving import Offers, World, serve_sessions
from mimctr.sources.bazaar.world import SESSION_LENGTH

logger = logging.getLogger(__name__)

RECORD = "online.json"
ROUNDING = 1e-6
"""By which a probability may differ: products of matrices round by how many rows they have."""


class Config(CategoryGroups):
    """How many sessions are served, and how clicks are drawn."""

    max_sessions: int = Field(
        20_000, ge=1, description="Of the test part; of more, so many at even distances are served."
    )
    num_candidates: int = Field(
        40, ge=1, description="Most items of a session that are ranked: retrieval's best."
    )
    num_shown: int = Field(
        SESSION_LENGTH, ge=1, le=SESSION_LENGTH, description="Items of a page. The log's pages have 10."
    )
    click_seeds: tuple[NonNegativeInt, ...] = Field(
        (0, 1, 2, 3, 4),
        min_length=1,
        description="One draw of all clicks each; a session's clicks are their mean.",
    )
    num_resamples: int = Field(200, ge=2, description="Bootstrap resamples of users behind every interval.")
    resample_seed: int = Field(0, ge=0, description="Of the resamples; all policies share them.")

    @model_validator(mode="after")
    def _can_choose(self) -> "Config":
        if self.num_candidates < self.num_shown:
            raise ValueError(
                f"num_candidates is {self.num_candidates}, below num_shown = {self.num_shown}. Offer more"
            )
        return self


def main(
    tables: Path, dataset: Path, models: Mapping[str, Sequence[Trained]], out: Path, config: Config
) -> Online:
    """Serve the test part's sessions with every policy; return what ``online.json`` holds.

    Args:
        tables: Raw tables of a bazaar.
        dataset: Made of them; its test part says which sessions, its behaviors are the histories.
        models: Policy -> its models, one a seed, the same seeds for all. The first policy is the base of all changes.
        out: Created if missing.
        config: Settings.

    Raises:
        DataError: the tables are no bazaar, or not what this version would generate.
        RunError: a model is missing, of another dataset or variant, or policies differ in UBM or seeds.
    """
    world, data = World.read(tables), CtrDataset.open(dataset)
    policies, ubm = describe_models(models)
    offers = serve_sessions(
        world,
        start=data.manifest.test_start,
        end=data.manifest.test_end,
        most_sessions=config.max_sessions,
        num_candidates=config.num_candidates,
        num_positions=config.num_shown,
    )
    check_world(offers, tables)
    out.mkdir(parents=True, exist_ok=True)
    market = Market(
        offers.asked["user_id"].to_numpy(), offers.offered, offers.probability, offers.bid.astype(np.float64)
    )
    compared = compare_policies(
        market,
        offers.category,
        score_policies(models, offers, dataset, out),
        click_seeds=config.click_seeds,
        num_resamples=config.num_resamples,
        resample_seed=config.resample_seed,
        by_category=config.contrast,
    )
    times, num_offered = offers.asked["time"].to_numpy(), market.offered.sum(axis=1)
    online = Online(
        dataset=world.name,
        ubm=ubm,
        base=policies[0].name,
        policies=[*policies, Policy(name=AS_LOGGED), Policy(name=TRUTH)],
        start_time=int(times.min()),
        end_time=int(times.max()) + 1,
        num_sessions=len(offers),
        num_users=len(np.unique(market.users)),
        candidates_per_session=float(num_offered.mean()),
        shown_per_session=float(num_offered.clip(max=config.num_shown).mean()),
        shared_with_base=compared.shared_with_base,
        outcomes=compared.outcomes,
        changes=compared.changes,
        config=config.model_dump(mode="json"),
        versions=describe_versions(),
        machine=describe_machine(),
    )
    write_online(out / RECORD, online)
    return online


def score_policies(
    models: Mapping[str, Sequence[Trained]], offers: Offers, dataset: Path, out: Path
) -> dict[str, list[Float[ndarray, "sessions candidates"]]]:
    """Return what every model says of every candidate: by policy, one array a seed."""
    histories = Histories(CtrDataset.open(dataset))
    scores: dict[str, list[ndarray]] = {}
    for name, own in models.items():
        for model in own:
            with tempfile.TemporaryDirectory(dir=out) as scratch:
                scorer = open_scorer(model, dataset, Path(scratch) / "bundle")
                rows = track(
                    score_offers(scorer, offers, histories),
                    total=len(offers),
                    description=f"ab-test: {model.folder.name}",
                    unit="sessions",
                )
                scores.setdefault(name, []).append(np.stack(list(rows)))
    return scores


def check_world(offers: Offers, tables: Path) -> None:
    """See to it that the sessions are those of the log: retrieval's first items are what was shown.

    Raises:
        DataError: they are not; another version wrote the tables.
    """
    num_positions = offers.probability.shape[2]
    item = offers.item_id[:, :num_positions]
    session, position = np.nonzero(item >= 0)
    asked = pl.DataFrame(offers.asked.select(["user_id", "time"]))[session]
    again = asked.with_columns(
        pl.Series("item_id", item[session, position]),
        pl.Series("context_position", position.astype(np.int8)),
        pl.Series("true_probability", offers.probability[session, position, position]),
    )
    *place, probability = again.columns
    log = pl.scan_parquet(tables / "impressions").select(*place, pl.col(probability).alias("logged"))
    as_logged = (pl.col(probability) - pl.col("logged")).abs() <= ROUNDING
    found = again.lazy().join(log, on=place, how="left")
    missing = found.filter(~as_logged.fill_null(False)).select(again.columns).collect()
    if missing.height:
        raise DataError(
            f"{tables}: {missing.height:,} of {again.height:,} impressions that this version generates are not in the "
            f"log. First: {missing.row(0, named=True)}. Another version of mimctr or NumPy wrote these tables: run "
            "'mimctr bazaar' again, and what was made of them."
        )
