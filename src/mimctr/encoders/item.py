"""The item encoder: image, title and their fusion to one content embedding ``h^MM``, MIM Eq. (2) to (4)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from mimctr.distributed import mean_rows
from mimctr.encoders.fusion import FusionMLP, FusionName
from mimctr.encoders.image import ImageEncoder
from mimctr.encoders.plain import Coordinates, PlainGeometry
from mimctr.encoders.text import TextEncoder
from mimctr.encoders.vectors import ItemVectors, ItemViews, Modality, QueryVectors, Towers
from mimctr.errors import EncoderError
from mimctr.files import hash_json, read_json, write_json
from mimctr.precision import autocast
from mimctr.weights import digest_tensors, load_tensors, save_tensors

IMAGE, TEXT, HEADS, RECORD = "image", "text", "heads.safetensors", "encoder.json"
FORMAT = 6
AXES_PER_DIM = 4
"""Coordinates that a head sees, for each one that it gives."""


class ItemEncoder(nn.Module):
    """``F_V``, ``F_L``, one linear head each, tensor fusion and MLP.

    A missing image or title is replaced by a learned vector behind its head, zero at first: in the plain geometry, the
    catalogue's mean. ``h^MM`` is centered: on its batch (of all processes) in training, on the catalogue
    (:meth:`set_center`) afterwards. Heads act on centered coordinates and have no bias. A common part of all vectors
    would drown their cosines; so would a common part of a category's vectors where targets compete within a category,
    hence ``categories``. A query picture is centered on the category that it looks like, a query text on the one that
    it reads like.

    Args:
        image_encoder: ``F_V``.
        text_encoder: ``F_L``.
        dim: Content dimension C.
        hidden: Width of the MLP's hidden layer.
        dropout: Of the MLP's hidden layer.
        fusion: How image and title are joined before the MLP. Paper: ``tensor``.
        fusion_rank: Of ``low_rank``.
        categories: Names of the categories whose items are centered on their category's mean; empty for none.
        bf16: Run the towers in bfloat16, whoever asks for vectors, where the processor has such products; heads and
            fusion stay in float32.
        text_queries: A query may be a text alone; it goes through the titles' head (an extension).
    """

    def __init__(
        self,
        image_encoder: ImageEncoder,
        text_encoder: TextEncoder,
        *,
        dim: int = 64,
        hidden: int = 128,
        dropout: float = 0.1,
        fusion: FusionName = "tensor",
        fusion_rank: int = 16,
        categories: Sequence[str] = (),
        bf16: bool = False,
        text_queries: bool = False,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.categories = tuple(categories)
        self.bf16 = bf16
        self.text_queries = text_queries
        self.settings: dict[str, Any] = {
            "dim": dim,
            "hidden": hidden,
            "dropout": dropout,
            "fusion": fusion,
            "fusion_rank": fusion_rank,
            "categories": list(categories),
            "bf16": bf16,
            "text_queries": text_queries,
        }
        self.image_encoder = image_encoder
        self.text_encoder = text_encoder
        num_axes = min(AXES_PER_DIM * dim, image_encoder.dim + text_encoder.dim)
        self.image_coordinates = Coordinates(image_encoder.dim, num_axes)
        self.text_coordinates = Coordinates(text_encoder.dim, num_axes)
        self.image_head = nn.Linear(num_axes, dim, bias=False)
        self.text_head = nn.Linear(num_axes, dim, bias=False)
        self.no_image = nn.Parameter(torch.zeros(dim))
        self.no_text = nn.Parameter(torch.zeros(dim))
        self.fusion = FusionMLP(dim, kind=fusion, rank=fusion_rank, hidden=hidden, dropout=dropout)
        self.center: Tensor
        self.register_buffer("center", torch.zeros(dim))
        self.category_centers: Tensor
        self.register_buffer("category_centers", torch.zeros(len(self.categories), dim))
        self.query_centers: Tensor
        self.register_buffer("query_centers", torch.zeros(len(self.categories), dim))
        self.text_query_centers: Tensor
        self.register_buffer("text_query_centers", torch.zeros(len(self.categories), dim))
        self.eval()

    @classmethod
    def load(cls, folder: Path) -> "ItemEncoder":
        """Read what :meth:`save` wrote.

        Raises:
            EncoderError: the folder is incomplete, of another format, or its weights, preprocessing or tokenizer are
                not those that were saved.
        """
        record = _read_record(folder)
        encoder = cls(
            ImageEncoder.load(folder / IMAGE),
            TextEncoder.load(folder / TEXT),
            **record["settings"],
        )
        tensors, _ = load_tensors(folder / HEADS)
        encoder.heads_load(tensors)
        if encoder.fingerprint != record["fingerprint"]:
            raise EncoderError(
                f"{folder}: fingerprint {encoder.fingerprint[:12]}, recorded {record['fingerprint'][:12]}. Weights, "
                "preprocessing or tokenizer were changed after it was saved; its vectors would not match those made "
                "before. Make it again."
            )
        return encoder

    def save(self, folder: Path) -> None:
        """Write image/, text/, heads.safetensors and, last, encoder.json into ``folder``."""
        (folder / RECORD).unlink(missing_ok=True)
        self.image_encoder.save(folder / IMAGE)
        self.text_encoder.save(folder / TEXT)
        save_tensors(folder / HEADS, self.heads_state())
        record = {
            "format": FORMAT,
            "kind": "item",
            "settings": self.settings,
            "fingerprint": self.fingerprint,
        }
        write_json(folder / RECORD, record)

    @property
    def towers_fingerprint(self) -> str:
        """Hash (hex) of what the towers' vectors depend on; encoders that differ in their heads share it."""
        towers = [self.image_encoder.fingerprint, self.text_encoder.fingerprint]
        return hash_json({"towers": towers, "bf16": self.bf16})

    @property
    def fingerprint(self) -> str:
        """Hash (hex) of everything the vectors depend on: both encoders, heads, settings, normalization."""
        return hash_json(
            {
                "image": self.image_encoder.fingerprint,
                "text": self.text_encoder.fingerprint,
                "heads": digest_tensors(self.heads_state()),
                "settings": self.settings,
                "normalization": "l2",
            }
        )

    def heads_state(self) -> dict[str, Tensor]:
        """Return the tensors of everything behind the towers, by name."""
        towers = ("image_encoder.", "text_encoder.")
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith(towers)}

    def heads_load(self, tensors: dict[str, Tensor]) -> None:
        """Set what :meth:`heads_state` returned.

        Raises:
            EncoderError: names or shapes differ.
        """
        own = self.heads_state()
        if {n: t.shape for n, t in own.items()} != {n: t.shape for n, t in tensors.items()}:
            raise EncoderError(
                f"heads: {len(tensors)} tensors that do not fit this item encoder's {len(own)}."
            )
        self.load_state_dict(tensors, strict=False)

    def start_plain(self, geometry: PlainGeometry) -> None:
        """Set the heads so that ``h^MM`` is the plain geometry's; call it on a fresh encoder."""
        with torch.no_grad():
            self.image_coordinates.mean.copy_(geometry.image_mean)
            self.image_coordinates.axes.copy_(geometry.image_axes)
            self.text_coordinates.mean.copy_(geometry.text_mean)
            self.text_coordinates.axes.copy_(geometry.text_axes)
            for head in (self.image_head, self.text_head):
                head.weight.copy_(torch.eye(*head.weight.shape))

    def set_center(
        self,
        fused: Float[Tensor, "items content"],
        image: Float[Tensor, "items content"],
        text: Float[Tensor, "items content"],
        category: Int[Tensor, "items"],
    ) -> None:
        """Let the mean of ``h^MM`` be zero over some items, and after :meth:`content` over those of each category.

        Args:
            fused: ``h^MM`` of the items as it is now, in evaluation mode.
            image: ``h^img`` of the same items, whose means center the queries that are pictures.
            text: ``h^txt`` of the same items, whose means center the queries that are texts.
            category: From :meth:`category_index`.
        """
        mean = fused.mean(0)
        self.center += mean
        for index in range(len(self.categories)):
            own = category == index
            self.category_centers[index] = fused[own].mean(0) - mean if own.any() else 0.0
            self.query_centers[index] = image[own].mean(0) if own.any() else torch.inf
            self.text_query_centers[index] = text[own].mean(0) if own.any() else torch.inf

    def category_index(self, names: Sequence[str | None]) -> Int[Tensor, "items"]:
        """Return the place of each name in ``categories``; -1 for any other."""
        places = {name: index for index, name in enumerate(self.categories)}
        return torch.tensor([places.get(name, -1) if name else -1 for name in names], dtype=torch.int64)

    def content(
        self, fused: Float[Tensor, "items content"], category: Int[Tensor, "items"]
    ) -> Float[Tensor, "items content"]:
        """Return the content embeddings as they are stored: ``h^MM`` within its category, L2-normalized."""
        if self.categories:
            offset = self.category_centers[category.clamp(min=0)]
            fused = fused - offset.masked_fill((category < 0).unsqueeze(-1), 0.0)
        return F.normalize(fused, dim=-1)

    def query_category(
        self, queries: Float[Tensor, "queries content"], *, asked: Modality = "image"
    ) -> Int[Tensor, "queries"]:
        """Return the category whose pictures (titles) are nearest on average to each query; -1 without categories.

        Args:
            queries: ``h_q^img``, or ``h_q^txt``.
            asked: Which of them.
        """
        if not self.categories:
            return torch.full((len(queries),), -1, dtype=torch.int64, device=queries.device)
        return (queries.unsqueeze(1) - self._centers(asked)).square().sum(dim=-1).argmin(dim=1)

    def query_content(
        self, queries: Float[Tensor, "queries content"], *, asked: Modality = "image"
    ) -> Float[Tensor, "queries content"]:
        """Return ``h_q`` as it is stored: within its category, as the items are, and L2-normalized."""
        if self.categories:
            queries = queries - self._centers(asked)[self.query_category(queries, asked=asked)]
        return F.normalize(queries, dim=-1)

    def _centers(self, asked: Modality) -> Float[Tensor, "categories content"]:
        return self.query_centers if asked == "image" else self.text_query_centers

    def image_vectors(self, pixels: UInt8[Tensor, "images 3 height width"]) -> Float[Tensor, "images image"]:
        """Return L2-normalized ``F_V`` of pixels, float32."""
        with autocast(self.image_head.weight.device, bf16=self.bf16):
            vectors = self.image_encoder(pixels)
        return F.normalize(vectors.float(), dim=-1)

    def text_vectors(
        self, ids: Int[Tensor, "texts tokens"], mask: Bool[Tensor, "texts tokens"]
    ) -> Float[Tensor, "texts text"]:
        """Return L2-normalized ``F_L`` of tokens, float32."""
        with autocast(self.image_head.weight.device, bf16=self.bf16):
            vectors = self.text_encoder(ids, mask)
        return F.normalize(vectors.float(), dim=-1)

    def query_view(self, image: Float[Tensor, "queries image"]) -> Float[Tensor, "queries content"]:
        """Return ``h_q^img`` from the query's image vector: the same head as an item's image."""
        return self.image_head(self.image_coordinates(image))

    def text_view(self, text: Float[Tensor, "texts text"]) -> Float[Tensor, "texts content"]:
        """Return ``h^txt`` from a title's vector, and ``h_q^txt`` from that of a query's text: the same head."""
        return self.text_head(self.text_coordinates(text))

    def query_views(self, queries: QueryVectors) -> Float[Tensor, "queries content"]:
        """Return ``h_q`` of some queries: ``h_q^img`` of those that are pictures, ``h_q^txt`` of the texts."""
        return torch.cat([self.query_view(queries.image), self.text_view(queries.text)])[queries.place]

    def forward(self, vectors: ItemVectors) -> ItemViews:
        """Return ``h^img``, ``h^txt`` and ``h^MM`` of some items, Eq. (2) to (4)."""
        return self.fuse(
            self.query_view(vectors.image), vectors.has_image, self.text_view(vectors.text), vectors.has_text
        )

    def fuse(
        self,
        image: Float[Tensor, "items content"],
        has_image: Bool[Tensor, "items"],
        text: Float[Tensor, "items content"],
        has_text: Bool[Tensor, "items"],
    ) -> ItemViews:
        """Return what :meth:`forward` returns, from what the heads say of images and titles."""
        image = torch.where(has_image.unsqueeze(-1), image, self.no_image)
        text = torch.where(has_text.unsqueeze(-1), text, self.no_text)
        fused = self.fusion(image, text)
        center = mean_rows(fused) if self.training else self.center
        return ItemViews(fused - center, image, text, has_image, has_text)

    def embed_items(
        self,
        images: Sequence[bytes | None],
        titles: Sequence[str | None],
        categories: Sequence[str | None] | None = None,
        *,
        towers: Towers | None = None,
    ) -> tuple[Float[Tensor, "items content"], Bool[Tensor, "items"]]:
        """Return ``h^MM`` of raw items: float32 on the CPU, rows L2-normalized, in evaluation mode, without gradient.

        Args:
            images: Encoded pictures; None where there is none.
            titles: Texts; None where there is none.
            categories: Names, for an encoder that centers by category; None where all are unknown.
            towers: What runs the towers; None runs them in PyTorch.

        Returns:
            vectors: Zero where an item has neither.
            known: False where an item has neither.

        Raises:
            DataError: a picture cannot be decoded.
        """
        self.eval()
        towers = towers or self
        device = self.image_head.weight.device
        has_image = torch.tensor([image is not None for image in images], dtype=torch.bool)
        has_text = torch.tensor([title is not None for title in titles], dtype=torch.bool)
        image = torch.zeros(len(images), self.image_encoder.dim)
        text = torch.zeros(len(titles), self.text_encoder.dim)
        with torch.no_grad():
            if has_image.any():
                pixels = self.image_encoder.pixels(value for value in images if value is not None)
                image[has_image] = towers.image_vectors(pixels.to(device)).cpu()
            if has_text.any():
                ids, mask = self.text_encoder.tokenize([value for value in titles if value is not None])
                text[has_text] = towers.text_vectors(ids.to(device), mask.to(device)).cpu()
        return self.embed_vectors(ItemVectors(image, has_image, text, has_text), categories)

    def embed_vectors(
        self, vectors: ItemVectors, categories: Sequence[str | None] | None = None
    ) -> tuple[Float[Tensor, "items content"], Bool[Tensor, "items"]]:
        """Return what :meth:`embed_items` returns, from what the towers said of the items."""
        device = self.image_head.weight.device
        with torch.no_grad():
            image, text = self.query_view(vectors.image.to(device)), self.text_view(vectors.text.to(device))
        return self.embed_views(image, vectors.has_image, text, vectors.has_text, categories)

    def embed_views(
        self,
        image: Float[Tensor, "items content"],
        has_image: Bool[Tensor, "items"],
        text: Float[Tensor, "items content"],
        has_text: Bool[Tensor, "items"],
        categories: Sequence[str | None] | None = None,
    ) -> tuple[Float[Tensor, "items content"], Bool[Tensor, "items"]]:
        """Return what :meth:`embed_items` returns, from what the heads say of images and titles."""
        self.eval()
        device = self.image_head.weight.device
        category = self.category_index(categories or [None] * len(has_image)).to(device)
        with torch.no_grad():
            views = self.fuse(*(value.to(device) for value in (image, has_image, text, has_text)))
            content = self.content(views.fused, category).cpu()
        known = has_image | has_text
        return content.masked_fill(~known.unsqueeze(-1), 0.0), known

    def embed_query_images(
        self, images: Sequence[bytes]
    ) -> tuple[Float[Tensor, "queries content"], Int[Tensor, "queries"]]:
        """Return ``h_q^img`` of raw query pictures, and the category each was taken for.

        Returns:
            vectors: float32 on the CPU, rows L2-normalized, without gradient.
            category: From :meth:`query_category`.

        Raises:
            DataError: a picture cannot be decoded.
        """
        self.eval()
        device = self.image_head.weight.device
        with torch.no_grad():
            pixels = self.image_encoder.pixels(images).to(device)
            queries = self.query_view(self.image_vectors(pixels))
            return self.query_content(queries).cpu(), self.query_category(queries).cpu()

    def embed_query_texts(
        self, texts: Sequence[str]
    ) -> tuple[Float[Tensor, "queries content"], Int[Tensor, "queries"]]:
        """Return ``h_q^txt`` of raw query texts, and the category each was taken for, as :meth:`embed_query_images`.

        Raises:
            EncoderError: the encoder was made without text queries.
            DataError: a text is no Unicode.
        """
        if not self.text_queries:
            raise EncoderError(
                f"item encoder: it was made without text queries, and {len(texts)} texts ask. Make it again with "
                "'mimctr csft' and text_queries = true."
            )
        self.eval()
        device = self.image_head.weight.device
        with torch.no_grad():
            ids, mask = self.text_encoder.tokenize(texts)
            queries = self.text_view(self.text_vectors(ids.to(device), mask.to(device)))
            content, category = (
                self.query_content(queries, asked="text"),
                self.query_category(queries, asked="text"),
            )
        return content.cpu(), category.cpu()


def recorded_fingerprint(folder: Path) -> str:
    """Return the fingerprint of the item encoder in ``folder`` as it was saved, without loading it.

    Raises:
        EncoderError: there is none, or it is of another format.
    """
    return _read_record(folder)["fingerprint"]


def _read_record(folder: Path) -> dict[str, Any]:
    if not (folder / RECORD).is_file():
        raise EncoderError(f"{folder}: no {RECORD} in it. Give a folder that 'mimctr csft' wrote.")
    record = read_json(folder / RECORD)
    if record.get("kind") != "item" or record.get("format") != FORMAT:
        raise EncoderError(
            f"{folder / RECORD}: kind '{record.get('kind')}' of format {record.get('format')}; an item encoder of "
            f"format {FORMAT} is wanted. Make it again with 'mimctr csft'."
        )
    return record
