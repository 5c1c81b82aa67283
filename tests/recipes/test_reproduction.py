"""A whole reproduction on the minuscule shop: every experiment, in pieces, the same as at once."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
from csft.shop import write_encoders, write_shop
from typer.testing import CliRunner

from mimctr.cli import app
from mimctr.data.dataset import CtrDataset
from mimctr.errors import ConfigError, DataError, RunError
from mimctr.evaluate.paper.peers import PeerResults, peers_table, write_peers
from mimctr.evaluate.paper.schema import read_reproduction
from mimctr.evaluate.results import read_results
from mimctr.recipes.config import build_config
from mimctr.recipes.pace import Pace
from mimctr.recipes.plan import Plan
from mimctr.recipes.reproduction import main as reproduction
from mimctr.recipes.reproduction.assemble import assemble
from mimctr.recipes.reproduction.forecast import evaluation_seconds, forecast, forecast_table
from mimctr.recipes.reproduction.recipe import EXPERIMENTS, Recipe, share_row

from .test_encoder_tables import CSFT, PRETRAIN

QUICK = [name for name in EXPERIMENTS if name != "table 6"]
"""Table 6 starts twelve processes."""
TRAIN = {"batch_size": 32, "embedding_dim": 4, "field_dim": 2, "hidden_dims": [8], "device": "cpu"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("world"))


def write_world(root: Path) -> Path:
    """Write a shop and encoders below ``root``; return it."""
    write_shop(root / "shop")
    write_encoders(root / "encoders")
    return root


def recipe(world, **changes) -> Recipe:
    values = {
        "name": "shop",
        "source": {"kind": "tables", "path": world / "shop" / "tables"},
        "foundation": {
            "image_weights": world / "encoders" / "image",
            "max_tokens": 12,
            "text_weights": world / "encoders" / "text",
        },
        "pretrain": PRETRAIN,
        "csft": CSFT,
        "train": TRAIN,
        "evaluate": {"num_resamples": 10, "num_age_sets": 3, "num_pictures": 0},
        "ubms": ["mean", "sim"],
        "pair_shares": [0.5],
        "seeds": [0, 1],
        "num_resamples": 10,
        "num_workers": 1,
        "others": {"EVA": {"image_weights": "dinov2-base", "text_weights": world / "encoders" / "text"}},
    }
    return build_config(Recipe, values | changes, where="recipe")


@pytest.fixture(scope="module")
def finished(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    planning = reproduction.plan(recipe(world), out, QUICK)
    return out, planning, reproduction.main(planning, seconds=None, command="mimctr reproduce x")


def cells(made, key):
    table = next(table for table in made.reproduction.tables if table.key == key)
    return {row.label: row for row in table.rows}


def test_every_experiment_has_its_table_or_figure(finished):
    out, _, made = finished
    assert read_reproduction(out / "reproduction.json") == made.reproduction
    assert [table.key for table in made.reproduction.tables] == [
        "table 1",
        "table 2",
        "table 2, by category",
        "calibration",
        "table 7",
        "table 3",
        "table 4",
        "table 5",
        "online",
        "extensions",
    ]
    figures = {figure.key for figure in made.reproduction.figures}
    of_slices, of_encoders = {"figure 6", "gain by support", "data efficiency"}, {"figure 5", "exchange rate"}
    assert figures == {"age profile", "pairs"} | of_slices | of_encoders
    assert all(step.seconds is not None for step in made.reproduction.steps)


def test_each_seed_has_encoders_and_models_of_its_own(finished):
    """Mutants: the CTR model of a seed reads the first seed's vectors; rows share one encoder."""
    out, _, _ = finished

    def key(folder):
        return json.loads((out / folder / "stage.json").read_text())

    for seed in (0, 1):
        for row in ("dda", "mim", "without_tfn", "pairs_50"):
            embedded = key(f"embed/{row}-seed{seed}")
            assert embedded["inputs"]["encoder"] == key(f"seed{seed}/{row}")["key"]
            trained = key(f"train/sim-mim-{row}-seed{seed}")
            assert trained["inputs"]["content"] == embedded["key"]
            assert (trained["config"]["seed"], trained["config"]["encoder"]) == (seed, row)
        assert key(f"train/sim-mim-plain-seed{seed}")["inputs"]["content"] == key("embed/plain")["key"]
    keys = [key(f"embed/{row}-seed{seed}")["key"] for row in ("mim", "dma", "pairs_50") for seed in (0, 1)]
    assert len(set(keys)) == len(keys)


def test_ablations_and_extensions_differ_in_what_they_say(finished):
    out, _, _ = finished

    def config(name):
        return json.loads((out / "train" / name / "stage.json").read_text())["config"]

    whole = config("sim-mim-mim-seed0")
    for name in ("id", "content", "fusion"):
        without = config(f"sim-mim-without_{name}-mim-seed0")
        assert {k for k in whole if whole[k] != without[k]} == {"interests"}
        assert set(without["interests"]) == {"id", "content", "fusion"} - {name}
    tiers = config("sim-mim_plus-SimTier-mim-seed0")
    assert (tiers["plus_num_tiers"], tiers["plus_scalars"], tiers["plus_query"]) == (20, False, False)


def test_a_forecast_counts_the_pictures_of_a_pair(finished):
    """Query, item, and what is drawn beside them: one for a hard negative, two for cross-entropy."""
    _, planning, _ = finished
    sizes = {step.folder.name: step.size for step in planning.plan if step.kind == "csft"}
    assert sizes["purchase_cross_entropy"] * 3 == sizes["mim"] * 4 == sizes["without_st_nsg"] * 6


def test_numbers_are_those_of_the_evaluations(finished):
    out, _, made = finished
    results = read_results(out / "evaluate" / "ubms" / "results.json")
    aucs = [row.auc for row in results.rows if (row.ubm, row.variant, row.slice) == ("mean", "mim", "all")]
    assert len(aucs) == 2
    assert cells(made, "table 2")["Avg Pooling"].cells[1].ours.mean == pytest.approx(sum(aucs) / 2)
    encoders = read_results(out / "evaluate" / "encoders" / "results.json")
    row = [one.auc for one in encoders.rows if (one.encoder, one.variant, one.slice) == ("dda", "mim", "all")]
    assert cells(made, "table 3")["+DDA"].cells[0].ours.mean == pytest.approx(sum(row) / 2)


def test_a_log_without_propensities_says_nothing_of_other_rankings(finished):
    _, _, made = finished
    assert "holds no propensities" in cells(made, "online")["Base+MIM"].not_run


def write_pages(world: Path, tables: Path, *changes: pl.Expr) -> dict[str, object]:
    """Write the shop with its impressions as pages in random orders, then changed; return the recipe's settings."""
    shutil.copytree(world / "shop" / "tables", tables)
    path = tables / "impressions.parquet"
    page = ["user_id", "time"]
    log = pl.read_parquet(path).with_columns(time=pl.col("time") // 400 * 400)
    log = log.unique([*page, "item_id"], maintain_order=True).sample(fraction=1, shuffle=True, seed=0)
    log = log.with_columns(position=pl.int_range(pl.len()).over(page), propensity=1 / pl.len().over(page))
    log.with_columns(*changes).write_parquet(path)
    return {"source": {"kind": "tables", "path": tables}, "ubms": ["mean"], "ubm": "mean", "others": {}}


def test_a_log_without_pages_says_nothing_of_other_rankings(world, tmp_path):
    """Mutants: the last step finds out, after all trainings; encoders are made for it."""
    own_time = pl.col("time") + pl.int_range(pl.len()).over("user_id", "time")
    changed = recipe(world, **write_pages(world, tmp_path / "tables", own_time.alias("time")))
    planning = reproduction.plan(changed, tmp_path / "run", ["online"])
    assert len(planning.plan) == 0
    made = reproduction.main(planning, seconds=None, command="x")
    row = cells(made, "online")["Base+MIM"]
    num_pages = len(CtrDataset.open(tmp_path / "run" / "dataset").rows("test"))
    assert row.not_run == (
        "the test part has no page on which several items could stand otherwise (left out: "
        f"{num_pages:,} with one item), so what another ranking would have earned cannot be estimated from it"
    )


def test_a_field_that_tells_the_place_is_refused_before_anything_is_trained(world, tmp_path):
    """Mutant: the last step finds out, after all trainings."""
    slot = pl.col("position").cast(pl.String).alias("context_slot")
    settings = write_pages(world, tmp_path / "tables", slot)
    told = (
        r"'context_slot' has one value at each position.*'mimctr reproduce' calls off_policy\.position_fields"
    )
    with pytest.raises(ConfigError, match=told):
        reproduction.plan(recipe(world, **settings), tmp_path / "run", ["online"])
    named = recipe(world, **settings, off_policy={"position_fields": ["context_slot"]})
    planning = reproduction.plan(named, tmp_path / "run", ["online"])
    assert [step.kind for step in planning.plan][-1] == "online"


def test_other_libraries_are_shown_where_they_were_measured_on_the_same_data(finished):
    """Mutant: not compared with the dataset."""
    out, planning, made = finished
    manifest = CtrDataset.open(out / "dataset").manifest
    counts = manifest.counts
    peers = PeerResults(
        dataset="shop",
        source_hash=manifest.source_hash,
        seeds=[0],
        num_impressions={part: counts[part] for part in ("train", "validation", "test")},
        settings={},
        not_read=[],
        ceiling_auc=None,
        rows=[],
        command="python benchmarks/bench_peers_data.py",
        machine=made.reproduction.machine,
    )
    path = out / "peers.json"
    try:
        write_peers(path, peers)
        assert assemble(planning, {}, command="").tables[-1] == peers_table(peers)
        more = peers.num_impressions | {"test": counts["test"] + 1}
        write_peers(path, peers.model_copy(update={"num_impressions": more}))
        with pytest.raises(DataError, match=r"peers\.json: \d+ test impressions, .* other data"):
            reproduction.plan(planning.recipe, out, QUICK)  # before anything is made
        write_peers(path, peers.model_copy(update={"source_hash": "0" * 64}))
        with pytest.raises(DataError, match=r"peers\.json: measured on tables 0{12}, .* other data"):
            reproduction.plan(planning.recipe, out, QUICK)
    finally:
        path.unlink()


@pytest.mark.slow
def test_the_online_experiment_ranks_with_the_models_of_every_seed(world, tmp_path):
    """Mutant: Base+MIM ranks with the vectors of another seed."""
    changed = {
        "source": {"kind": "bazaar", "size": "tiny", "seed": 0},
        "prepare": {"test_fraction": 0.2, "validation_fraction": 0.1},
        "ubms": ["mean"],
        "ubm": "mean",
        "others": {},
        "online": {"num_resamples": 10, "click_seeds": [0]},
    }
    planning = reproduction.plan(recipe(world, **changed), tmp_path, ["online"])
    made = reproduction.main(planning, seconds=None, command="x")
    rows = cells(made, "online")
    assert rows["True probabilities"].cells[0].ours.mean > rows["Base"].cells[0].ours.mean
    keys = {one.key for one in made.reproduction.findings}
    assert keys >= {"online:ctr", "online:rpm", "online:ceiling_ctr", "online:ceiling_rpm", "online:agrees"}
    inputs = json.loads((tmp_path / "online" / "stage.json").read_text())["inputs"]
    for seed in (0, 1):
        embedded = json.loads((tmp_path / "embed" / f"mim-seed{seed}" / "stage.json").read_text())
        assert inputs[f"mim {seed}, content"] == embedded["key"]


@pytest.mark.slow
def test_a_log_with_propensities_is_ranked_anew(world, tmp_path):
    """The shop's impressions as pages in random orders: the online experiment is an estimate."""
    changed = recipe(world, **write_pages(world, tmp_path / "tables"))
    planning = reproduction.plan(changed, tmp_path / "run", ["online"])
    made = reproduction.main(planning, seconds=None, command="x")
    rows = cells(made, "online")
    assert list(rows) == ["As logged", "Base", "Base+MIM"]
    assert all(row.not_run is None for row in rows.values())
    assert "test part of shop" in made.reproduction.tables[-1].note
    assert {one.key for one in made.reproduction.findings} == {
        "online:ctr_first",
        "online:ctr",
        "online:agrees",
    }
    assert made.page.is_file()


def test_weights_that_are_not_at_hand_are_told(finished):
    _, _, made = finished
    assert cells(made, "table 3")["+DDA+DMA+C-SFT (MIM)"].not_run is None
    figure = next(one for one in made.reproduction.figures if one.key == "figure 5")
    assert "Not run: EVA (no weights)." in figure.note


def test_in_pieces_it_ends_as_at_once(finished, world, tmp_path):
    """Mutants: what is cut off is lost; a piece makes again what the one before made."""
    _, _, made = finished
    wanted = ["table 2", "table 3"]
    planning = reproduction.plan(recipe(world), tmp_path, wanted)
    steps = len(planning.plan)
    nothing = reproduction.main(planning, seconds=0.0, command="again")
    assert nothing.reproduction.tables == []
    assert [step.not_run for step in nothing.reproduction.steps] == ["no time"] * steps
    assert nothing.reproduction.lacking == ["table 2", "table 3"]
    pace = Pace()
    planning.plan.learn(pace, [])
    first = forecast(planning, pace, 1.0)
    assert first[0].num_made == 0
    assert first[0].num_without_time > 0
    half = reproduction.main(
        reproduction.plan(recipe(world), tmp_path, wanted[:1]), seconds=None, command="a"
    )
    ran = [step.name for step in half.reproduction.steps if step.seconds is not None]
    assert 0 < len(ran) < steps
    before = {name: (tmp_path / name / "stage.json").stat().st_mtime_ns for name in ran}
    whole = reproduction.main(
        reproduction.plan(recipe(world), tmp_path, wanted), seconds=None, command="again"
    )
    assert {name: (tmp_path / name / "stage.json").stat().st_mtime_ns for name in ran} == before
    for key in wanted:
        ours, at_once = cells(whole, key), cells(made, key)
        assert {label: row.cells for label, row in ours.items()} == {
            label: row.cells for label, row in at_once.items() if row.not_run is None
        }


def test_a_seed_that_was_cut_short_is_in_no_table(world, tmp_path):
    """Mutants: a row is a mean over other seeds than the row beside it; a row of all seeds but one is not run."""
    planning = reproduction.plan(recipe(world), tmp_path, ["table 3"])
    whole = reproduction.main(planning, seconds=None, command="x")
    cut = tmp_path / "train" / "sim-mim-dda-seed1"
    results = read_results(tmp_path / "evaluate" / "encoders" / "results.json")
    of_first = {
        row.encoder: row.auc
        for row in results.rows
        if (row.variant, row.slice, row.seed) == ("mim", "all", 0)
    }
    short = assemble(planning, {cut: "no time"}, command="x")
    assert (whole.reproduction.seeds, short.seeds) == ([0, 1], [0])
    rows = {row.label: row for table in short.tables for row in table.rows}
    for label, row in (("+DDA", "dda"), ("+DDA+DMA+C-SFT (MIM)", "mim")):
        assert rows[label].cells[0].ours.mean == of_first[row]
        assert rows[label].cells[2].ours is not None
    assert [step.not_run for step in short.steps if step.name == "train/sim-mim-dda-seed1"] == ["no time"]


@pytest.mark.slow
def test_table_6_is_measured_with_the_encoder_of_the_first_seed(world, tmp_path):
    cost = {"batch_size": 16, "num_steps": 1, "num_warmup_steps": 1, "compared_batch_size": 4}
    wanted = recipe(world, cost=cost | {"num_compared_steps": 1, "distinct": False, "device": "cpu"})
    made = reproduction.main(reproduction.plan(wanted, tmp_path, ["table 6"]), seconds=None, command="x")
    rows = cells(made, "table 6")
    assert rows["Base+MIM"].cells[1].ours.mean > 1
    assert {one.key for one in made.reproduction.findings} >= {"cost:center", "cost:end_to_end"}
    inputs = json.loads((tmp_path / "cost" / "stage.json").read_text())["inputs"]
    assert inputs["content"] == json.loads((tmp_path / "embed/mim-seed0/stage.json").read_text())["key"]


def test_a_forecast_says_what_is_made_and_what_is_left(finished):
    _, planning, _ = finished
    found = forecast(planning, Pace(), None)
    assert [one.experiment for one in found] == QUICK
    assert all(one.num_made == one.num_steps and one.seconds == 0 for one in found)
    text = forecast_table(found, 90.0)
    assert "signal and loss of C-SFT" in text
    assert [line.split()[0] for line in text.splitlines() if "1 min 30 s" in line] == ["evaluation", "all"]


def test_the_evaluation_takes_as_long_as_the_models_of_every_group_score(finished):
    _, planning, _ = finished
    pace = Pace({"evaluate": 0.5})
    data = CtrDataset.open(planning.out / "dataset")
    models = [len({one.folder for one in group}) for group in planning.groups]
    assert evaluation_seconds(planning, pace) == 0.5 * len(data.rows("test")) * sum(models)


@pytest.mark.parametrize("num_made", [0, 3])
@pytest.mark.parametrize("num_fitting", [0, 1, 2])
def test_a_budget_keeps_the_time_that_the_evaluation_takes(finished, monkeypatch, num_made, num_fitting):
    """Eight trainings of a second, half a second of evaluation an impression.

    Mutants: it comes on top; it is kept for all that is planned, so that a short budget never begins.
    """
    out, whole, _ = finished
    planning = reproduction.plan(whole.recipe, out, ["table 2"])
    trainings = [step.folder for step in planning.plan if step.kind.startswith("train ")]
    made = {step.folder for step in planning.plan} - set(trainings[num_made:])
    monkeypatch.setattr(Plan, "made", lambda plan: made)
    monkeypatch.setattr(Plan, "learn", lambda plan, pace, folders: None)
    pace = Pace({"evaluate": 0.5} | {step.kind: 1 / step.size for step in planning.plan if step.size})
    of_a_model = 0.5 * len(CtrDataset.open(out / "dataset").rows("test"))
    budget = num_fitting * 1.0 + (num_made + num_fitting) * of_a_model
    [found] = forecast(planning, pace, budget + 0.5)
    assert (found.num_made, found.num_without_time) == (len(made), 8 - num_made - num_fitting)
    assert found.seconds == pytest.approx(8 - num_made)

    asked = {}

    def run(plan, pace, *, seconds, after):
        asked.update({folder: after(folder) for folder in (*trainings, *made)}, seconds=seconds)
        raise KeyboardInterrupt

    monkeypatch.setattr(Plan, "run", run)
    monkeypatch.setattr(reproduction, "Pace", lambda: pace)
    with pytest.raises(KeyboardInterrupt):
        reproduction.main(planning, seconds=budget, command="x")
    assert asked.pop("seconds") == budget
    assert asked == {folder: of_a_model if folder in trainings else 0.0 for folder in asked}


def tree(folder):
    """Every file below a folder, with its time and size."""
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(folder.rglob("*"))}


def test_to_look_replaces_nothing(finished, world, tmp_path):
    """Mutant: --plan makes the dataset anew where the recipe's settings changed, beneath a run in progress too."""
    out, planning, _ = finished
    before = tree(out)
    forecast(reproduction.plan(planning.recipe, out, QUICK, replace=False), Pace(), 60.0)
    other = recipe(world, prepare={"test_fraction": 0.3})
    with pytest.raises(
        RunError,
        match=r"dataset: its setting test_fraction changed, and --plan replaces nothing\. Leave out --plan to make it "
        r"anew, or choose another folder\.$",
    ):
        reproduction.plan(other, out, QUICK, replace=False)
    assert tree(out) == before

    half = recipe(world, source={"kind": "bazaar", "size": "tiny", "seed": 0})
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "stage.started.json").write_text('{"name": "bazaar", "key": "of another seed"}')
    with pytest.raises(RunError, match=r"tables: it is half made from other settings, and --plan replaces"):
        reproduction.plan(half, tmp_path, QUICK, replace=False)


def test_the_command_line_says_whether_it_only_looks(world, tmp_path):
    """Mutant: --plan is looked at when the dataset is made already."""
    path = tmp_path / "shop.toml"
    path.write_text(
        f'name = "shop"\nquick = ["seeds=[0]"]\n[source]\nkind = "tables"\npath = "{world}/shop/tables"\n'
        f'[evaluate]\nnum_age_sets = 3\n[foundation]\nimage_weights = "{world}/encoders/image"\n'
        f'text_weights = "{world}/encoders/text"\n'
    )

    def look(*words):
        command = ["reproduce", str(path), "--out", str(tmp_path / "run"), "--table", "2", "--plan", *words]
        return CliRunner().invoke(app, command)

    shown = look()
    assert shown.exit_code == 0, shown.output
    assert "six user behavior models" in shown.stdout
    before = tree(tmp_path / "run")
    assert {child.name for child in (tmp_path / "run").iterdir()} == {"dataset"}
    assert look("--quick").stdout != shown.stdout
    refused = look("--set", "prepare.test_fraction=0.3")
    assert refused.exit_code == 1
    assert "its setting test_fraction changed, and --plan replaces nothing" in refused.output
    assert tree(tmp_path / "run") == before


def test_every_model_is_tuned_alike_on_the_first_seed(world, tmp_path):
    grid = {"learning_rate": [0.001, 0.02]}
    wanted = recipe(world, models_grid=grid, ubms=["sim"])
    planning = reproduction.plan(wanted, tmp_path, ["table 2"])
    reproduction.main(planning, seconds=None, command="x")
    for name in ("sim-base", "sim-mim-mim"):
        tried = [json.loads((tmp_path / "tune" / name / str(n) / "model.json").read_text()) for n in (0, 1)]
        aucs = [one["validation"]["auc"] for one in tried]
        best = grid["learning_rate"][aucs.index(max(aucs))]
        for seed in (0, 1):
            config = json.loads((tmp_path / "train" / f"{name}-seed{seed}" / "stage.json").read_text())[
                "config"
            ]
            assert config["learning_rate"] == best
        assert (tmp_path / "train" / f"{name}-seed0" / "stage.json").read_bytes() == (
            tmp_path / "tune" / name / str(grid["learning_rate"].index(best)) / "stage.json"
        ).read_bytes()

    copied = tmp_path / "train" / "sim-base-seed0"
    shutil.rmtree(copied)
    again = reproduction.plan(wanted, tmp_path, ["table 2"])
    assert {step.folder for step in planning.plan} - again.plan.made() == {
        copied,
        tmp_path / "train" / "sim-base-seed1",  # waits for it
    }
    assert not copied.exists()


def test_what_cannot_be_is_refused_in_a_line(world, tmp_path):
    with pytest.raises(ConfigError, match=r"table 9: no such experiment\. There are table 1, table 2"):
        reproduction.plan(recipe(world), tmp_path, ["table 9"])
    with pytest.raises(ConfigError, match=r"ubm = 'sim' is not among ubms\. Name it there too"):
        recipe(world, ubms=["mean"])
    tables = tmp_path / "tables"
    shutil.copytree(world / "shop" / "tables", tables)
    (tables / "searches.parquet").unlink()
    behaviors = pl.read_parquet(tables / "impressions.parquet").filter(pl.col("click") == 1).drop("click")
    behaviors.with_columns(kind=pl.lit("click")).write_parquet(tables / "behaviors.parquet")
    clicks_only = recipe(world, source={"kind": "tables", "path": tables})
    with pytest.raises(RunError, match="no pairs of kind purchase, so there is no C-SFT and no Base"):
        reproduction.plan(clicks_only, tmp_path / "run", ["table 2"])


def test_what_cannot_be_evaluated_is_refused_before_anything_is_trained(world, tmp_path):
    """Mutant: the evaluation finds out, after all trainings."""
    few = recipe(world, evaluate={"num_age_sets": 100})
    with pytest.raises(
        DataError, match=r"its test part has \d+ items, too few for 100 sets by age\. Make it longer"
    ):
        reproduction.plan(few, tmp_path / "few", ["table 2"])
    assert len(reproduction.plan(few, tmp_path / "few", ["table 1"]).plan) == 0


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_a_part_without_clicks_is_refused_before_anything_is_trained(finished, world, tmp_path, part):
    """Mutant: C-SFT or the evaluation finds out, after pre-training or all trainings."""
    manifest = CtrDataset.open(finished[0] / "dataset").manifest
    validation, test = (pl.col("time") >= start for start in (manifest.validation_start, manifest.test_start))
    inside = {"train": ~validation, "validation": validation & ~test, "test": test}[part]
    tables = tmp_path / "tables"
    shutil.copytree(world / "shop" / "tables", tables)
    path = tables / "impressions.parquet"
    log = pl.read_parquet(path).with_columns(click=pl.when(inside).then(0).otherwise("click"))
    log.write_parquet(path)
    unclicked = recipe(world, source={"kind": "tables", "path": tables})
    with pytest.raises(DataError, match=f"its {part} part has no clicks, or nothing else"):
        reproduction.plan(unclicked, tmp_path / "run", ["table 2"])
    assert len(reproduction.plan(unclicked, tmp_path / "run", ["table 1"]).plan) == 0


def test_what_cannot_be_searched_is_refused_before_anything_is_trained(world, tmp_path):
    unsearched = recipe(world, search={"pair_kinds": ["return"]})
    with pytest.raises(
        RunError, match="no pairs of kind return to search for in the validation part, so there is"
    ):
        reproduction.plan(unsearched, tmp_path, ["table 4"])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"pair_shares": [0.5, 0.25, 0.5]},
            r"pair_shares: Input should name each once, got \[0\.5, 0\.25, 0\.5\]",
        ),
        (
            {"ubms": ["sim", "mean", "sim"]},
            r"ubms: Input should name each once, got \['sim', 'mean', 'sim'\]",
        ),
    ],
)
def test_what_is_named_twice_is_refused(world, changes, told):
    with pytest.raises(ConfigError, match=told):
        recipe(world, **changes)


def test_every_share_has_a_name_of_its_own(world, tmp_path):
    """Mutant: shares that round to one percent are one encoder, shown as two points."""
    shares = [0.25, 0.5, 0.252, 0.004, 0.07, 1e-7]
    names = [share_row(share).name for share in shares]
    assert names == ["pairs_25", "pairs_50", "pairs_25.2", "pairs_0.4", "pairs_7", "pairs_0.00001"]
    planning = reproduction.plan(recipe(world, pair_shares=[0.25, 0.252]), tmp_path, ["pairs"])
    asked = {step.folder.name: step.make().config.pair_share for step in planning.plan if step.kind == "csft"}
    assert asked == {"mim": 1.0, "pairs_25": 0.25, "pairs_25.2": 0.252}
