"""What a training answers to wrong input: one line that says where, what and what to do; never a traceback."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from mimctr.center.snapshot_writer import write_snapshot
from mimctr.cli import app
from mimctr.data.dataset import CtrDataset
from mimctr.data.prepare import prepare_tables
from mimctr.errors import CenterError, ConfigError, DataError, RunError, StaleSnapshot
from mimctr.recipes import ctr_fitting, features, stages, sweep
from mimctr.recipes.config import build_config
from mimctr.recipes.embed import ITEMS, QUERIES
from mimctr.recipes.prepare import Config as PrepareConfig
from mimctr.recipes.train import Config, main
from recipes.test_train import NUM_ITEMS, SMALL, write_shop

DIM = 3
EXAMPLE = Path(__file__).parents[2] / "examples" / "gradient_boosting.py"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables, the dataset and, in ``content``, a vector for every item."""
    folder = tmp_path_factory.mktemp("shop")
    write_shop(folder / "tables")
    prepare_tables(folder / "tables", folder / "dataset")
    write_content(folder / "content", CtrDataset.open(folder / "dataset").items["item_key"].to_numpy())
    return folder


def write_content(folder: Path, keys: np.ndarray, *, query_dim: int = DIM) -> Path:
    vectors = np.random.default_rng(0).normal(size=(len(keys), DIM)).astype(np.float32)
    write_snapshot(folder / ITEMS, keys, vectors, encoder="random")
    nothing = np.zeros((0, query_dim), dtype=np.float32)
    write_snapshot(folder / QUERIES, np.zeros(0, dtype=np.int64), nothing, encoder="random")
    return folder


def train(dataset: Path, content: Path | None, out: Path, **settings: object) -> None:
    main(dataset, content, out, Config(**(SMALL | {"variant": "base", "ubm": "mean"} | settings)))


def command(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


class TestOneClass:
    """Mutant: the training starts, and a metric fails after its first epoch."""

    @pytest.mark.parametrize(
        ("part", "label"), [("train", 0), ("train", 1), ("validation", 0), ("validation", 1)]
    )
    def test_a_part_of_one_class_is_refused_before_the_first_step(
        self, part, label, shop, tmp_path, monkeypatch
    ):
        rows = CtrDataset.open(shop / "dataset").rows(part)
        table = pl.read_parquet(shop / "tables" / "impressions.parquet").with_row_index()
        inside = pl.col("index").is_between(rows.start, rows.stop - 1)
        table = table.with_columns(click=pl.when(inside).then(label).otherwise("click").cast(pl.Int8))
        (tmp_path / "tables").mkdir()
        shutil.copy(shop / "tables" / "items.parquet", tmp_path / "tables")
        table.drop("index").write_parquet(tmp_path / "tables" / "impressions.parquet")
        summary = prepare_tables(tmp_path / "tables", tmp_path / "dataset")
        told = [problem.message for problem in summary.problems if problem.rule == "one-class"]
        assert len(told) == 1
        assert f"all {len(rows):,} impressions of the {part} part have the label {label}; " in told[0]

        monkeypatch.setattr(ctr_fitting, "take_step", lambda *_, **__: pytest.fail("a step was made"))
        with pytest.raises(
            DataError, match=f"all {len(rows):,} impressions of its {part} part have the label {label}"
        ):
            train(tmp_path / "dataset", None, tmp_path / "out")


class TestVectors:
    def test_a_snapshot_older_than_the_catalogue_is_told_with_the_share(self, shop, tmp_path, caplog):
        # Mutant: items that have no content counted, too.
        items = CtrDataset.open(shop / "dataset").items
        shutil.copytree(shop / "tables", tmp_path / "tables")
        untitled = pl.when(pl.int_range(pl.len()) < 10).then(None).otherwise("title").alias("title")
        pl.read_parquet(tmp_path / "tables" / "items.parquet").with_columns(untitled).write_parquet(
            tmp_path / "tables" / "items.parquet"
        )
        prepare_tables(tmp_path / "tables", tmp_path / "dataset")
        content = write_content(tmp_path / "content", items["item_key"].to_numpy()[10:50])
        train(tmp_path / "dataset", content, tmp_path / "out", variant="mim")
        assert f"110 of {NUM_ITEMS} items (68.8 %) have a picture or a title, but no vector." in caplog.text

    @pytest.mark.parametrize("command", ["train", "features"])
    def test_vectors_of_none_of_the_items_are_refused(self, command, shop, tmp_path):
        keys = CtrDataset.open(shop / "dataset").items["item_key"].to_numpy()
        content = write_content(tmp_path / "content", keys + 10**6)
        with pytest.raises(
            StaleSnapshot, match=f"none of its {NUM_ITEMS} vectors belongs to one of the {NUM_ITEMS} items"
        ):
            if command == "train":
                train(shop / "dataset", content, tmp_path / "out", variant="mim")
            else:
                features.main(shop / "dataset", content, tmp_path / "out", features.Config())

    def test_queries_of_another_width_are_refused(self, shop, tmp_path):
        keys = CtrDataset.open(shop / "dataset").items["item_key"].to_numpy()
        content = write_content(tmp_path / "content", keys, query_dim=7)
        with pytest.raises(CenterError, match="the queries have 7 dimensions, those of the items 3"):
            train(shop / "dataset", content, tmp_path / "out", variant="mim_plus")


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "told"),
        [
            ({"learning_rate": float("inf")}, r"learning_rate: Input should be a finite number, got inf\."),
            ({"dropout": float("nan")}, r"dropout: Input should be a finite number, got nan\."),
            (
                {"seed": 2**70},
                r"seed: Input should be a whole number of at most 4,611,686,018,427,387,904, got 1,180,",
            ),
            ({"hidden_dims": [0]}, r"hidden_dims\.0: Input should be greater than 0, got 0\.$"),
            ({"hidden_dims": [8, -1]}, r"hidden_dims\.1: Input should be greater than 0, got -1\.$"),
            ({"hidden_dims": []}, r"hidden_dims: List should have at least 1 item"),
            ({"dims": {"item": -2}}, r"dims\.item: Input should be greater than 0, got -2\."),
            (
                {"interests": ["id", "id"]},
                r"interests: Input should name each interest once, got \['id', 'id'\]\.",
            ),
            ({"hidden_dims": 8}, r"hidden_dims: Input should be a list, as in \[a, b\], got 8\."),
            ({"dims": 8}, r"dims: Input should be a table, as in \{name = value\}, got 8\."),
            ({"learning_rate": 0}, r"learning_rate: Input should be greater than 0, got 0\."),
            (
                {"max_gradient_norm": -1},
                r"max_gradient_norm: Input should be greater than or equal to 0, got -1\.",
            ),
            ({"bf16": "float64"}, r"bf16: Input should be a valid boolean, .* got 'float64'\."),
            ({"ubm": "dein"}, r"ubm: Input should be 'mean', 'din', .* got 'dein'\."),
            ({"bst_num_heads": 0}, r"bst_num_heads: Input should be greater than or equal to 1, got 0\."),
            ({"twin_q": 3}, r"twin_q: unknown key\. Did you mean 'twin_k'\?"),
        ],
    )
    def test_each_is_told_with_its_key(self, settings, told):
        with pytest.raises(ConfigError, match=rf"^r\.toml \[train\]: {told}"):
            build_config(Config, settings, where="r.toml [train]")

    def test_a_length_no_log_can_have_is_refused(self):
        with pytest.raises(
            ConfigError, match=r"pair_window_days: Input should be less than or equal to 40177, got 1e\+300"
        ):
            build_config(PrepareConfig, {"pair_window_days": 1e300}, where="r.toml")

    def test_the_width_of_a_table_that_is_not_there_is_told(self, shop, tmp_path):
        # Mutant: a misspelt table keeps its width, silently.
        with pytest.raises(
            ConfigError, match=r"dims: 'itm' is no table of this model\. Did you mean 'item'\?"
        ):
            train(shop / "dataset", None, tmp_path / "out", dims={"itm": 3})

    @pytest.mark.parametrize("setting", ["cross_rank=4", 'cross_structure="parallel"'])
    def test_what_is_for_cross_layers_is_refused_without_any(self, setting, shop, tmp_path):
        # Mutant: a plain network is trained and called one with cross layers.
        shown = command("train", shop / "dataset", "--out", tmp_path / "out", "--set", setting)
        assert shown.exit_code == 1
        assert shown.stderr.endswith(": there are no cross layers. Set cross_layers, too, or leave it out.\n")

    def test_a_device_that_holds_no_numbers_is_refused(self, shop, tmp_path):
        with pytest.raises(ConfigError, match="device: nothing can be computed on 'meta'"):
            train(shop / "dataset", None, tmp_path / "out", device="meta")


class TestCommands:
    """What a user types."""

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (["--set", "learning_rate"], "--set learning_rate: must have the form key=value."),
            (
                ["--set", "train.epochs=2"],
                "--set train.epochs=2: keys stand here without 'train.': --set epochs=2.",
            ),
            (
                ["--config", "r.toml"],
                "r.toml: has no section [train], only: trian. Put the settings below a line [train].",
            ),
        ],
    )
    def test_settings_that_would_have_no_effect_are_refused(self, words, told, shop, tmp_path, monkeypatch):
        # Mutant: a misspelt section is read as none, and the defaults are trained.
        monkeypatch.chdir(tmp_path)
        Path("r.toml").write_text("[trian]\nepochs = 2\n")
        shown = command("train", shop / "dataset", "--out", "out", *words)
        assert (shown.exit_code, shown.stderr) == (1, f"mimctr: {told}\n")
        assert not Path("out").exists()

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            ([], "content: the variant 'mim' reads content vectors, and none are given."),
            (["--set", "variant=base", "--set", "hash_buckets.itm=5"], "'itm' is no table of this model."),
            (
                ["--set", "variant=base", "--set", "sim_search=content"],
                "sim_search = 'content': an extension",
            ),
            (["--set", "variant=base", "--set", "attention_mix=true"], "attention_mix = true: an extension"),
        ],
    )
    def test_a_refusal_leaves_nothing_half_made(self, words, told, shop, tmp_path):
        shown = command("train", shop / "dataset", "--out", tmp_path / "out", *words)
        assert shown.exit_code == 1
        assert shown.stderr.count("\n") == 1
        assert told in shown.stderr
        assert list((tmp_path / "out").iterdir()) == []

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (["--search", "dropout"], "--search dropout: must have the form setting=values: "),
            (
                ["--search", "train.dropout=0.1,0.2"],
                "--search train.dropout=0.1,0.2: 'train.dropout' is no set",
            ),
            (["--minutes", "0"], "command line [sweep]: minutes: Input should be greater than 0, got 0.0."),
            (
                ["--num-trials", "-2"],
                "command line [sweep]: num_trials: Input should be greater than or equal",
            ),
            (["--set", "sim_search=content"], "sim_search = 'content': an extension"),
            (["--config", "r.toml"], "r.toml: has no section [sweep], only: trian."),
        ],
    )
    def test_a_sweep_that_cannot_be_is_one_line(self, words, told, shop, tmp_path, monkeypatch):
        # Mutant: trials of Base with an extension that only MIM+ may have.
        monkeypatch.chdir(tmp_path)
        Path("r.toml").write_text("[trian]\nepochs = 2\n")
        base = ["--out", "out", "--set", "variant=base", "--search", "epochs=1,2"]
        shown = command("sweep", shop / "dataset", *base, *words)
        assert shown.exit_code == 1
        assert shown.stderr.startswith(f"mimctr: {told}")
        assert shown.stderr.count("\n") == 1
        assert not Path("out").exists()


class TestMemory:
    """PyTorch's CPU allocator really refuses; no mock."""

    def test_a_model_too_large_is_told_with_what_makes_it_smaller(self, shop, tmp_path):
        with pytest.raises(
            RunError, match=r"the model: out of memory; [\d,.]+ GiB more .* smaller embedding_dim"
        ):
            train(shop / "dataset", None, tmp_path / "out", embedding_dim=2**40)

    def test_a_batch_too_large_is_told_with_the_size_to_try(self, shop, tmp_path):
        # In a process that may take 1 GiB more than it has: a layer's output for 4,000 impressions is 1.2 GiB.
        program = (
            "import resource, sys, torch\n"
            "from pathlib import Path\n"
            "from mimctr.errors import RunError\n"
            "from mimctr.recipes import stages\n"
            "from mimctr.recipes.train import Config\n"
            "torch.set_num_threads(1)\n"
            "config = Config(ubm='mean', variant='base', batch_size=4000, hidden_dims=(80_000,), device='cpu')\n"
            "pages = int(Path('/proc/self/statm').read_text().split()[0])\n"
            "limit = pages * resource.getpagesize() + 2**30\n"
            "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
            "try:\n"
            "    stages.train(Path(sys.argv[1]), None, Path(sys.argv[2]), config).run()\n"
            "except RunError as error:\n"
            "    print(error)\n"
        )
        command = [sys.executable, "-c", program, shop / "dataset", tmp_path / "out"]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        assert printed.count("\n") == 1
        assert "out: out of memory; " in printed
        assert printed.endswith("The batch size is 4,000: try batch_size = 2000.\n")

    def test_other_errors_of_pytorch_keep_their_traceback(self, shop, tmp_path, monkeypatch):
        def wrong(*_: object, **__: object) -> None:
            torch.ones(2) @ torch.ones(3)

        monkeypatch.setattr(ctr_fitting, "take_step", wrong)
        with pytest.raises(RuntimeError, match="inconsistent tensor size"):
            stages.train(shop / "dataset", None, tmp_path / "out", Config(**SMALL, variant="base")).run()


class TestDamage:
    @pytest.mark.parametrize(
        "name",
        [
            "impressions/target.npy",
            "impressions/click.npy",
            "impressions/end.npy",
            "impressions/user_fields.npy",
            "behaviors/item.npy",
            "behaviors/offsets.npy",
            "items/fields.npy",
            "items/train_counts.npy",
            "items.parquet",
            "users.parquet",
        ],
    )
    def test_a_flipped_bit_of_a_dataset_is_told(self, name, shop, tmp_path):
        shutil.copytree(shop / "dataset", tmp_path / "dataset")
        path = tmp_path / "dataset" / name
        content = bytearray(path.read_bytes())
        content[-9] ^= 1
        path.write_bytes(content)
        for recipe in (
            lambda: train(tmp_path / "dataset", None, tmp_path / "out"),
            lambda: features.main(
                tmp_path / "dataset", shop / "content", tmp_path / "out", features.Config()
            ),
        ):
            with pytest.raises(RunError, match=rf"{name}: its bytes do not match its checksum"):
                recipe()

    @pytest.mark.parametrize("name", [ITEMS, QUERIES])
    def test_a_flipped_bit_of_the_vectors_is_told_before_the_first_step(
        self, name, shop, tmp_path, monkeypatch
    ):
        # Mutant: what is memory-mapped is trained on as it is.
        content = tmp_path / "content"
        for part, num in ((ITEMS, NUM_ITEMS), (QUERIES, 5)):
            keys = np.arange(num) if part == QUERIES else CtrDataset.open(shop / "dataset").items["item_key"]
            write_snapshot(content / part, np.array(keys), np.ones((num, DIM)), encoder="random")
        path = content / name / "vectors.safetensors"
        path.write_bytes(path.read_bytes()[:-1] + b"\x01")
        monkeypatch.setattr(ctr_fitting, "take_step", lambda *_, **__: pytest.fail("a step was made"))
        space = {"search": {"dropout": "0.0,0.1"}}
        config = Config(**SMALL, variant="mim", ubm="mean")
        for recipe in (
            lambda: train(shop / "dataset", content, tmp_path / "out", variant="mim"),
            lambda: sweep.main(shop / "dataset", content, tmp_path / "out", sweep.Config(**space), config),
            lambda: features.main(shop / "dataset", content, tmp_path / "out", features.Config()),
        ):
            with pytest.raises(CenterError, match=rf"{name}/vectors\.safetensors: its bytes do not match"):
                recipe()
        assert not (tmp_path / "out").exists()

    def test_a_folder_that_is_no_dataset_is_told(self, shop, tmp_path):
        with pytest.raises(RunError, match=r"tables: holds no dataset \(manifest.json is missing\)"):
            train(shop / "tables", None, tmp_path / "out")


@pytest.mark.parametrize("missing", ["dataset", "features"])
def test_the_example_names_the_file_that_is_missing(missing, shop, tmp_path):
    dataset = shop / "dataset" if missing == "features" else tmp_path
    done = subprocess.run(
        [sys.executable, EXAMPLE, dataset, tmp_path / "f.parquet"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.rstrip().endswith("first, or correct the path.")
    assert "Traceback" not in done.stderr
