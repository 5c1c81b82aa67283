"""Every setting of a stage with its default: a section that a recipe can hold, or a table of the documentation."""

import difflib
import textwrap
import typing
from typing import NamedTuple

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from mimctr.errors import ConfigError
from mimctr.recipes import (
    cost,
    csft,
    embed,
    evaluate,
    explore,
    features,
    foundation,
    off_policy,
    online,
    plain,
    prepare,
    pretrain,
    search,
    serve,
    sweep,
    train,
)
from mimctr.recipes.config import to_toml
from mimctr.recipes.encoder_recipe import Recipe as EncoderRecipe
from mimctr.recipes.models import Models
from mimctr.recipes.reproduction.recipe import Recipe as PaperRecipe

CONFIGS: dict[str, type[BaseModel]] = {
    "prepare": prepare.Config,
    "foundation": foundation.Config,
    "pretrain": pretrain.Config,
    "plain": plain.Config,
    "csft": csft.Config,
    "search": search.Config,
    "embed": embed.Config,
    "models": Models,
    "train": train.Config,
    "features": features.Config,
    "sweep": sweep.Config,
    "cost": cost.Config,
    "ab-test": online.Config,
    "online": online.Config,
    "off-policy": off_policy.Config,
    "off_policy": off_policy.Config,
    "evaluate": evaluate.Config,
    "serve": serve.Config,
    "explore": explore.Config,
}
"""Sections of a recipe, and settings of a command."""
RECIPES: dict[str, type[BaseModel]] = {"reproduce": PaperRecipe, "encoders": EncoderRecipe}
"""What has settings above its sections."""
SECTIONS = (
    "'mimctr settings SECTION' lists each; docs/reproduction.md has those of [source], and [others.NAME] has those of "
    "[foundation]."
)
NAMES = (*RECIPES, *CONFIGS)
WIDTH = 100


class Setting(NamedTuple):
    """A setting as it is listed."""

    name: str
    words: str
    """What it is, and the values it may have where they are few."""
    line: str | None
    """Its default as a line of a recipe; None where that is none, for which TOML has no word."""
    required: bool


def main(stage: str) -> str:
    """Return the section of ``stage``: what each setting is, as a comment, and its default.

    Of a recipe it is what stands above the sections, and then their names.

    Raises:
        ConfigError: there is no such stage.
    """
    settings = settings_of(stage)
    blocks = [] if stage in RECIPES else [f"[{stage}]"]
    for setting in settings:
        words = textwrap.wrap(setting.words, WIDTH, initial_indent="# ", subsequent_indent="# ")
        line = setting.line if setting.line is not None else f"# {setting.name} ="
        blocks.append("\n".join([*words, f"{line}  # must be given" if setting.required else line]))
    if stage in RECIPES:
        sections = [
            name for name in RECIPES[stage].model_fields if name not in {one.name for one in settings}
        ]
        told = f"Sections: {', '.join(f'[{name}]' for name in sections)}. {SECTIONS}"
        blocks.append(textwrap.fill(told, WIDTH, initial_indent="# ", subsequent_indent="# "))
    return "\n\n".join(blocks)


def markdown(stage: str) -> str:
    """Return the settings of ``stage`` as a table of a page: docs/stages has one a stage.

    Raises:
        ConfigError: there is no such stage.
    """
    lines = ["| setting | default | |", "|---|---|---|"]
    for setting in settings_of(stage):
        default = "none" if setting.line is None else f"`{setting.line.split(' = ', 1)[1]}`"
        shown = "must be given" if setting.required else default
        lines.append(f"| `{setting.name}` | {shown} | {setting.words} |")
    return "\n".join(lines)


def settings_of(stage: str) -> list[Setting]:
    """Return the settings of ``stage``; of a recipe, those that stand above its sections.

    Raises:
        ConfigError: there is no such stage.
    """
    if stage not in NAMES:
        close = difflib.get_close_matches(stage, NAMES, n=1)
        advice = f"Did you mean '{close[0]}'?" if close else f"There are: {', '.join(NAMES)}."
        raise ConfigError(f"settings: '{stage}' has none. {advice}")
    model = RECIPES[stage] if stage in RECIPES else CONFIGS[stage]
    return [
        _setting(name, field)
        for name, field in model.model_fields.items()
        if stage in CONFIGS or not _is_section(name, field)
    ]


def _is_section(name: str, field: FieldInfo) -> bool:
    return name in ("source", "others") or isinstance(field.default, BaseModel)


def _setting(name: str, field: FieldInfo) -> Setting:
    required = field.is_required()
    default = "" if required else to_jsonable_python(field.get_default(call_default_factory=True))
    line = None if default is None else to_toml("", {name: default}).splitlines()[1]
    return Setting(name, _words(field), line, required)


def _words(field: FieldInfo) -> str:
    """Return what a setting is, and the values it may have where they are few."""
    choices = (
        typing.get_args(field.annotation) if typing.get_origin(field.annotation) is typing.Literal else ()
    )
    listed = f"One of {', '.join(map(repr, choices))}. " if choices else ""
    return f"{listed}{field.description or ''}"
