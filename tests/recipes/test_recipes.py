"""Every recipe that ships can be read."""

from pathlib import Path

import pytest

from mimctr.errors import ConfigError
from mimctr.recipes.config import load_config
from mimctr.recipes.pipeline import Recipe

RECIPES = sorted((Path(__file__).parent.parent.parent / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_a_shipped_recipe_is_valid_and_says_how_it_is_run(path):
    assert load_config(Recipe, path, section=None).name
    assert f"mimctr run recipes/{path.name}" in path.read_text()


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
