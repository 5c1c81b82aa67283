"""Every mistake in a recipe is named with its key and the nearest known one."""

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from mimctr.errors import ConfigError
from mimctr.recipes.config import build_config, load_config, override, read_toml, to_toml


class Train(BaseModel):
    model_config = ConfigDict(extra="forbid")
    learning_rate: float = Field(0.005, gt=0)
    epochs: int = 1

    @model_validator(mode="after")
    def _slow_is_long(self) -> "Train":
        if self.learning_rate < 0.001 and self.epochs == 1:
            raise ValueError("a learning_rate below 0.001 needs more than one of epochs")
        return self


class Recipe(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    train: Train = Train()
    extra_train: Train | None = None


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text('name = "x"\n[train]\nlearning_rate = 0.01\n')
    return path


def test_a_recipe_is_read_and_overridden(recipe):
    config = load_config(Recipe, recipe, section=None, assignments=["train.epochs=3", "name=other name"])
    assert config == Recipe(name="other name", train=Train(learning_rate=0.01, epochs=3))


def test_a_section_of_a_recipe_can_be_read_alone(recipe):
    assert load_config(Train, recipe, section="train", assignments=["epochs=2"]) == Train(
        learning_rate=0.01, epochs=2
    )
    assert load_config(Train, None, section="train") == Train()


@pytest.mark.parametrize("section", ["train", "extra_train"])
def test_a_misspelt_key_is_named_with_the_nearest_known_one(section):
    with pytest.raises(ConfigError) as caught:
        build_config(Recipe, {"name": "x", section: {"learning_rat": 1.0}}, where="r.toml")
    assert str(caught.value) == f"r.toml: {section}.learning_rat: unknown key. Did you mean 'learning_rate'?"


def test_every_mistake_gets_its_own_line():
    with pytest.raises(ConfigError) as caught:
        build_config(Recipe, {"train": {"learning_rate": -1, "epochs": "many"}, "zzz": 1}, where="r.toml")
    lines = str(caught.value).splitlines()
    assert lines[0] == "r.toml: name: missing. Add it."
    assert lines[1] == "r.toml: train.learning_rate: Input should be greater than 0, got -1."
    assert lines[2].startswith("r.toml: train.epochs: Input should be a valid integer")
    assert lines[3] == "r.toml: zzz: unknown key. Known keys: name, train, extra_train."


def test_a_rule_about_several_settings_prints_its_own_words_and_no_settings():
    with pytest.raises(ConfigError) as caught:
        build_config(Recipe, {"name": "x", "train": {"learning_rate": 0.0005}}, where="r.toml")
    assert str(caught.value) == "r.toml: train: a learning_rate below 0.001 needs more than one of epochs."


def test_broken_and_missing_files_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.toml: no such file"):
        load_config(Recipe, tmp_path / "absent.toml", section=None)
    (tmp_path / "bad.toml").write_text("name = ")
    with pytest.raises(ConfigError, match=r"bad\.toml: not valid TOML"):
        load_config(Recipe, tmp_path / "bad.toml", section=None)


@pytest.mark.parametrize("assignment", ["epochs", "=3"])
def test_an_assignment_without_key_or_value_is_refused(assignment):
    with pytest.raises(ConfigError, match=r"--set .*: must have the form key=value\."):
        override({}, [assignment])


def test_an_assignment_through_a_value_is_refused_and_the_original_is_left_alone():
    values = {"train": {"epochs": 1}}
    with pytest.raises(ConfigError, match="'epochs' is a value, not a section"):
        override(values, ["train.epochs.x=1"])
    assert override(values, ["train.epochs=2"]) == {"train": {"epochs": 2}}
    assert values == {"train": {"epochs": 1}}


def test_a_part_of_a_key_with_spaces_stands_in_quotes():
    """Mutants: cut at every dot; a copy of the uppermost tables only."""
    values = {"others": {"half as wide": {"network": {"width": 2}}}}
    changed = override(values, ['others."half as wide".network.width=3', "others.'a.b'.x=1"])
    assert changed == {"others": {"half as wide": {"network": {"width": 3}}, "a.b": {"x": 1}}}
    assert values == {"others": {"half as wide": {"network": {"width": 2}}}}


@pytest.mark.parametrize("path", ["half as wide", "a..b", "a.", '"a', "#", "[a]\n[b]\nc"])
def test_a_path_that_is_no_key_is_refused(path):
    with pytest.raises(ConfigError, match="is no key"):
        override({}, [f"{path}=1"])


def test_a_section_that_was_written_is_read_as_it_was(tmp_path):
    values = {
        "text": 'a "quoted" näme\\n',
        "yes": True,
        "small": 1e-05,
        "large": 1e22,
        "number": 3,
        "list": [[1, 2], []],
        "table": {"item": 4, "odd name": 2.5},
    }
    path = tmp_path / "r.toml"
    path.write_text(to_toml("train", values), encoding="utf-8")
    assert read_toml(path) == {"train": values}
