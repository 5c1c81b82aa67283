"""Every recipe that ships can be read."""

from pathlib import Path
from typing import get_args

import pytest

from mimctr.encoders.registry import find
from mimctr.errors import ConfigError
from mimctr.recipes import encoder_tables
from mimctr.recipes.config import load_config
from mimctr.recipes.ctr_config import Ubm
from mimctr.recipes.pipeline import Recipe
from mimctr.recipes.reproduction.recipe import Recipe as Reproduction

ROOT = Path(__file__).parent.parent.parent
REPRODUCTIONS = sorted((ROOT / "recipes").glob("reproduce_*.toml"))
RECIPES = sorted(set((ROOT / "recipes").glob("*.toml")) - set(REPRODUCTIONS))
ENCODER_TABLES = sorted((ROOT / "benchmarks").glob("encoder_tables_*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_a_shipped_recipe_is_valid_and_says_how_it_is_run(path):
    assert load_config(Recipe, path, section=None).name
    assert f"mimctr run recipes/{path.name}" in path.read_text()


@pytest.mark.parametrize("path", REPRODUCTIONS, ids=lambda path: path.name)
def test_a_reproduction_is_valid_also_in_its_quick_form_and_says_how_it_is_run(path):
    whole = load_config(Reproduction, path, section=None)
    quick = load_config(Reproduction, path, section=None, assignments=whole.quick)
    assert (len(whole.seeds), len(quick.seeds)) == (3, 1)
    assert set(whole.ubms) == set(get_args(Ubm))
    assert f"mimctr reproduce recipes/{path.name}" in path.read_text()


def test_the_papers_recipe_has_the_papers_settings():
    """Section 4: EVA-02 and BGE, N = 1024, k = 10, alpha = beta = 0.5, Adam with 0.005 and 1024."""
    recipe = load_config(Recipe, RECIPES[0].parent / "paper.toml", section=None)
    rows = [find(recipe.foundation.image_weights), find(recipe.foundation.text_weights)]
    assert [row.hub.split("/")[1].split("_")[0] for row in rows] == ["eva02", "bge-base-en-v1.5"]
    assert recipe.pretrain.masked_image
    assert recipe.pretrain.language
    assert recipe.pretrain.alignment
    assert (recipe.csft.batch_size, recipe.csft.num_memory_batches) == (1024, 10)
    assert (recipe.csft.text_weight, recipe.csft.image_weight) == (0.5, 0.5)
    assert recipe.csft.hard_negatives
    assert (recipe.csft.trainable, recipe.csft.objective) == ("all", "contrastive")
    assert recipe.csft.pair_kinds == ["purchase"]
    assert (recipe.train.learning_rate, recipe.train.batch_size) == (0.005, 1024)
    assert set(recipe.models.ubms) == set(get_args(Ubm))
    assert rows[0].size % recipe.pretrain.masked_patch == 0


@pytest.mark.parametrize("path", ENCODER_TABLES, ids=lambda path: path.name)
def test_the_encoder_tables_recipes_are_valid_and_say_how_they_are_run(path):
    assert load_config(encoder_tables.Recipe, path, section=None).name
    assert f"mimctr encoder-tables benchmarks/{path.name}" in path.read_text()


def test_vectors_of_a_stage_that_is_not_run_are_refused():
    with pytest.raises(
        ConfigError, match=r"models\.encoders asks for 'pretrained', but there is no \[pretrain\]"
    ):
        load_config(
            Recipe,
            None,
            section=None,
            assignments=["name=x", 'source={kind="bazaar"}', 'models={encoders=["pretrained"]}'],
        )
