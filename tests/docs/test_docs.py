"""What the documentation names exists: commands, settings, files, links; and what exists is named."""

import re

import pytest
import typer

from mimctr.cli import app
from mimctr.recipes.pipeline import Recipe
from mimctr.recipes.reproduction.recipe import Recipe as Reproduction
from mimctr.recipes.settings import CONFIGS, markdown
from mimctr.recipes.sources import Bazaar, Fashion, Tables

from .pages import DOCS, blocks

ROOT = DOCS.parent
PAGES = sorted(path for path in DOCS.rglob("*.md") if "api" not in path.relative_to(DOCS).parts)
TABLE = re.compile(r"<!-- settings: (\w+) -->\n\n(.*?)\n\n<!-- end of settings -->", re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]\n]+\]\(([^)\s]+)\)")
SET = re.compile(r"--set '?([a-z][\w.]*)=")
COMMANDS = typer.main.get_command(app).commands
TEXT = "\n".join(path.read_text() for path in [*PAGES, ROOT / "README.md"])


def named(page):
    return page.relative_to(ROOT).as_posix()


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_relative_link_leads_somewhere(page):
    for target in LINK.findall(re.sub(r"`[^`\n]*`", "", page.read_text())):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.is_file(), f"{target} leads nowhere"
        assert not anchor or anchor in anchors(there), f"{target}: no such heading"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented(name):
    assert re.search(rf"mimctr {name}\b|`{name}`", TEXT)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_command_on_a_page_exists(page):
    text = page.read_text()
    code = [block.text for block in blocks(text) if block.language in ("", "bash")]
    for name in re.findall(
        r"^(?:    )?mimctr (?:--quiet )?([a-z-]+)", "\n".join([*code, indented(text)]), re.MULTILINE
    ):
        assert name in COMMANDS


def indented(text):
    return "\n".join(line for line in text.splitlines() if line.startswith("    "))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_table_of_settings_is_that_of_the_settings(page):
    for stage, table in TABLE.findall(page.read_text()):
        assert table == markdown(stage), "run: python docs/settings_tables.py"


@pytest.mark.parametrize("model", [Recipe, Reproduction, Bazaar, Fashion, Tables])
def test_what_no_command_lists_is_on_the_page_of_recipes(model):
    """Mutant: a setting above the sections of a recipe that nobody can look up."""
    _, told = (DOCS / "reproduction.md").read_text().split("\n## Settings\n")
    told = told.split("\n## ")[0]
    assert [name for name in model.model_fields if not re.search(rf"`\[?{name}\]?`", told)] == (
        ["others"] if model is Reproduction else []  # as [others.NAME]
    )


def test_every_stage_with_a_page_of_its_own_has_its_table():
    tables = {stage for page in PAGES for stage, _ in TABLE.findall(page.read_text())}
    assert {"pretrain", "csft", "embed", "train", "models", "evaluate"} <= tables


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_setting_that_is_set_on_a_page_exists(page):
    known = (
        {name for config in CONFIGS.values() for name in config.model_fields}
        | set(Bazaar.model_fields)
        | {"path"}
    )
    for path in SET.findall(page.read_text()):
        section, _, name = path.rpartition(".")
        assert name in known, path
        if section and section != "source":
            assert name in CONFIGS[section].model_fields, path


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_qualified_setting_in_the_prose_exists(page):
    prose = page.read_text()
    for section, name in re.findall(r"`([a-z]+)\.([a-z_]+)(?: = [^`]*)?`", prose):
        if section in CONFIGS and name not in ("py", "json", "jsonl", "png", "toml"):
            assert name in CONFIGS[section].model_fields, f"{section}.{name}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_file_that_a_page_names_exists(page):
    path = r"`((?:src/mimctr|tests|examples|benchmarks|recipes|deploy|docs)/[\w./-]+\.(?:py|toml|md|sh|yaml|yml))"
    for name in re.findall(path, page.read_text()):
        assert (ROOT / name).is_file() or (ROOT / "src" / "mimctr" / name).is_file(), name


def test_every_page_is_in_the_navigation():
    listed = set()
    for block in re.findall(
        r"^```{toctree}\n(.*?)^```", (DOCS / "index.md").read_text(), re.DOTALL | re.MULTILINE
    ):
        listed |= {line for line in block.splitlines() if line and not line.startswith(":")}
    pages = {page.relative_to(DOCS).with_suffix("").as_posix() for page in PAGES}
    assert pages - {"index"} == listed - {"api/index"}


def test_a_table_of_settings_has_every_setting_once():
    rows = markdown("csft").splitlines()[2:]
    names = [re.match(r"\| `(\w+)` \|", row)[1] for row in rows]
    assert names == list(CONFIGS["csft"].model_fields)
    assert "| `num_steps` | `250` | Most training steps. |" in rows
    assert "| `test_days` | none | Length of the test part, days. |" in markdown("prepare").splitlines()


def test_no_cell_of_a_table_is_cut_by_a_bar():
    for stage in CONFIGS:
        for row in markdown(stage).splitlines():
            assert row.count("|") - row.count("\\|") == 4, row


def test_python_on_the_pages_compiles():
    for page in PAGES:
        for block in blocks(page.read_text()):
            if block.language == "python":
                compile(block.text, named(page), "exec")
