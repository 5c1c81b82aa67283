"""mimctr encoders: the foundation models that a recipe can name."""

from mimctr.cli.options import Json, show

NAME = "encoders"
EXAMPLES = 'Example: mimctr encoders; then, in a recipe: [foundation] image_weights = "dinov2-base"'


def command(json: Json = False) -> None:
    """List foundation models: what they read, parameters, width, input size, and whether their weights are here."""
    from rich.console import Console
    from rich.table import Table

    from mimctr.recipes import encoders

    models = encoders.main()
    if json:
        show({model.name: model.model_dump(mode="json") for model in models}, as_json=True)
        return
    table = Table(box=None, pad_edge=False)
    for title in ("name", "reads", "parameters", "width", "pixels", "weights", "on the hub"):
        numeric = title in ("parameters", "width", "pixels")
        table.add_column(title, justify="right" if numeric else "left", overflow="fold")
    for model in models:
        table.add_row(
            model.name,
            model.reads,
            f"{model.parameters / 1e6:.1f} M",
            str(model.width),
            str(model.pixels or ""),
            "here" if model.weights_here else "not here",
            model.hub or "no: docs/encoders.md",
        )
    Console().print(table)
