"""The command line translates: results on stdout, one line a problem on stderr, no traceback."""

import errno
import json
import re
import tomllib

import polars as pl
import pytest
from typer.testing import CliRunner

from mimctr import __version__
from mimctr.cli import app
from mimctr.recipes.config import build_config
from mimctr.recipes.settings import CONFIGS, RECIPES
from mimctr.recipes.sources import Bazaar

RUNNER = CliRunner()
COMMANDS = [
    *("run", "bazaar", "fashion", "prepare", "foundation", "pretrain"),
    *(
        "plain",
        "csft",
        "embed",
        "features",
        "train",
        "sweep",
        "evaluate",
        "report",
        "export",
        "encoder-tables",
    ),
    *("ab-test", "cost", "encoders", "settings", "push", "serve"),
]


def mimctr(*words):
    return RUNNER.invoke(app, [str(word) for word in words])


def test_help_names_every_command():
    shown = mimctr("--help").stdout
    assert all(f"  {name} " in shown for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_that_ends_with_an_example(name):
    result = mimctr(name, "--help")
    assert result.exit_code == 0
    assert f"Example: mimctr {name}" in " ".join(result.stdout.split())


def test_the_version_is_the_packages():
    assert mimctr("--version").stdout == f"mimctr {__version__}\n"


@pytest.mark.parametrize("words", [["run"], ["csft"], ["prepare", "x"], ["nonsense"]])
def test_wrong_usage_is_status_2(words):
    assert mimctr(*words).exit_code == 2


def test_a_misspelt_key_is_one_line_with_the_nearest_known_one(tmp_path):
    recipe = tmp_path / "r.toml"
    recipe.write_text('name = "x"\n[source]\nkind = "bazaar"\nsizes = "tiny"\n')
    result = mimctr("run", recipe, "--out", tmp_path / "run")
    assert result.exit_code == 1
    assert result.stderr == f"mimctr: {recipe}: source.bazaar.sizes: unknown key. Did you mean 'size'?\n"
    assert not (tmp_path / "run").exists()


def test_an_unknown_size_says_what_there_is(tmp_path):
    result = mimctr("bazaar", "--size", "huge", "--out", tmp_path / "t")
    assert result.exit_code == 1
    assert "size: Input should be 'tiny', 'small', 'medium' or 'large', got 'huge'" in result.stderr


def test_missing_tables_are_one_line_a_problem(tmp_path):
    (tmp_path / "tables").mkdir()
    result = mimctr("prepare", tmp_path / "tables", "--out", tmp_path / "dataset")
    assert result.exit_code == 1
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "dataset" / "stage.json").exists()


def test_summaries_are_json_on_request(tmp_path):
    shown = mimctr("--quiet", "bazaar", "--size", "tiny", "--out", tmp_path / "t", "--json").stdout
    assert json.loads(shown)["num_items"] == 300


FULL = "No space left on device. Free some space and run the same command again; it goes on from there."


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "some/file"), f"some/file: {FULL}"),
        # pyarrow: no file, and no number in every version
        (
            OSError("Error writing bytes to file. Detail: [errno 28] No space left on device"),
            f"[errno 28] {FULL}",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "t"), "t: Permission denied."),
    ],
)
def test_a_full_disk_or_a_missing_permission_is_one_line(tmp_path, monkeypatch, error, line):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("mimctr.recipes.sources.write_bazaar", fail)
    result = mimctr("bazaar", "--size", "tiny", "--out", tmp_path / "t")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].endswith(line)
    assert result.stderr.splitlines()[-1].startswith("mimctr: ")


def test_an_interruption_says_how_to_go_on(tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("mimctr.recipes.sources.write_bazaar", interrupted)
    result = mimctr("bazaar", "--size", "tiny", "--out", tmp_path / "t")
    assert result.exit_code == 130
    assert "Run the same command again" in result.stderr


def test_lenient_says_what_it_dropped(tmp_path):
    mimctr("--quiet", "bazaar", "--size", "tiny", "--out", tmp_path / "t")
    items = tmp_path / "t" / "items.parquet"
    table = pl.read_parquet(items)
    pl.concat([table, table.head(2)]).write_parquet(items)
    refused = mimctr("prepare", tmp_path / "t", "--out", tmp_path / "d")
    assert refused.exit_code == 1
    assert not (tmp_path / "d" / "manifest.json").exists()
    accepted = mimctr("prepare", tmp_path / "t", "--out", tmp_path / "d", "--lenient")
    assert accepted.exit_code == 0
    assert "dropped: items.item_id: 2 of 302 rows repeat an item_id." in accepted.stdout


@pytest.mark.parametrize("stage", list(CONFIGS))
def test_listed_settings_are_a_section_of_a_recipe_with_every_default(stage):
    shown = mimctr("settings", stage).stdout
    assert build_config(CONFIGS[stage], tomllib.loads(shown)[stage], where=stage) == CONFIGS[stage]()
    for name, field in CONFIGS[stage].model_fields.items():
        assert re.search(rf"^(# )?{name} =", shown, flags=re.MULTILINE)
        assert field.description.split()[0] in shown


@pytest.mark.parametrize("recipe", list(RECIPES))
def test_listed_settings_of_a_recipe_are_what_stands_above_its_sections(recipe):
    """Mutant: 'reproduce' has settings that no command lists."""
    shown = mimctr("settings", recipe).stdout
    listed, model = tomllib.loads(shown), RECIPES[recipe]
    assert listed.pop("name") == ""
    assert 'name = ""  # must be given' in shown
    made = build_config(model, {"name": "shop", "source": {"kind": "bazaar"}, **listed}, where=recipe)
    assert made == model(name="shop", source=Bazaar(kind="bazaar"))
    sections = set(re.findall(r"\[(\w+)\]", " ".join(shown.split("# Sections: ")[1].split("#"))))
    assert set(listed) | sections == set(model.model_fields) - {"name"}
    assert {name for name in sections if name not in CONFIGS} == {"source", "others"}


def test_settings_of_something_else_are_told_with_what_has_some():
    assert mimctr("settings", "trian").stderr == "mimctr: settings: 'trian' has none. Did you mean 'train'?\n"
    assert "There are: reproduce, encoders, prepare, " in mimctr("settings", "xyz").stderr


def test_encoders_are_listed_with_their_sizes():
    shown = mimctr("encoders").stdout
    assert "resnet-50" in shown
    assert "23.5 M" in shown
    listed = json.loads(mimctr("encoders", "--json").stdout)
    assert listed["gpt2"]["width"] == 768
    assert listed["gpt2"]["pixels"] is None
    assert listed["dinov2-base"] | {"weights_here": False} == {  # a contributor may have them
        "name": "dinov2-base",
        "reads": "image",
        "parameters": 86_580_480,
        "width": 768,
        "pixels": 224,
        "weights_here": False,
        "hub": "facebook/dinov2-base",
    }
