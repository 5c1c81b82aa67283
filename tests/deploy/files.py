"""What stands in deploy/: the image's file and the compose file, as a container engine would read them."""

import io
import json
import re
from pathlib import Path
from typing import Any

import typer
import yaml
from dockerfile_parse import DockerfileParser

from mimctr.cli import app

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
TOKEN = {"MIMCTR_TOKEN": "secret"}
_VARIABLE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<rest>[^}]*))?\})")


def read_compose(values: dict[str, str] = TOKEN) -> dict[str, Any]:
    """Return the compose file with its variables put in.

    Raises:
        KeyError: a variable that must be set is not.
    """
    return _substitute(yaml.safe_load((DEPLOY / "compose.yaml").read_text()), values)


def _substitute(found: Any, values: dict[str, str]) -> Any:
    if isinstance(found, dict):
        return {name: _substitute(one, values) for name, one in found.items()}
    if isinstance(found, list):
        return [_substitute(one, values) for one in found]
    return _VARIABLE.sub(lambda match: _value(match, values), found) if isinstance(found, str) else found


def _value(match: re.Match[str], values: dict[str, str]) -> str:
    if match["dollar"]:
        return "$"
    if match["name"] in values:
        return values[match["name"]]
    if match["kind"] != "-":
        raise KeyError(f"{match['name']}: {match['rest']}")
    return match["rest"]


class Image:
    """The last stage of the image's file."""

    def __init__(self) -> None:
        # It would write into the folder of the file otherwise.
        parser = DockerfileParser(fileobj=io.BytesIO((DEPLOY / "Containerfile").read_bytes()))
        self.all = [(one["instruction"], one["value"]) for one in parser.structure]
        last = max(place for place, (name, _) in enumerate(self.all) if name == "FROM")
        self.last = self.all[last:]

    def values(self, name: str) -> list[str]:
        """Return what the last stage says with an instruction."""
        return [value for instruction, value in self.last if instruction == name]

    def words(self, name: str) -> list[str]:
        """Return an instruction in its exec form as words."""
        (value,) = self.values(name)
        return json.loads(value[value.index("[") :])


def command_of(service: dict[str, Any]) -> list[str]:
    """Return the words after the program that a service of our image runs."""
    return service.get("command", Image().words("CMD"))


def is_ours(service: dict[str, Any]) -> bool:
    """Whether a service runs our image."""
    return "build" in service


def parse(words: list[str]) -> dict[str, Any]:
    """Return the arguments and options that ``mimctr WORDS`` is called with, by name; nothing is run.

    Raises:
        click.UsageError: the command line does not know them.
    """
    command = typer.main.get_command(app)
    context = command.make_context("mimctr", list(words))
    while hasattr(command, "commands"):
        name, command, words = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, list(words), parent=context)
    return {"command": context.command_path} | context.params
