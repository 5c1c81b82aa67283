"""Read a recipe's TOML into a checked config. Every mistake is named with its key and the nearest known one."""

import copy
import difflib
import json
import math
import tomllib
import types
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from mimctr.errors import ConfigError

C = TypeVar("C", bound=BaseModel)
IN_TOML = {
    "tuple_type": "Input should be a list, as in [a, b]",
    "list_type": "Input should be a list, as in [a, b]",
    "dict_type": "Input should be a table, as in {name = value}",
}
"""Pydantic's words for Python's types, as who writes TOML knows them; by type of error."""
LARGEST_INTEGER = 2**62
"""Of a setting: it and twice it are int64."""


def read_toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file.

    Raises:
        ConfigError: it is missing or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML ({error}).") from None


def to_toml(section: str, values: Mapping[str, Any]) -> str:
    """Return one section of a recipe, as :func:`read_toml` reads it."""
    lines = [f"{key} = {_toml_value(value)}" for key, value in values.items()]
    return "\n".join([f"[{section}]", *lines]) + "\n"


def override(values: dict[str, Any], assignments: Sequence[str], *, option: str = "--set") -> dict[str, Any]:
    """Return ``values`` with ``section.key=value`` assignments applied; each value is read as TOML, else as text.

    A part of the key with spaces or dots stands in quotes, as in TOML: ``others."half as wide".image_size=32``.

    Args:
        values: As read from TOML; left as they are.
        assignments: Applied one after the other.
        option: Where they come from; opens every message.

    Raises:
        ConfigError: an assignment is not of the form key=value, or its path leads through a plain value.
    """
    result = copy.deepcopy(values)
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path:
            raise ConfigError(f"{option} {assignment}: must have the form key=value.")
        *parents, key = _parts(path, assignment, option=option)
        place = result
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise ConfigError(f"{option} {assignment}: '{parent}' is a value, not a section.")
        try:
            place[key] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            place[key] = text
    return result


def _parts(path: str, assignment: str, *, option: str) -> list[str]:
    """Return the parts of a key, as TOML reads it."""
    parts = []
    try:
        place: Any = tomllib.loads(f"{path} = 0")
        while isinstance(place, dict):
            ((part, place),) = place.items()  # a comment has no part, several lines have several
            parts.append(part)
    except ValueError:
        raise ConfigError(
            f'{option} {assignment}: "{path}" is no key. Join names by dots, and put one that has spaces in quotes.'
        ) from None
    return parts


def build_config(model: type[C], values: dict[str, Any], *, where: str) -> C:
    """Return ``model`` filled with ``values``.

    Args:
        model: A pydantic model that forbids unknown keys.
        values: As read from TOML.
        where: The file (and section); opens every message.

    Raises:
        ConfigError: one line per mistake: the key, what is wrong, and for an unknown key the nearest known one.
    """
    unfit = [f"{where}: {name}: {wrong}." for name, wrong in _unfit_numbers(values)]
    if unfit:
        raise ConfigError("\n".join(unfit))
    try:
        return model.model_validate(values)
    except ValidationError as error:
        bad = {detail["loc"][:-1] for detail in error.errors()}
        # A list with a bad element is also too short, in pydantic's eyes: the element says it.
        told = [d for d in error.errors() if not (d["type"] == "too_short" and d["loc"] in bad)]
        lines = [_explain(model, detail, where) for detail in told]
        raise ConfigError("\n".join(lines)) from None


def load_config(
    model: type[C],
    path: Path | None,
    *,
    section: str | None,
    assignments: Sequence[str] = (),
    beside: Collection[str] = (),
    option: str = "--set",
) -> C:
    """Return a config from a TOML file (or one section of it) with overrides; all defaults where ``path`` is None.

    Args:
        model: The config to fill.
        path: The recipe.
        section: The part of the recipe that belongs to the stage; None for the whole.
        assignments: ``key=value`` (with a section: relative to it).
        beside: Sections that the command reads, too; one of all must be in the recipe.
        option: Where the assignments come from.

    Raises:
        ConfigError: the file is missing or not TOML, lacks the section, or holds something that ``model`` refuses.
    """
    values = read_toml(path) if path else {}
    where = str(path) if path else option
    if section is not None:
        if path and values.keys().isdisjoint([section, *beside]):
            there = ", ".join(values) or "nothing"
            raise ConfigError(
                f"{path}: has no section [{section}], only: {there}. Put the settings below a line [{section}]."
            )
        again = [text for text in assignments if text.startswith(f"{section}.")]
        if again and section not in model.model_fields:
            short = again[0].removeprefix(f"{section}.")
            raise ConfigError(f"{option} {again[0]}: keys stand here without '{section}.': {option} {short}.")
        values, where = values.get(section, {}), f"{where} [{section}]"
    return build_config(model, override(values, assignments, option=option), where=where)


def _toml_value(value: Any) -> str:
    if isinstance(value, Mapping):
        entries = [f"{json.dumps(key)} = {_toml_value(entry)}" for key, entry in value.items()]
        return f"{{{', '.join(entries)}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml_value, value))}]"
    return json.dumps(value, ensure_ascii=False)


def _unfit_numbers(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield the key of every number that no file can keep, and what is wrong with it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _unfit_numbers(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        for inner in value:
            yield from _unfit_numbers(inner, name)
    elif isinstance(value, float) and not math.isfinite(value):
        yield name, f"Input should be a finite number, got {value!r}"
    elif isinstance(value, int) and not -LARGEST_INTEGER <= value <= LARGEST_INTEGER:
        yield name, f"Input should be a whole number of at most {LARGEST_INTEGER:,}, got {value:,}"


def _explain(model: type[BaseModel], detail: Any, where: str) -> str:
    keys = [str(part) for part in detail["loc"]]
    name = ".".join(keys)
    if detail["type"] == "extra_forbidden":
        known = _known_keys(model, detail["loc"][:-1])
        close = difflib.get_close_matches(keys[-1], known, n=1, cutoff=0.5)
        advice = f"Did you mean '{close[0]}'?" if close else f"Known keys: {', '.join(known)}."
        return f"{where}: {name}: unknown key. {advice}"
    if detail["type"] == "missing":
        return f"{where}: {name}: missing. Add it."
    message = IN_TOML.get(detail["type"], detail["msg"].removeprefix("Value error, ")).replace(
        "Tuple", "List"
    )
    place = f"{where}: {name}" if name else where
    if detail["type"] == "value_error" and isinstance(detail["input"], dict):
        end = "" if message.endswith((".", "?")) else "."
        return f"{place}: {message}{end}"  # a rule about several settings, which the message names
    return f"{place}: {message.rstrip('.')}, got {detail['input']!r}."


def _known_keys(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """Return the field names of the (nested) model that ``path`` leads to."""
    current: type[BaseModel] = model
    for part in path:
        field = current.model_fields.get(str(part))
        nested = _model_in(field.annotation) if field else None
        current = nested or current
    return list(current.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the pydantic model that an annotation names, directly or in a union; None where there is none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return next(filter(None, map(_model_in, typing.get_args(annotation))), None)
    return None
