"""Options that several commands share, and how results are shown."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel

Out = Annotated[
    Path, typer.Option(help="folder for the result; an unchanged result is kept, a half-made one resumed")
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="recipe (TOML); its section named as this command is used")
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="a setting, overrides the recipe; may be repeated; 'mimctr settings' lists those of a stage",
    ),
]
Content = Annotated[
    Path | None,
    typer.Option(
        help="folder written by 'mimctr embed', or a center, for its active generation; none is needed with "
        "--set variant=base"
    ),
]
Encoder = Annotated[str, typer.Option(help="label of the item encoder, as in RUN/embed")]
Compared = Annotated[str, typer.Option(help="user behavior model of Base and Base+MIM; all its seeds")]
Json = Annotated[bool, typer.Option("--json", help="print the summary as JSON")]


def show(summary: BaseModel | dict[str, Any], *, as_json: bool) -> None:
    """Print a summary on stdout: one ``name  value`` line a field, or one JSON document."""
    values = summary if isinstance(summary, dict) else summary.model_dump(mode="json")
    if as_json:
        print(json.dumps(values, indent=2, ensure_ascii=False))
        return
    width = max(map(len, values), default=0)
    for name, value in values.items():
        print(f"{name:<{width}}  {_plain(value)}")


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, dict) and "message" in value:
        return f"{value['severity']}: {value['message']}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, list):
        return "".join(f"\n  {_plain(item)}" for item in value) if value else "none"
    return str(value)
