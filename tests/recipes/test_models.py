import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from mimctr.errors import ConfigError
from mimctr.recipes import models, stages
from mimctr.recipes.config import build_config
from mimctr.recipes.ctr_config import Config
from mimctr.recipes.models import Models, cells, train_models, train_points
from mimctr.recipes.pipeline import Recipe

GRID = {"learning_rate": [0.001, 0.01], "dropout": [0.0, 0.1, 0.2]}
BEST = {"mean-base": (0.01, 0.1), "mean-mim-plain": (0.001, 0.2), "mean-mim-csft": (0.001, 0.0)}


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Config]]:
    """Every training that is run; its validation AUC falls with the distance from the model's best settings."""
    runs = []

    def run(content: Path | None, out: Path, config: Config) -> None:
        if (out / "model.json").exists():
            return
        runs.append((f"{out.parent.name}/{out.name}", config))
        assert (content is None) == (config.variant == "base")
        name = "-".join([config.ubm, config.variant, config.encoder]).removesuffix("-none")
        best = BEST.get(name, (0.01, 0.0))
        distance = abs(config.learning_rate - best[0]) * 10 + abs(config.dropout - best[1])
        out.mkdir(parents=True)
        (out / "model.json").write_text(json.dumps({"validation": {"auc": 0.7 - distance}}))

    def train(dataset: Path, content: Path | None, out: Path, config: Config) -> SimpleNamespace:
        return SimpleNamespace(run=lambda: run(content, out, config), is_made=lambda: False)

    monkeypatch.setattr(stages, "train", train)
    return runs


def test_every_model_takes_its_own_best_settings_and_keeps_them_for_all_seeds(trained, tmp_path):
    wanted = Models(
        ubms=["mean"],
        variants=["base", "mim"],
        encoders=["plain", "csft"],
        seeds=[3, 4],
        grid=GRID,
        num_workers=1,
    )
    train_models(wanted, Config(epochs=7), dataset=tmp_path, embed=tmp_path / "embed", out=tmp_path)
    tried = [name for name, _ in trained if not name.startswith("train/")]
    assert len(tried) == 3 * 6
    assert sorted(path.name for path in (tmp_path / "train").iterdir()) == sorted(
        f"{name}-seed{seed}" for name in BEST for seed in (3, 4)
    )
    later = {name: config for name, config in trained if name.startswith("train/")}
    assert sorted(later) == sorted(
        f"train/{name}-seed4" for name in BEST
    )  # seed 3 is a copy of what was tried
    for name, (learning_rate, dropout) in BEST.items():
        config = later[f"train/{name}-seed4"]
        assert (config.learning_rate, config.dropout, config.seed, config.epochs) == (
            learning_rate,
            dropout,
            4,
            7,
        )
        kept = json.loads((tmp_path / "train" / f"{name}-seed3" / "model.json").read_text())
        assert kept["validation"]["auc"] == pytest.approx(0.7)
    assert {config.seed for name, config in trained if name in tried} == {3}


def test_a_second_call_trains_nothing(trained, tmp_path):
    wanted = Models(ubms=["mean"], variants=["base"], seeds=[0, 1], grid=GRID, num_workers=1)
    for _ in range(2):
        train_models(wanted, Config(), dataset=tmp_path, embed=tmp_path, out=tmp_path)
    assert len(trained) == 6 + 1


def test_without_a_grid_and_for_the_untrained_cosine_nothing_is_tried(trained, tmp_path):
    untrained = Models(
        ubms=["mean", "sim"], variants=["untrained_cosine"], seeds=[0, 1], grid=GRID, num_workers=1
    )
    train_models(untrained, Config(), dataset=tmp_path, embed=tmp_path, out=tmp_path)
    train_models(
        Models(ubms=["din"], num_workers=1), Config(), dataset=tmp_path, embed=tmp_path, out=tmp_path
    )
    assert [name for name, _ in trained] == [
        "train/mean-untrained_cosine-csft-seed0",
        "train/din-base-seed0",
        "train/din-mim-csft-seed0",
    ]
    assert not (tmp_path / models.TUNE).exists()


def test_the_grid_is_the_product_of_its_values():
    points = train_points(GRID, Config(epochs=2))
    assert [(point.learning_rate, point.dropout, point.epochs) for point in points] == [
        (rate, dropout, 2) for rate in (0.001, 0.01) for dropout in (0.0, 0.1, 0.2)
    ]
    assert train_points({}, Config()) == [Config()]
    assert [cell.name for cell in cells(Models(ubms=["sim"], encoders=["plain"]))] == [
        "sim-base",
        "sim-mim-plain",
    ]


@pytest.mark.parametrize(
    "settings",
    [
        {"train": {"sim_search": "content"}},
        {"models": {"grid": {"sim_search": ["soft", "content"]}}},
        {"train": {"attention_mix": True}, "models": {"ubms": ["mean", "twin"]}},
    ],
    ids=str,
)
def test_settings_that_a_model_cannot_have_are_refused_before_anything_runs(settings):
    recipe = {"name": "x", "source": {"kind": "bazaar"}}
    with pytest.raises(ConfigError, match=r"^r\.toml: .*'mim_plus' alone, not in 'base'\. Train 'mim_plus'"):
        build_config(Recipe, recipe | settings, where="r.toml")
    alone = {"models": {"variants": ["mim_plus", "untrained_cosine"]} | settings.get("models", {})}
    build_config(Recipe, recipe | settings | alone, where="r.toml")


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (
            {"learning_rat": [0.1]},
            r"^r\.toml: models\.grid: learning_rat: unknown key\. Did you mean 'learning_rate'\?$",
        ),
        ({"dropout": [0.1, 2]}, r"^r\.toml: models\.grid: dropout: Input should be less than 1, got 2\.$"),
        ({"seed": [0, 1]}, r"^r\.toml: models\.grid: seed: what is compared cannot be tuned"),
        ({"dropout": []}, r"^r\.toml: models\.grid\.dropout: List should have at least 1 item"),
    ],
)
def test_a_grid_that_does_not_suit_is_refused_before_anything_runs(grid, message):
    recipe = {"name": "x", "source": {"kind": "bazaar"}, "models": {"grid": grid}}
    with pytest.raises(ConfigError, match=message):
        build_config(Recipe, recipe, where="r.toml")
