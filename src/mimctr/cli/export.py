"""mimctr export: a trained model as a bundle that can be served."""

from pathlib import Path
from typing import Annotated

import typer

from mimctr.cli.options import Json, show

NAME = "export"
EXAMPLES = (
    "Example: mimctr export runs/demo/train/sim-mim-csft-seed0 --dataset runs/demo/dataset --out bundle"
)


def command(
    model: Annotated[Path, typer.Argument(help="folder of a trained model")],
    dataset: Annotated[Path, typer.Option(help="what it was trained on")],
    out: Annotated[Path, typer.Option(help="folder for the bundle; must not exist")],
    onnx: Annotated[bool, typer.Option(help="also for ONNX Runtime, where that can be done")] = True,
    json: Json = False,
) -> None:
    """Put a trained model, the rows of its items and users, and its vocabularies into one checked folder."""
    from mimctr.recipes.bundle import main

    written = main(model, dataset, out, onnx=onnx)
    if written.without_onnx is not None:
        typer.echo(f"{out}: without ONNX, served with PyTorch: {written.without_onnx}.", err=True)
    show(written.model_dump(mode="json", exclude={"files"}) | {"num_files": len(written.files)}, as_json=json)
