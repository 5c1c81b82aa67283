"""The encoder tables on the minuscule shop: every row starts from the right towers and differs only in what it says."""

import json
import re
import shutil
from pathlib import Path

import polars as pl
import pytest
from csft.shop import write_encoders, write_shop

from mimctr.data.dataset import CtrDataset
from mimctr.encoders.architecture import architecture
from mimctr.encoders.image import ImageEncoder
from mimctr.encoders.item import ItemEncoder
from mimctr.encoders.text import TextEncoder
from mimctr.errors import ConfigError, DataError, RunError
from mimctr.evaluate.encoder_results import read_encoder_results
from mimctr.recipes import csft, encoder_tables, foundation, plain, random_towers, search, stages
from mimctr.recipes.catalogue import KEPT
from mimctr.recipes.config import build_config
from mimctr.recipes.encoder_rows import ROWS
from mimctr.weights import load_tensors

CSFT = {
    "dim": 4,
    "hidden": 3,
    "batch_size": 8,
    "num_steps": 2,
    "evaluate_every": 1,
    "device": "cpu",
    "bf16": False,
    "head_learning_rate": 0.05,
}
PRETRAIN = {
    "masked_image_steps": 1,
    "language_steps": 1,
    "alignment_steps": 1,
    "batch_size": 4,
    "masked_patch": 4,
    "device": "cpu",
    "bf16": False,
}
KINDS = ("all", "item:unseen", "item:seen")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Raw tables with visual searches, raw tables without clicks, and untrained encoders."""
    root = tmp_path_factory.mktemp("world")
    write_shop(root / "shop")
    write_shop(root / "behaviors", searches=False)
    behaviors = root / "behaviors" / "tables" / "behaviors.parquet"
    pl.read_parquet(behaviors).filter(pl.col("kind") == "purchase").write_parquet(behaviors)
    write_encoders(root / "encoders")
    return root


def recipe(world, tables="shop", **changes) -> encoder_tables.Recipe:
    values = {
        "name": "shop",
        "source": {"kind": "tables", "path": world / tables / "tables"},
        "foundation": {
            "image_weights": world / "encoders" / "image",
            "max_tokens": 12,
            "text_weights": world / "encoders" / "text",
        },
        "pretrain": PRETRAIN,
        "csft": CSFT,
        "seeds": [0, 1],
        "num_resamples": 20,
    }
    return build_config(encoder_tables.Recipe, values | changes, where="recipe")


@pytest.fixture(scope="module")
def finished(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("tables") / "run"
    grid = {"head_learning_rate": [0.05, 0.0001]}
    others = {"DINOv2": {"image_weights": "dinov2-base", "text_weights": world / "encoders" / "text"}}
    wanted = recipe(world, grid=grid, others=others)
    return out, wanted, encoder_tables.main(wanted, out)


def record(folder) -> dict:
    return json.loads((folder / "stage.json").read_text())


def test_every_row_differs_from_mim_in_what_it_says_and_in_nothing_else(finished):
    """Mutant: the settings of a row are forgotten."""
    out, wanted, _ = finished
    for row in ROWS:
        for seed in wanted.seeds if row.csft is not None else ():
            config = record(out / f"seed{seed}" / row.name)["config"]
            expected = wanted.csft.model_dump(mode="json") | row.csft | {"seed": seed}
            chosen = config.pop("head_learning_rate")
            assert chosen in (0.05, 0.0001)
            assert chosen == record(out / "seed0" / row.name)["config"].get("head_learning_rate")
            expected.pop("head_learning_rate")
            assert config == expected


def test_rows_start_from_their_towers(finished):
    """Mutants: +DDA starts from DMA's towers; a seed's C-SFT starts from another seed's."""
    out, wanted, _ = finished
    for row in ROWS:
        for seed in (0,) if row.fixed else wanted.seeds:
            at = out / f"seed{seed}"
            towers = out / "foundation" if row.towers == "foundation" else at / "towers" / row.towers
            assert record(at / row.name)["inputs"]["encoders"] == record(towers)["key"]
            assert record(at / "search" / row.name)["inputs"]["encoder"] == record(at / row.name)["key"]
    dda, dma = (record(out / "seed1" / "towers" / name) for name in ("dda", "dma"))
    assert dda["inputs"]["encoders"] == record(out / "foundation")["key"]
    assert dma["inputs"]["encoders"] == dda["key"]
    steps = ("masked_image", "language", "alignment")
    assert [dda["config"][step] for step in steps] == [True, True, False]
    assert [dma["config"][step] for step in steps] == [False, False, True]


def test_the_grid_takes_what_is_best_on_validation_with_the_first_seed(finished):
    out, _, _ = finished
    for row in (row for row in ROWS if row.csft is not None):
        tried = []
        for number in (0, 1):
            lines = (out / "tune" / row.name / str(number) / "metrics.jsonl").read_text().splitlines()
            tried.append(max(json.loads(line).get("recall@10", -1) for line in lines))
        best = (0.05, 0.0001)[int(tried[1] > tried[0])]
        assert record(out / "seed1" / row.name)["config"]["head_learning_rate"] == best
        assert record(out / "seed0" / row.name) == record(
            out / "tune" / row.name / str((0.05, 0.0001).index(best))
        )


def test_the_json_holds_the_means_of_the_searches(finished):
    out, wanted, made = finished
    results = read_encoder_results(made.results)
    for row in ROWS:
        seeds = [0, 0] if row.fixed else wanted.seeds
        found = [
            json.loads((out / f"seed{s}" / "search" / row.name / "search.json").read_text()) for s in seeds
        ]
        for part in ("validation", "test"):
            for name in KINDS:
                measured = results.find(row.name, part, name, "recall@10")
                if measured is not None:
                    assert measured.by_seed == pytest.approx([one[part][name]["recall@10"] for one in found])
    assert made.markdown.read_text() == made.tables
    assert "## Table 4" in made.tables


def test_weights_that_are_not_here_are_not_run(finished):
    out, _, made = finished
    rows = {row.name: row for row in read_encoder_results(made.results).rows}
    for name in ("plain, DINOv2", "dma, DINOv2", "mim, DINOv2"):
        assert rows[name].not_run == "no weights"
    assert "| Plain FoM, DINOv2 | not run: no weights |" in made.tables
    assert rows["mim"].not_run is None
    assert not (out / "others").exists()


def test_a_second_call_makes_nothing_again(finished, monkeypatch):
    out, wanted, made = finished
    monkeypatch.setattr("mimctr.train.stage.write_json", None)  # what a stage that runs would call
    assert encoder_tables.main(wanted, out) == made


def test_without_clicks_their_rows_are_not_run_and_kept_vectors_spare_the_towers(
    world, tmp_path, monkeypatch
):
    """Mutant: C-SFT of frozen towers runs them although the plain encoder has kept what they say."""
    frozen = {**CSFT, "trainable": "heads", "keep_vectors": True}
    foundation = recipe(world).foundation.model_dump(mode="json")
    wanted = recipe(world, tables="behaviors", csft=frozen, seeds=[0], others={"given again": foundation})
    ran = []
    image_vectors = ItemEncoder.image_vectors
    monkeypatch.setattr(
        ItemEncoder, "image_vectors", lambda self, pixels: ran.append(1) or image_vectors(self, pixels)
    )
    made = encoder_tables.main(wanted, tmp_path / "run")
    assert (
        len(ran) == 6
    )  # once a plain geometry: random, plain, +DDA, +DDA+DMA; plain and +DDA+DMA of the others
    results = read_encoder_results(made.results)
    reasons = {row.name: row.not_run for row in results.rows}
    clicks = {"click_cross_entropy", "click_contrastive"}
    assert {name for name, reason in reasons.items() if reason} == clicks
    assert {reasons[name] for name in clicks} == {"no pairs of kind click"}

    for name in ("plain", "dma", "mim"):
        ours, theirs = (results.find(row, "test", "all", "mrr") for row in (name, f"{name}, given again"))
        assert theirs.by_seed == ours.by_seed

    bare = tmp_path / "bare"
    shutil.copytree(tmp_path / "run" / "seed0" / "dma", bare)
    (bare / KEPT).unlink()
    ours = json.loads((tmp_path / "run" / "seed0" / "mim" / "search.json").read_text())
    again = csft.main(tmp_path / "run" / "dataset", bare, tmp_path / "again", wanted.csft)
    assert ours == again


def test_a_setting_that_rows_differ_in_cannot_be_tuned(world):
    with pytest.raises(ConfigError, match=r"grid: fusion: what is compared cannot be tuned"):
        recipe(world, grid={"fusion": ["tensor", "concat"]})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"pretrain": {"masked_image": False, "language": False}},
            r"language are false, but .* row \+DDA\. Leave",
        ),
        (
            {"pretrain": {"alignment": False}},
            r"pretrain\.alignment is false, but Table 3 has a row \+DDA\+DMA",
        ),
        (
            {"csft": {"pair_kinds": ["click"]}},
            r"csft\.pair_kinds = \['click'\], but .* compares purchases with clicks",
        ),
        ({"csft": {"pair_kinds": ["purchase", "click"]}}, "compares purchases with clicks"),
        ({"csft": {"pair_kinds": []}}, "compares purchases with clicks"),
        ({"seeds": [3, 1, 3]}, r"seeds: Input should name each seed once, got \[3, 1, 3\]\."),
        *(
            (
                {"others": {name: {}}},
                rf"others: the name {re.escape(repr(name))} is a folder's too\. .* or _\.$",
            )
            for name in ("facebook/dinov2", "../x", "..", ".hidden", "", "a\nb", "a, b")
        ),
    ],
)
def test_what_would_fail_or_lie_later_is_refused_in_a_line(world, changes, told):
    with pytest.raises(ConfigError, match=told) as refused:
        recipe(world, **changes)
    assert "\n" not in str(refused.value)


def test_names_of_foundation_models_may_have_what_folders_may(world):
    names = ["DINOv2 and BGE", "half as wide", "ViT-B_16+.5", "größer"]
    assert list(recipe(world, others={name: {} for name in names}).others) == names


def test_one_part_of_dda_suffices(world):
    assert not recipe(world, pretrain={"masked_image": False}).pretrain.masked_image


def test_what_cannot_be_searched_is_refused_before_anything_is_trained(world, tmp_path):
    """Mutant: only training pairs are looked for."""
    wanted = recipe(world, search={"pair_kinds": ["return"]})
    with pytest.raises(
        RunError, match=r"no pairs of kind return to search for in the validation part, so no row"
    ):
        encoder_tables.main(wanted, tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["dataset"]


@pytest.mark.parametrize("query", ["picture", "item"])
def test_ranks_equal_a_loop_over_raw_pictures_and_titles(world, tmp_path, query):
    dataset = world / ("shop" if query == "picture" else "behaviors") / "dataset"
    plain.main(
        dataset,
        world / "encoders",
        tmp_path / "plain",
        plain.Config(dim=4, hidden=3, device="cpu", bf16=False, keep_vectors=query == "item"),
    )
    search.main(dataset, tmp_path / "plain", tmp_path / "search", search.Config(device="cpu"))
    found = load_tensors(tmp_path / "search" / search.RANKS)[0]
    data, encoder = CtrDataset.open(dataset), ItemEncoder.load(tmp_path / "plain")
    pictures = [data.item_images.get(row) for row in range(data.num_items)]
    items, known = encoder.embed_items(pictures, data.items["title"].to_list())
    times = data.items["first_seen_time"].to_list()
    for part in ("validation", "test"):
        pairs = data.pairs.filter((pl.col("part") == part) & (pl.col("kind") == "purchase"))
        expected = []
        for pair in pairs.iter_rows(named=True):
            picture = (
                data.queries.images.get(pair["query"] - 1)
                if pair["query"]
                else data.item_images.get(pair["query_item"] - 2)
            )
            if picture is None or not known[pair["item"] - 2]:
                continue
            asked, _ = encoder.embed_query_images([picture])
            own = float(asked[0] @ items[pair["item"] - 2])
            rank = 1.0
            for row in range(data.num_items):
                competes = known[row] and times[row] <= pair["time"] and row + 2 != pair["query_item"]
                if competes and row + 2 != pair["item"]:
                    cosine = float(asked[0] @ items[row])
                    rank += 0.5 if abs(cosine - own) < 1e-6 else float(cosine > own)
            expected.append(rank)
        assert found[f"{part}.rank"].tolist() == expected


def test_a_part_without_purchases_is_an_error(world, tmp_path):
    dataset = world / "shop" / "dataset"
    plain.main(dataset, world / "encoders", tmp_path / "plain", plain.Config(dim=4, hidden=3, device="cpu"))
    with pytest.raises(DataError, match=r"no interest pair of kind \['return'\] in the validation part"):
        search.main(
            dataset, tmp_path / "plain", tmp_path / "s", search.Config(device="cpu", pair_kinds=["return"])
        )


def test_random_towers_differ_in_their_weights_only(world, tmp_path):
    for name, seed in (("a", 0), ("again", 0), ("b", 1)):
        random_towers.main(world / "encoders", tmp_path / name, random_towers.Config(seed=seed))
    for kind, load in (("image", ImageEncoder.load), ("text", TextEncoder.load)):
        given, a, again, b = (
            load(root / kind) for root in (world / "encoders", *(tmp_path / n for n in ("a", "again", "b")))
        )
        assert a.fingerprint == again.fingerprint
        assert len({given.fingerprint, a.fingerprint, b.fingerprint}) == 3
        assert a.preprocessing == given.preprocessing
        assert architecture(a.network) == architecture(given.network)
        shapes = [{n: t.shape for n, t in one.network.state_dict().items()} for one in (given, a)]
        assert shapes[0] == shapes[1]
        assert all(t.isfinite().all() for t in a.network.state_dict().values())


def test_other_weights_in_the_same_folder_are_another_input(world, tmp_path):
    """Mutant: a stage knows the path of given weights alone."""
    weights = {}
    for part in ("image", "text"):
        weights[f"{part}_weights"] = Path(shutil.copytree(world / "encoders" / part, tmp_path / part))
    config = foundation.Config(**weights, max_tokens=12)
    stages.foundation(None, tmp_path / "out", config).run()
    assert stages.foundation(None, tmp_path / "out", config).is_made()
    for part in ("image", "text"):
        file = next((tmp_path / part).glob("*.safetensors"))
        before = file.read_bytes()
        file.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        assert not stages.foundation(None, tmp_path / "out", config).is_made()
        file.write_bytes(before)
        assert stages.foundation(None, tmp_path / "out", config).is_made()
