"""What trained models would have been clicked on the pages of a log that drew its orders at random.

mimctr off-policy runs/shop
"""

import json
import logging
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Float, Int
from numpy import ndarray
from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from mimctr.data.dataset import CtrDataset
from mimctr.errors import ConfigError, DataError, StaleSnapshot
from mimctr.evaluate.machine import describe_machine, describe_versions
from mimctr.evaluate.off_policy import AS_LOGGED, OffPolicy, write_off_policy
from mimctr.evaluate.off_policy_results import estimate_policies
from mimctr.evaluate.online import Policy
from mimctr.evaluate.reranking import Log, Pages, find_pages
from mimctr.recipes import ctr_config
from mimctr.recipes.ctr_fitting import Task, predict
from mimctr.recipes.ctr_model import load_model
from mimctr.recipes.device import pick_device
from mimctr.recipes.evaluate import read_model_record
from mimctr.recipes.online_models import Trained, describe_models
from mimctr.recipes.train import open_vectors

logger = logging.getLogger(__name__)

RECORD = "off_policy.json"


class Config(BaseModel):
    """Where clicks are counted, and which fields must not tell a model where an item stood."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset_name: str = Field("", description="For people; empty takes the run folder's name.")
    position_fields: tuple[str, ...] = Field(
        ("context_position",),
        description="Context fields that say where an item stood. All items are scored as if each stood first.",
    )
    depths: tuple[PositiveInt, ...] = Field(
        (1, 3), description="Places from the top in which clicks are counted; the whole page always is."
    )
    num_resamples: int = Field(200, ge=2, description="Bootstrap resamples of users behind every interval.")
    resample_seed: int = Field(0, ge=0, description="Of the resamples; all policies share them.")


def main(dataset: Path, models: Mapping[str, Sequence[Trained]], out: Path, config: Config) -> OffPolicy:
    """Estimate what every policy would have been clicked on the test part's pages; return ``off_policy.json``.

    Args:
        dataset: Whose impressions have positions and propensities.
        models: Policy -> its models, one a seed, the same seeds for all. The first policy is the base of all changes.
        out: Created if missing.
        config: Settings.

    Raises:
        DataError: there are no propensities, or no page with several items.
        ConfigError: a context field tells where an item stood, and is not named as such.
        RunError: a model is missing, of another dataset, or policies differ in UBM or seeds.
        StaleSnapshot: a model was trained on other vectors.
    """
    data = CtrDataset.open(dataset)
    policies, ubm = describe_models(models)
    rows = data.rows("test")
    log = read_log(data, rows)
    pages = find_pages(log)
    if not pages.num_pages:
        raise DataError(
            f"{dataset}: {_no_pages(pages)}. Give position and propensity of every item of a page."
        )
    same_place = at_one_place(data, rows, log.position, config.position_fields)
    scores = {
        policy: [score_rows(model, same_place, rows) for model in own] for policy, own in models.items()
    }
    found = estimate_policies(
        pages,
        scores,
        depths=config.depths,
        num_resamples=config.num_resamples,
        resample_seed=config.resample_seed,
    )
    for one in found.support:
        if one.wrong is not None:
            logger.warning(
                "%s: its weights%s have the mean %.2f, not 1: the log does not support it, and nothing is estimated%s.",
                one.policy,
                f" in place {one.wrong.place}" if one.wrong.place else "",
                one.wrong.mean_weight,
                " that reaches so far" if one.supported else "",
            )
    off_policy = OffPolicy(
        dataset=config.dataset_name or dataset.resolve().parent.name,
        ubm=ubm,
        base=policies[0].name,
        policies=[Policy(name=AS_LOGGED), *policies],
        num_pages=pages.num_pages,
        num_users=len(np.unique(pages.user)),
        num_impressions=len(pages.row),
        left_out=pages.left_out,
        support=found.support,
        outcomes=found.outcomes,
        changes=found.changes,
        config=config.model_dump(mode="json"),
        versions=describe_versions(),
        machine=describe_machine(),
    )
    out.mkdir(parents=True, exist_ok=True)
    write_off_policy(out / RECORD, off_policy)
    return off_policy


def reason_not_to_run(dataset: CtrDataset, config: Config) -> str | None:
    """Return why the test part allows no estimate; None where it allows one, as far as can be told without models.

    Args:
        dataset: To read from.
        config: Settings.

    Raises:
        ConfigError: a context field tells where an item stood, and is not named as such.
    """
    if dataset.impressions.position is None or dataset.impressions.propensity is None:
        return "the log holds no propensities"
    rows = dataset.rows("test")
    log = read_log(dataset, rows)
    pages = find_pages(log)
    if not pages.num_pages:
        return _no_pages(pages)
    _refuse_told_places(_by_position(dataset, rows, log.position), config.position_fields)
    return None


def _no_pages(pages: Pages) -> str:
    told = ", ".join(f"{number:,} with {reason}" for reason, number in pages.left_out.items())
    return f"the test part has no page on which several items could stand otherwise (left out: {told})"


def read_log(dataset: CtrDataset, rows: range) -> Log:
    """Return some impressions, as pages need them.

    Raises:
        DataError: there are no propensities.
    """
    impressions, part = dataset.impressions, slice(rows.start, rows.stop)
    if impressions.position is None or impressions.propensity is None:
        raise DataError(
            f"{dataset.folder}: its impressions have no propensity, the probability with which an item stood at its "
            "position, and without it a log allows no estimate of another order. Add the columns position and "
            "propensity (docs/online.md), and prepare it again."
        )
    return Log(
        user=impressions.user[part],
        time=impressions.time[part],
        query=impressions.query[part],
        item=impressions.target[part],
        position=impressions.position[part],
        propensity=impressions.propensity[part],
        click=impressions.click[part],
    )


def at_one_place(
    dataset: CtrDataset, rows: range, position: Int[ndarray, "rows"], position_fields: Sequence[str]
) -> CtrDataset:
    """Return the dataset with all of ``rows`` at the first place, as far as a model can see.

    What a model knows of the place an item had in the log would make its order depend on the log's.

    Args:
        dataset: To read from.
        rows: Impressions that will be scored.
        position: Of each of them.
        position_fields: Context fields that say where an item stood; those that are not there are skipped.

    Raises:
        ConfigError: another context field is decided by the position.
    """
    frame = _by_position(dataset, rows, position)
    _refuse_told_places(frame, position_fields)
    names = list(dataset.fields.context)
    context = np.array(dataset.impressions.context_fields)
    top = frame.filter(pl.col("position") == pl.col("position").min())
    for name in (one for one in names if one in position_fields):
        context[rows.start : rows.stop, names.index(name)] = top[name].mode().min()
    same = copy(dataset)
    same.impressions = replace(dataset.impressions, context_fields=context)
    return same


def _refuse_told_places(by_position: pl.DataFrame, position_fields: Sequence[str]) -> None:
    """See to it that no context field but those named is decided by where an item stood.

    Args:
        by_position: ``position``, and the context fields.
        position_fields: Context fields that say where an item stood.

    Raises:
        ConfigError: another one is.
    """
    counts = by_position.group_by("position").agg(pl.all().n_unique())
    for name in by_position.columns[1:]:
        decided = counts[name].max() == 1 and by_position[name].n_unique() > 1
        if decided and name not in position_fields:
            raise ConfigError(
                f"off-policy: the context field '{name}' has one value at each position, so it tells a model where an "
                f"item stood. Name it: --set 'position_fields={json.dumps([*position_fields, name])}', which "
                "'mimctr reproduce' calls off_policy.position_fields."
            )


def _by_position(dataset: CtrDataset, rows: range, position: Int[ndarray, "rows"]) -> pl.DataFrame:
    """Return position and context fields of the impressions whose position is known."""
    codes = dataset.impressions.context_fields[rows.start : rows.stop]
    known = position >= 0
    return pl.DataFrame({"position": position[known]}).with_columns(
        pl.Series(name, codes[known, column]) for column, name in enumerate(dataset.fields.context)
    )


def score_rows(model: Trained, dataset: CtrDataset, rows: range) -> Float[ndarray, "rows"]:
    """Return a trained model's logits of some impressions.

    Raises:
        RunError: there is no such model, or it was trained on other tables or another split of them.
        StaleSnapshot: it was trained on other vectors.
    """
    record = read_model_record(model.folder, dataset_hash=dataset.manifest.source_hash)
    dataset.manifest.refuse_other_training(model.folder, record.training_hash)
    config = ctr_config.Config.model_validate(record.config)
    content = open_vectors(dataset, model.content, config)
    if content is not None and record.content_fingerprint not in (None, content.snapshot.fingerprint):
        raise StaleSnapshot(
            f"{model.folder}: it was trained on vectors of encoder {str(record.content_fingerprint)[:12]}, "
            f"{model.content} holds those of {content.snapshot.fingerprint[:12]}. Train it again on these."
        )
    device = pick_device(config.device)
    task = Task(dataset=dataset, content=content, config=config, device=device)
    return predict(load_model(model.folder).to(device), task, rows)
