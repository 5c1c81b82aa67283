"""What travels between towers, heads and losses: the vectors and views of items and queries."""

from typing import Literal, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

Modality = Literal["image", "text"]


@runtime_checkable
class Towers(Protocol):
    """What runs both towers of an item encoder: the encoder itself, or another back-end (mimctr.encoders.backends)."""

    def image_vectors(self, pixels: UInt8[Tensor, "images 3 height width"]) -> Float[Tensor, "images image"]:
        """Return L2-normalized ``F_V`` of pixels, float32."""

    def text_vectors(
        self, ids: Int[Tensor, "texts tokens"], mask: Bool[Tensor, "texts tokens"]
    ) -> Float[Tensor, "texts text"]:
        """Return L2-normalized ``F_L`` of tokens, float32."""


class ItemVectors(NamedTuple):
    """What the towers say of some items; a row without its modality is zero."""

    image: Float[Tensor, "items image"]
    has_image: Bool[Tensor, "items"]
    text: Float[Tensor, "items text"]
    has_text: Bool[Tensor, "items"]


class QueryVectors(NamedTuple):
    """What the towers say of some queries, each of which is a picture or a text."""

    image: Float[Tensor, "pictures image"]
    text: Float[Tensor, "texts text"]
    place: Int[Tensor, "queries"]
    """Row of each query in the pictures followed by the texts."""


class ItemViews(NamedTuple):
    """The three views of some items that Eq. (6) compares a query with; none is normalized."""

    fused: Float[Tensor, "items content"]
    """``h^MM``."""
    image: Float[Tensor, "items content"]
    """``h^img``; the learned stand-in where there is no image."""
    text: Float[Tensor, "items content"]
    """``h^txt``; the learned stand-in where there is no title."""
    has_image: Bool[Tensor, "items"]
    has_text: Bool[Tensor, "items"]
