"""The foundation models that a recipe can name, as facts to show."""

from typing import Literal

from pydantic import BaseModel

from mimctr.encoders.registry import FOUNDATIONS


class Listed(BaseModel):
    """One foundation model."""

    name: str
    reads: Literal["image", "text"]
    parameters: int
    """Unused poolers left out."""
    width: int
    pixels: int | None
    """Height and width; null for text."""
    weights_here: bool
    """Whether the hub's cache on this machine holds them."""
    hub: str | None
    """Null where the weights have to be converted once."""


def main() -> list[Listed]:
    """Return every model; sizes are computed from the architecture, without weights."""
    return [
        Listed(
            name=row.name,
            reads=row.modality,
            parameters=sizes.parameters,
            width=sizes.width,
            pixels=row.size or None,
            weights_here=row.is_here(),
            hub=row.hub,
        )
        for row in FOUNDATIONS
        for sizes in [row.sizes()]
    ]
