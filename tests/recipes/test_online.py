"""An A/B test on the tiny bazaar, from trained models to the command's table."""

import json
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from typer.testing import CliRunner

from mimctr.cli import app
from mimctr.data.dataset import CtrDataset
from mimctr.data.manifest import Manifest
from mimctr.data.prepare import prepare_tables
from mimctr.errors import DataError, RunError, StaleSnapshot
from mimctr.evaluate.online import AS_LOGGED, TRUTH, Online, read_online
from mimctr.files import read_json
from mimctr.recipes import evaluate, online, stages
from mimctr.recipes.embed import ITEMS
from mimctr.recipes.online_models import Trained, describe_models, find_models, find_offline_gain
from mimctr.recipes.online_scores import Histories, open_scorer, score_offers
from mimctr.sources.bazaar import write_bazaar
from mimctr.sources.bazaar.serving import World, serve_sessions
from mimctr.weights import load_tensors

from .ranked_run import fill_run, train

CONFIG = online.Config(click_seeds=(0, 1), num_resamples=20)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the tiny bazaar: two seeds of Base and Base+MIM on made-up vectors, of most items."""
    folder = tmp_path_factory.mktemp("online") / "run"
    write_bazaar(folder / "tables", size="tiny", seed=3)
    prepare_tables(folder / "tables", folder / "dataset")
    fill_run(folder)
    return folder


@pytest.fixture(scope="module")
def models(run: Path) -> dict[str, list[Trained]]:
    return find_models(run, ubm="sim", encoder="csft")


@pytest.fixture(scope="module")
def tested(run: Path, models: dict[str, list[Trained]], tmp_path_factory: pytest.TempPathFactory) -> Online:
    out = tmp_path_factory.mktemp("tested") / "online"
    made = online.main(run / "tables", run / "dataset", models, out, CONFIG)
    assert read_online(out / "online.json") == made
    assert [path.name for path in out.iterdir()] == ["online.json"]
    return made


@pytest.mark.parametrize("policy", ["base", "mim"])
def test_scores_are_those_of_offline_evaluation(run, models, tmp_path, policy):
    """At the log's first places. Mutants: histories of later; another place; a lost field."""
    model, data = models[policy][1], CtrDataset.open(run / "dataset")
    offers = serve_sessions(
        World.read(run / "tables"),
        start=data.manifest.test_start,
        end=data.manifest.test_end,
        most_sessions=10**6,
        num_candidates=20,
    )
    scorer = open_scorer(model, run / "dataset", tmp_path / "bundle")
    scores = np.stack(list(score_offers(scorer, offers, Histories(data))))
    tensors, _ = load_tensors(model.folder / "predictions.safetensors")
    offline = data.impression_table(tensors["row"].numpy()).with_columns(
        pl.Series("probability", torch.sigmoid(tensors["logit"].double()).numpy())
    )
    first = pl.DataFrame(offers.asked.select(["user_id", "time"])).with_columns(
        pl.Series("item_id", offers.item_id[:, 0]), pl.Series("score", scores[:, 0])
    )
    both = first.join(offline, on=["user_id", "time", "item_id"])
    assert both.height == len(offers) > 50
    np.testing.assert_allclose(both["score"], both["probability"], atol=1e-5)
    assert (scores[~offers.offered] == 0).all()
    assert ((scores[offers.offered] > 0) & (scores[offers.offered] < 1)).all()


def test_retrievals_own_order_earns_what_the_log_promises(run, tested):
    start = read_json(run / "dataset" / "manifest.json")["test_start"]
    log = pl.read_parquet(run / "tables" / "impressions").filter(pl.col("time") >= start)
    for ranking in ("probability", "revenue"):
        found = tested.outcome(AS_LOGGED, ranking)
        assert found.num_impressions == log.height
        assert found.num_users == log["user_id"].n_unique() == tested.num_users
        assert found.expected_clicks == pytest.approx(
            log["true_probability"].cast(pl.Float64).sum(), rel=1e-6
        )


@pytest.mark.parametrize(("ranking", "total"), [("probability", "clicks"), ("revenue", "revenue")])
def test_the_true_probabilities_are_on_top_in_expectation(tested, ranking, total):
    """Overall and in every category; mutant: the truth is ranked by something else."""
    for name in tested.slices():
        earned = {
            policy.name: getattr(tested.outcome(policy.name, ranking, name), f"expected_{total}")
            for policy in tested.policies
        }
        assert list(earned) == ["base", "mim", AS_LOGGED, TRUTH]
        least = 1.1 if name == "all" else 1.0
        assert all(earned[TRUTH] > least * value for other, value in earned.items() if other != TRUTH)


def test_every_policy_shows_as_much_and_bids_matter_where_they_are_ranked_for(tested):
    for name in tested.slices():
        assert len({one.num_impressions for one in tested.outcomes if one.slice == name}) == 1
    for policy in ("base", "mim", TRUTH):
        by_clicks, by_revenue = (tested.outcome(policy, ranking) for ranking in ("probability", "revenue"))
        assert by_revenue.expected_revenue > 1.1 * by_clicks.expected_revenue


def test_a_part_of_the_sessions_can_be_served(run, models, tmp_path):
    config = CONFIG.model_copy(update={"max_sessions": 30})
    few = online.main(run / "tables", run / "dataset", models, tmp_path, config)
    assert 20 <= few.num_sessions <= 30
    assert few.config["max_sessions"] == 30


def test_an_unchanged_test_is_kept_and_another_setting_makes_it_anew(run, models, tmp_path):
    def record(config: online.Config):
        return stages.online(run / "tables", run / "dataset", models, tmp_path / "out", config).run()

    few = CONFIG.model_copy(update={"max_sessions": 20})
    first = record(few)
    stamp = (tmp_path / "out" / "online.json").stat().st_mtime_ns
    assert record(few) == first
    assert (tmp_path / "out" / "online.json").stat().st_mtime_ns == stamp
    assert record(few.model_copy(update={"click_seeds": (5,)})).key != first.key


def test_tables_of_another_version_are_refused(run, models, tmp_path):
    """Mutant: nobody looks whether the sessions are those of the log."""
    tables = tmp_path / "tables"
    shutil.copytree(run / "tables", tables)
    part = next((tables / "impressions").glob("*.parquet"))
    log = pl.read_parquet(part)
    changed = pl.when(pl.col("time") == log["time"].max()).then(0.5).otherwise(pl.col("true_probability"))
    log.with_columns(changed.cast(pl.Float32).alias("true_probability")).write_parquet(part)
    with pytest.raises(
        DataError, match=r"\d+ of [\d,]+ impressions that this version generates are not in the log"
    ):
        online.main(tables, run / "dataset", models, tmp_path / "out", CONFIG)


def test_probabilities_may_differ_by_rounding_and_items_not_at_all(run, tmp_path):
    """Of a few sessions products of matrices round otherwise than of all: of the medium bazaar's 194,720, 76 did."""
    world, manifest = World.read(run / "tables"), Manifest.read(run / "dataset")
    offers = serve_sessions(
        world, start=manifest.test_start, end=manifest.test_end, most_sessions=50, num_candidates=20
    )
    log = pl.read_parquet(run / "tables" / "impressions" / "*.parquet")
    later = np.nextafter(log["true_probability"].to_numpy(), np.float32(1))
    for changed, refused in (
        (log.with_columns(true_probability=later), False),
        (log.with_columns(pl.col("true_probability") + 1e-5), True),
        (log.with_columns(pl.col("item_id") + 1), True),
        (log.head(0), True),
    ):
        tables = tmp_path / str(len(list(tmp_path.iterdir())))
        (tables / "impressions").mkdir(parents=True)
        changed.write_parquet(tables / "impressions" / "part-00000.parquet")
        with pytest.raises(DataError, match="are not in the log") if refused else nullcontext():
            online.check_world(offers, tables)


def test_models_that_cannot_be_compared_are_refused(run, models, tmp_path):
    def refused(changed: dict[str, list[Trained]], text: str) -> None:
        with pytest.raises(RunError, match=text):
            online.main(run / "tables", run / "dataset", changed, tmp_path / "out", CONFIG)

    refused({"base": models["base"], "mim": models["mim"][::-1]}, r"base: 0, 1; mim: 1, 0")
    refused({"base": models["base"], "mim": []}, r"mim: none")
    refused({}, "no policy")
    din = train(run, tmp_path / "din", ubm="din", variant="base")
    refused({"base": models["base"][:1], "other": [Trained(din, None)]}, "models of sim and din")


def test_models_that_read_what_a_session_does_not_tell_are_refused(run, models, tmp_path):
    plus = train(run, tmp_path / "plus", variant="mim_plus", encoder="csft")
    changed = {"base": models["base"][:1], "plus": [Trained(plus, run / "embed" / "csft")]}
    with pytest.raises(RunError, match="variant 'mim_plus', which reads what a session does not tell"):
        online.main(run / "tables", run / "dataset", changed, tmp_path / "out", CONFIG)


def test_vectors_of_another_encoder_are_refused(run, models, tmp_path):
    content = tmp_path / "content"
    shutil.copytree(run / "embed" / "csft", content)
    manifest = content / ITEMS / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"fingerprint": "e"', '"fingerprint": "f"'))
    changed = {"base": models["base"], "mim": [one._replace(content=content) for one in models["mim"]]}
    with pytest.raises(StaleSnapshot, match="trained on vectors of encoder e, the center serves those of f"):
        online.main(run / "tables", run / "dataset", changed, tmp_path / "out", CONFIG)


def test_models_of_a_run_are_found_by_what_they_say_of_themselves(run, models):
    assert {name: [one.folder.name for one in own] for name, own in models.items()} == {
        "base": ["sim-base-seed0", "sim-base-seed1"],
        "mim": ["sim-mim-csft-seed0", "sim-mim-csft-seed1"],
    }
    assert [one.content for one in models["mim"]] == [run / "embed" / "csft"] * 2
    with pytest.raises(RunError, match=r"no seed of 'din' has both .* \(models found: base: 0; mim: 0\)"):
        find_models(run, ubm="din", encoder="csft")
    with pytest.raises(RunError, match="nowhere: no folder train, so no model"):
        find_models(run / "nowhere", ubm="sim", encoder="csft")
    with pytest.raises(RunError, match=r"'plain' \(models found: base: 2; mim: 0\)"):
        find_models(run, ubm="sim", encoder="plain")


def test_several_models_of_one_seed_are_refused_by_name(run, tmp_path):
    """Mutant: the one whose folder comes last ranks."""
    again = tmp_path / "run"
    (again / "embed").mkdir(parents=True)
    (again / "embed" / "csft").symlink_to(run / "embed" / "csft")
    shutil.copytree(run / "train", again / "train")
    shutil.copytree(run / "train" / "sim-base-seed1", again / "train" / "tuned")
    told = (
        r"train: 2 models of sim, base, seed 1: sim-base-seed1, tuned\. .* move the others out of this folder"
    )
    with pytest.raises(RunError, match=told):
        find_models(again, ubm="sim", encoder="csft")


def test_the_offline_gain_is_that_of_the_seeds_that_ranked(run, models, tmp_path):
    """Mutant: the first evaluation of the user behavior model and the encoder, whatever its seeds."""
    evaluated = tmp_path / "run"
    policies, _ = describe_models(models)
    for folder in ("dataset", "train", "embed"):
        (evaluated / folder).parent.mkdir(exist_ok=True)
        (evaluated / folder).symlink_to(run / folder)
    assert find_offline_gain(evaluated, policies, ubm="sim", encoder="csft") is None
    config = evaluate.Config(num_resamples=10, num_pictures=0, num_age_sets=2)
    one_seed = config.model_copy(update={"models": ("sim-base-seed0", "sim-mim-csft-seed0")})
    evaluate.main(evaluated, evaluated / "evaluate" / "a", one_seed)
    assert find_offline_gain(evaluated, policies, ubm="sim", encoder="csft") is None
    evaluate.main(evaluated, evaluated / "evaluate" / "b", config)
    found = find_offline_gain(evaluated, policies, ubm="sim", encoder="csft")
    assert (found.seeds, found.ubm, found.variant, found.encoder) == ([0, 1], "sim", "mim", "csft")


def mimctr(*words: object):
    return CliRunner().invoke(app, ["--quiet", *map(str, words)])


def test_the_command_prints_a_table_or_json(run, tmp_path):
    words = [
        "ab-test",
        run,
        "--out",
        tmp_path / "out",
        "--set",
        "max_sessions=40",
        "--set",
        "num_resamples=10",
    ]
    shown = mimctr(*words)
    assert shown.exit_code == 0, shown.stderr
    for text in (
        "ranked by probability × bid",
        "Base+MIM",
        "True probabilities",
        "Clothes",
        "SIM, seeds 0, 1",
    ):
        assert text in shown.stdout
    made = json.loads(mimctr(*words, "--json").stdout)
    assert made == read_json(tmp_path / "out" / "online.json")
    assert made["base"] == "base"


def test_the_command_refuses_other_tables_in_one_line(tmp_path):
    (tmp_path / "tables").mkdir()
    refused = mimctr("ab-test", tmp_path)
    assert refused.exit_code == 1
    assert refused.stdout == ""
    assert refused.stderr.startswith(f"mimctr: {tmp_path / 'tables'}: no bazaar (bazaar.json is missing)")
    assert "allows no counterfactual estimate" in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_fewer_candidates_than_places_are_refused():
    with pytest.raises(ValueError, match="num_candidates is 5, below num_shown = 10"):
        online.Config(num_candidates=5)
