"""Every setting of a stage with its default: a section that a recipe can hold, or a table of the documentation."""

import difflib
import textwrap
import typing

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
    serve,
    sweep,
    train,
)
from mimctr.recipes.config import to_toml
from mimctr.recipes.models import Models

CONFIGS: dict[str, type[BaseModel]] = {
    "prepare": prepare.Config,
    "foundation": foundation.Config,
    "pretrain": pretrain.Config,
    "plain": plain.Config,
    "csft": csft.Config,
    "embed": embed.Config,
    "models": Models,
    "train": train.Config,
    "features": features.Config,
    "sweep": sweep.Config,
    "cost": cost.Config,
    "ab-test": online.Config,
    "off-policy": off_policy.Config,
    "evaluate": evaluate.Config,
    "serve": serve.Config,
    "explore": explore.Config,
}
WIDTH = 100


def main(stage: str) -> str:
    """Return the section of ``stage``: what each setting is, as a comment, and its default.

    Raises:
        ConfigError: there is no such stage.
    """
    model = _config_of(stage)
    defaults = model()
    heading, *_ = to_toml(stage, {}).splitlines()
    lines = [heading]
    for name, field in model.model_fields.items():
        lines += ["", *textwrap.wrap(_words(field), WIDTH, initial_indent="# ", subsequent_indent="# ")]
        default = to_jsonable_python(getattr(defaults, name))
        if default is None:
            lines.append(f"# {name} =")  # TOML has no word for none
        else:
            lines += to_toml(stage, {name: default}).splitlines()[1:]
    return "\n".join(lines)


def markdown(stage: str) -> str:
    """Return the settings of ``stage`` as a table of a page: docs/stages has one a stage.

    Raises:
        ConfigError: there is no such stage.
    """
    model = _config_of(stage)
    defaults = model()
    lines = ["| setting | default | |", "|---|---|---|"]
    for name, field in model.model_fields.items():
        default = to_jsonable_python(getattr(defaults, name))
        shown = (
            "none" if default is None else f"`{to_toml(stage, {name: default}).split(' = ', 1)[1].strip()}`"
        )
        lines.append(" | ".join([f"| `{name}`", shown, f"{_words(field)} |"]))
    return "\n".join(lines)


def _config_of(stage: str) -> type[BaseModel]:
    if stage not in CONFIGS:
        close = difflib.get_close_matches(stage, CONFIGS, n=1)
        advice = f"Did you mean '{close[0]}'?" if close else f"There are: {', '.join(CONFIGS)}."
        raise ConfigError(f"settings: '{stage}' has none. {advice}")
    return CONFIGS[stage]


def _words(field: FieldInfo) -> str:
    """Return what a setting is, and the values it may have where they are few."""
    choices = (
        typing.get_args(field.annotation) if typing.get_origin(field.annotation) is typing.Literal else ()
    )
    listed = f"One of {', '.join(map(repr, choices))}. " if choices else ""
    return f"{listed}{field.description or ''}"
