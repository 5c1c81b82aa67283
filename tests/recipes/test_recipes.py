"""Every recipe that ships can be read."""

from pathlib import Path

import pytest

from mimctr.errors import ConfigError
from mimctr.recipes import encoder_tables
from mimctr.recipes.config import load_config
from mimctr.recipes.pipeline import Recipe

ROOT = Path(__file__).parent.parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.toml"))
ENCODER_TABLES = sorted((ROOT / "benchmarks").glob("encoder_tables_*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_a_shipped_recipe_is_valid_and_says_how_it_is_run(path):
    assert load_config(Recipe, path, section=None).name
    assert f"mimctr run recipes/{path.name}" in path.read_text()


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
