"""Estimates from a tiny bazaar of random pages: from raw tables to the command's table, against the truth."""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from mimctr.cli import app
from mimctr.data.dataset import CtrDataset
from mimctr.data.prepare import prepare_tables
from mimctr.data.split import SplitRule
from mimctr.errors import ConfigError, DataError, RunError, StaleSnapshot
from mimctr.evaluate.off_policy import AS_LOGGED, OffPolicy, read_off_policy
from mimctr.files import read_json
from mimctr.recipes import off_policy, stages
from mimctr.recipes.off_policy import at_one_place, read_log, score_rows
from mimctr.recipes.online_models import Trained, find_models
from mimctr.sources.bazaar import write_bazaar
from mimctr.sources.bazaar.serving import World, serve_sessions
from mimctr.weights import load_tensors

from .ranked_run import fill_run

CONFIG = off_policy.Config(num_resamples=50)


def read_log_with_chances(tables: Path) -> pl.DataFrame:
    """Return the log; ``chances`` are the true probabilities of the item at every place of its page."""
    offers = serve_sessions(World.read(tables), start=0, end=2**40, most_sessions=10**9, num_candidates=10)
    session, candidate = np.nonzero(offers.offered)
    chances = pl.DataFrame(offers.asked.select(["user_id", "time"]))[session].with_columns(
        item_id=pl.Series(offers.item_id[session, candidate]),
        chances=pl.Series(offers.probability[session, candidate]),
    )
    return pl.read_parquet(tables / "impressions").join(chances, on=["user_id", "time", "item_id"])


class Shuffled(NamedTuple):
    run: Path
    log: pl.DataFrame
    models: dict[str, list[Trained]]


@pytest.fixture(scope="module")
def shuffled(tmp_path_factory: pytest.TempPathFactory) -> Shuffled:
    """A run: two seeds of Base and Base+MIM on made-up vectors."""
    folder = tmp_path_factory.mktemp("off_policy") / "shop"
    write_bazaar(folder / "tables", size="tiny", seed=3, random_pages=True)
    log = read_log_with_chances(folder / "tables")
    prepare_tables(
        folder / "tables",
        folder / "dataset",
        split=SplitRule(validation_fraction=0.1, test_fraction=0.7),
    )
    fill_run(folder)
    return Shuffled(folder, log, find_models(folder, ubm="sim", encoder="csft"))


@pytest.fixture(scope="module")
def estimated(shuffled: Shuffled, tmp_path_factory: pytest.TempPathFactory) -> OffPolicy:
    out = tmp_path_factory.mktemp("estimated") / "off-policy"
    made = off_policy.main(shuffled.run / "dataset", shuffled.models, out, CONFIG)
    assert read_off_policy(out / "off_policy.json") == made
    return made


@pytest.fixture(scope="module")
def alone(shuffled: Shuffled, tmp_path_factory: pytest.TempPathFactory) -> OffPolicy:
    """The first seed: its intervals are of users alone."""
    models = {name: own[:1] for name, own in shuffled.models.items()}
    return off_policy.main(shuffled.run / "dataset", models, tmp_path_factory.mktemp("alone"), CONFIG)


def placed(shuffled: Shuffled) -> CtrDataset:
    data = CtrDataset.open(shuffled.run / "dataset")
    rows = data.rows("test")
    return at_one_place(data, rows, read_log(data, rows).position, CONFIG.position_fields)


def test_a_model_of_another_split_does_not_score(shuffled: Shuffled, tmp_path: Path) -> None:
    """Mutant: its tables are the same, so it scores, and knows some of the test clicks."""
    prepare_tables(shuffled.run / "tables", tmp_path / "other", split=SplitRule(test_fraction=0.4))
    data = CtrDataset.open(tmp_path / "other")
    model = shuffled.models["base"][0]
    with pytest.raises(RunError, match=r"it was trained on another split of these tables"):
        score_rows(model, data, data.rows("test"))


def truth(shuffled: Shuffled, model: Trained, depth: int) -> float:
    """Clicks per impression in the first places of a model's order, by the market's true probabilities."""
    data = placed(shuffled)
    rows = data.rows("test")
    scored = data.impression_table(rows).with_columns(pl.Series("score", score_rows(model, data, rows)))
    pages = scored.join(shuffled.log, on=["user_id", "time", "item_id"]).with_columns(
        item=pl.col("item_id").cast(pl.Int64)
    )
    ordered = pages.sort("user_id", "time", -pl.col("score")).with_columns(
        place=pl.int_range(pl.len()).over("user_id", "time"), size=pl.len().over("user_id", "time")
    )
    counted = ordered.filter((pl.col("place") < depth) & (pl.col("size") > 1))
    chances = np.stack(counted["chances"].to_numpy())
    return float(chances[np.arange(len(chances)), counted["place"].to_numpy()].mean())


@pytest.mark.parametrize(("depth", "named"), [(1, 1), (3, 3), (10, None)])
@pytest.mark.parametrize("policy", ["base", "mim"])
def test_the_estimate_is_what_the_market_would_have_clicked(shuffled, alone, policy, depth, named):
    """Within three standard errors. Mutants: no propensities; scored where it stood; clicks of other places."""
    found = alone.outcome(policy, named).ctr
    error = (found.high - found.low) / 3.92
    true = truth(shuffled, shuffled.models[policy][0], depth)
    assert abs(found.mean - true) < 3 * error
    assert error < 0.5 * true


def test_the_test_part_is_counted(shuffled, estimated):
    start = read_json(shuffled.run / "dataset" / "manifest.json")["test_start"]
    log = shuffled.log.filter(pl.col("time") >= start)
    sizes = log.group_by("user_id", "time").len()
    assert estimated.num_pages + estimated.left_out.get("one item", 0) == sizes.height
    assert estimated.num_impressions == sizes.filter(pl.col("len") > 1)["len"].sum()
    assert all(one.supported for one in estimated.support)
    assert estimated.dataset == "shop"
    assert estimated.base == "base"
    own = estimated.outcome(AS_LOGGED, None).ctr.mean
    assert own == pytest.approx(log.filter(pl.len().over("user_id", "time") > 1)["click"].mean())


def test_items_are_scored_as_if_each_stood_first(shuffled):
    """Rows that stood first have the logits of offline evaluation; the others do not. Mutant: nothing is changed."""
    data = CtrDataset.open(shuffled.run / "dataset")
    rows = data.rows("test")
    for own in shuffled.models.values():
        tensors, _ = load_tensors(own[0].folder / "predictions.safetensors")
        offline, scores = tensors["logit"].numpy(), score_rows(own[0], placed(shuffled), rows)
        first = data.impressions.position[rows.start : rows.stop] == 0
        np.testing.assert_allclose(scores[first], offline[first], atol=1e-5)
        assert (np.abs(scores[~first] - offline[~first]) > 1e-4).mean() > 0.5


def test_another_field_that_tells_the_place_is_refused(shuffled, tmp_path):
    tables = tmp_path / "tables"
    shutil.copytree(shuffled.run / "tables", tables)
    path = tables / "impressions" / "part-00000.parquet"
    pl.read_parquet(path).with_columns(context_slot=pl.col("position") + 100).write_parquet(path)
    prepare_tables(tables, tmp_path / "dataset")
    data = CtrDataset.open(tmp_path / "dataset")
    rows = data.rows("test")
    position = read_log(data, rows).position
    told = (
        r"'context_slot' has one value .*--set 'position_fields=\[\"context_position\", \"context_slot\"\]'"
    )
    with pytest.raises(ConfigError, match=told):
        at_one_place(data, rows, position, ("context_position",))
    same = at_one_place(data, rows, position, ("context_position", "context_slot", "context_missing"))
    names = list(data.fields.context)
    fields = same.impressions.context_fields[rows.start :]
    original = data.impressions.context_fields
    for name in names:
        column = names.index(name)
        if name in ("context_position", "context_slot"):
            [value] = np.unique(fields[:, column])
            stood = original[rows.start :][position == 0, column]
            assert (stood == value).all()
        else:
            np.testing.assert_array_equal(fields[:, column], original[rows.start :, column])
    np.testing.assert_array_equal(same.impressions.context_fields[: rows.start], original[: rows.start])


def test_a_log_without_propensities_is_refused(shuffled, tmp_path):
    tables = tmp_path / "tables"
    shutil.copytree(shuffled.run / "tables", tables)
    path = tables / "impressions" / "part-00000.parquet"
    pl.read_parquet(path).drop("propensity").write_parquet(path)
    prepare_tables(tables, tmp_path / "dataset")
    with pytest.raises(DataError, match="its impressions have no propensity"):
        off_policy.main(tmp_path / "dataset", shuffled.models, tmp_path / "out", CONFIG)
    assert not (tmp_path / "out").exists()


def test_models_of_other_tables_or_vectors_are_refused(shuffled, tmp_path):
    tables = tmp_path / "tables"
    shutil.copytree(shuffled.run / "tables", tables)
    path = tables / "impressions" / "part-00000.parquet"
    pl.read_parquet(path).with_columns(propensity=pl.lit(0.5)).write_parquet(path)
    prepare_tables(tables, tmp_path / "dataset")
    with pytest.raises(RunError, match="Train it again on this dataset"):
        off_policy.main(tmp_path / "dataset", shuffled.models, tmp_path / "out", CONFIG)
    content = tmp_path / "content"
    shutil.copytree(shuffled.run / "embed" / "csft", content)
    for manifest in content.glob("*/manifest.json"):
        manifest.write_text(manifest.read_text().replace('"fingerprint": "e"', '"fingerprint": "f"'))
    models = {"mim": [one._replace(content=content) for one in shuffled.models["mim"]]}
    with pytest.raises(StaleSnapshot, match="trained on vectors of encoder e"):
        off_policy.main(shuffled.run / "dataset", models, tmp_path / "out", CONFIG)


def test_an_unchanged_estimate_is_kept(shuffled, tmp_path):
    def record(config: off_policy.Config):
        return stages.off_policy(shuffled.run / "dataset", shuffled.models, tmp_path / "out", config).run()

    first = record(CONFIG)
    stamp = (tmp_path / "out" / "off_policy.json").stat().st_mtime_ns
    assert record(CONFIG) == first
    assert (tmp_path / "out" / "off_policy.json").stat().st_mtime_ns == stamp
    assert record(CONFIG.model_copy(update={"depths": (2,)})).key != first.key


def mimctr(*words: object):
    return CliRunner().invoke(app, ["--quiet", *map(str, words)])


def test_the_command_prints_a_table_or_json(shuffled, tmp_path):
    words = ["off-policy", shuffled.run, "--out", tmp_path / "out", "--set", "num_resamples=20"]
    shown = mimctr(*words)
    assert shown.exit_code == 0, shown.stderr
    for text in ("first place", "As logged", "Base+MIM", "SIM, seeds 0, 1", "worth", "the same sign"):
        assert text in shown.stdout
    made = json.loads(mimctr(*words, "--json").stdout)
    assert made == read_json(tmp_path / "out" / "off_policy.json")


def test_the_command_refuses_a_log_without_propensities_in_one_line(shuffled, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(shuffled.run, run)
    (run / "dataset" / "impressions" / "propensity.npy").unlink()
    refused = mimctr("off-policy", run)
    assert refused.exit_code == 1
    assert refused.stderr.count("\n") == 1
    assert "have no propensity" in refused.stderr
