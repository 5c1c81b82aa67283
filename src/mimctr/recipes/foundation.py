"""Plain encoders, before any catalogue is seen: trained on a generic corpus, or given weights (MIM Section 3.2).

The generic corpus stands for ImageNet and Wikipedia where no public weights can be had: a folder with
``images.parquet`` (image, label) and ``captions.parquet`` (caption).
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from mimctr.encoders.image import ImageEncoder
from mimctr.encoders.image import Pooling as ImagePooling
from mimctr.encoders.registry import FOUNDATIONS, Foundation, find
from mimctr.encoders.text import Pooling as TextPooling
from mimctr.encoders.text import TextEncoder, train_tokenizer
from mimctr.errors import ConfigError, DataError
from mimctr.precision import autocast
from mimctr.pretrain.language import language_loss, language_model
from mimctr.pretrain.masked_language import HEAD, read_head
from mimctr.recipes.content import chunks, decode_pictures
from mimctr.recipes.device import pick_device
from mimctr.recipes.fitting import fit
from mimctr.train.run import Run
from mimctr.train.seeds import seed_step
from mimctr.weights import save_tensors

logger = logging.getLogger(__name__)

RESNET = {
    "model_type": "resnet",
    "embedding_size": 32,
    "hidden_sizes": [32, 64, 128],
    "depths": [1, 1, 1],
    "layer_type": "basic",
}
BERT = {
    "model_type": "bert",
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "max_position_embeddings": 64,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
}
MAX_HELD_OUT = 1000
MASKED_RATIO = 0.15
"""Share of tokens that masked language modelling predicts, BERT's."""
SHIFT = 4
"""Most pixels by which a training image of the generic corpus is shifted."""


class Config(BaseModel):
    """Settings of ``mimctr foundation``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image_weights: Path | None = Field(
        None,
        description="Vision network to take instead of training one: a name of 'mimctr encoders', a folder, or a hub "
        "name. Paper: EVA-02.",
    )
    text_weights: Path | None = Field(
        None,
        description="Language network to take instead of training one, named likewise. Paper: BGE.",
    )
    image_size: int | None = Field(
        None, ge=8, description="Height and width in pixels; None takes what the weights or the network say."
    )
    image_pooling: ImagePooling | None = Field(
        None, description="How a feature map becomes a vector; None: its own."
    )
    text_pooling: TextPooling | None = Field(None, description="How token vectors become one; None: its own.")
    max_tokens: int = Field(48, ge=4, description="Most tokens of a title, special ones included.")
    image_network: dict[str, Any] = Field(
        RESNET, description="transformers configuration of a network to train."
    )
    text_network: dict[str, Any] = Field(
        BERT, description="transformers configuration of a network to train."
    )
    vocab_size: int = Field(2048, ge=16, description="Most tokens of the tokenizer trained on the captions.")
    image_steps: int = Field(900, ge=1, description="Training steps of the vision network.")
    text_steps: int = Field(600, ge=1, description="Training steps of the language network.")
    batch_size: int = Field(64, ge=2, description="Images or captions per step.")
    image_learning_rate: float = Field(
        3e-3, gt=0, description="Peak learning rate of the vision network, AdamW."
    )
    text_learning_rate: float = Field(
        1e-3, gt=0, description="Peak learning rate of the language network, AdamW."
    )
    weight_decay: float = Field(0.05, ge=0, description="Decoupled weight decay.")
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="Of the image labels.")
    seed: int = Field(0, ge=0, description="Of weights, order and masks.")
    device: str = Field("auto", description="'auto' takes CUDA where there is a GPU, else the CPU.")
    bf16: bool = Field(True, description="Matrix products in bfloat16, where the processor has them.")

    @property
    def needs_corpus(self) -> bool:
        """Whether an encoder has to be trained here."""
        return self.image_weights is None or self.text_weights is None


def main(corpus: Path | None, out: Path, config: Config) -> dict[str, float]:
    """Write plain encoders to ``out/image`` and ``out/text``; return the held-out metrics of those trained here.

    Args:
        corpus: Folder of the generic corpus; None where both weights are given.
        out: Stage folder.
        config: Settings.

    Raises:
        ConfigError: an encoder has to be trained, but there is no corpus.
        DataError: the corpus lacks a table or column.
        EncoderError: weights cannot be loaded, or need timm, which is not installed.
    """
    metrics: dict[str, float] = {}
    if config.image_weights is not None:
        row = _named(config.image_weights, modality="image")
        image = ImageEncoder.load(
            row.weights() if row else _local(config.image_weights),
            size=config.image_size or (row.size if row else None),
            pooling=config.image_pooling or (row.pooling if row else None),  # type: ignore[arg-type]
        )
        image.save(out / "image")
    else:
        metrics |= _train_image(_column(corpus, "images", "image", "label"), out, config)
    if config.text_weights is not None:
        row = _named(config.text_weights, modality="text")
        source = row.weights() if row else _local(config.text_weights)
        text = TextEncoder.load(
            source,
            max_length=config.max_tokens,
            pooling=config.text_pooling or (row.pooling if row else None),  # type: ignore[arg-type]
        )
        text.save(out / "text")
        if head := read_head(source):  # DDA continues with it
            save_tensors(out / "text" / HEAD, head)
    else:
        metrics |= _train_text(_column(corpus, "captions", "caption")["caption"].to_list(), out, config)
    return metrics


def _train_image(table: pl.DataFrame, out: Path, config: Config) -> dict[str, float]:
    """Train a vision network on labels (supervised, as ImageNet weights are)."""
    device = pick_device(config.device)
    seed_step(config.seed, 0)
    size = config.image_size or config.image_network.get("image_size", 64)
    encoder = ImageEncoder.from_config(config.image_network, size=size, pooling=config.image_pooling)
    names = table["label"].unique().sort()
    labels = torch.from_numpy(
        table["label"].replace_strict(names, range(len(names))).to_numpy().astype(np.int64)
    )
    pixels = decode_pictures(table["image"].to_list(), len(table), encoder, out / "run" / "pixels.npy")
    held, trained = _hold_out(len(table), config.seed)
    model = nn.ModuleDict({"encoder": encoder, "classifier": nn.Linear(encoder.dim, len(names))}).to(device)

    def logits(rows: np.ndarray, *, augmented: bool) -> Tensor:
        batch = torch.from_numpy(pixels[rows])
        with autocast(device, bf16=config.bf16):
            return model["classifier"](encoder((augment(batch) if augmented else batch).to(device))).float()

    def loss_of(rows: np.ndarray) -> Tensor:
        return F.cross_entropy(
            logits(rows, augmented=True), labels[rows].to(device), label_smoothing=config.label_smoothing
        )

    def held_out() -> dict[str, float]:
        found = torch.cat([logits(rows, augmented=False).cpu() for rows in chunks(held, 256)])
        return {
            "held_out_loss": F.cross_entropy(found, labels[held]).item(),
            "held_out_accuracy": (found.argmax(1) == labels[held]).double().mean().item(),
        }

    metrics = fit(
        Run(out / "run" / "image"),
        model,
        loss_of,
        held_out,
        trained=trained,
        batch_size=config.batch_size,
        num_steps=config.image_steps,
        learning_rate=config.image_learning_rate,
        weight_decay=config.weight_decay,
        seed=config.seed,
    )
    encoder.cpu().save(out / "image")
    logger.info("image encoder: %s", metrics)
    return {f"image_{name}": value for name, value in metrics.items()}


def _train_text(captions: list[str], out: Path, config: Config) -> dict[str, float]:
    """Train a tokenizer and a language network on captions, by the loss that suits it: masked, or causal."""
    device = pick_device(config.device)
    seed_step(config.seed, 0)
    tokenizer = train_tokenizer(captions, vocab_size=config.vocab_size)
    encoder = TextEncoder.from_config(
        config.text_network, tokenizer, max_length=config.max_tokens, pooling=config.text_pooling
    )
    tokens = encoder.tokenize(captions)
    held, trained = _hold_out(len(captions), config.seed)
    model = language_model(encoder, ratio=MASKED_RATIO, head={}).to(device)

    def loss_of(rows: np.ndarray) -> Tensor:
        width = int(tokens.mask[rows].sum(1).max())
        ids, mask = tokens.ids[rows, :width].to(device), tokens.mask[rows, :width].to(device)
        with autocast(device, bf16=config.bf16):
            return language_loss(model, ids, mask)

    metrics = fit(
        Run(out / "run" / "text"),
        model,
        loss_of,
        lambda: {"held_out_loss": loss_of(held).item()},
        trained=trained,
        batch_size=config.batch_size,
        num_steps=config.text_steps,
        learning_rate=config.text_learning_rate,
        weight_decay=config.weight_decay,
        seed=config.seed,
    )
    encoder.cpu().save(out / "text")
    if head := model.head_state():
        save_tensors(out / "text" / HEAD, head)
    logger.info("text encoder: %s", metrics)
    return {f"text_{name}": value for name, value in metrics.items()}


def augment(pixels: UInt8[Tensor, "images 3 height width"]) -> UInt8[Tensor, "images 3 height width"]:
    """Return the batch shifted by up to ``SHIFT`` pixels (edges repeated), half of its images mirrored."""
    mirrored = torch.where(torch.rand(len(pixels), 1, 1, 1) < 0.5, pixels.flip(3), pixels)
    padded = F.pad(mirrored.float(), (SHIFT,) * 4, mode="replicate").to(torch.uint8)
    top, left = torch.randint(2 * SHIFT + 1, (2,)).tolist()
    return padded[:, :, top : top + pixels.shape[2], left : left + pixels.shape[3]]


def _hold_out(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows that are held out (a tenth, at most ``MAX_HELD_OUT``) and the rest."""
    order = np.random.default_rng([seed, count]).permutation(count)
    held = min(max(count // 10, 1), MAX_HELD_OUT)
    return np.sort(order[:held]), np.sort(order[held:])


def _column(corpus: Path | None, name: str, *columns: str) -> pl.DataFrame:
    """Return the named columns of a table of the corpus."""
    if corpus is None:
        raise ConfigError(
            f"foundation: no corpus to read {name} from, and no weights. "
            "Give --corpus, or image_weights and text_weights."
        )
    path = corpus / f"{name}.parquet"
    if not path.is_file():
        raise DataError(f"{path}: no such table. A generic corpus has images.parquet and captions.parquet.")
    table = pl.read_parquet(path)
    for column in columns:
        if column not in table.columns:
            raise DataError(f"{path}: no column '{column}', only {', '.join(table.columns)}.")
        if table[column].null_count() or not len(table):
            raise DataError(f"{path}: {table[column].null_count()} of {len(table)} rows have no '{column}'.")
    return table.select(columns)


def _local(weights: Path) -> Path | str:
    """Return a folder as it is, and anything else as a hub name."""
    return weights if weights.is_dir() else str(weights)


def _named(weights: Path, *, modality: str) -> Foundation | None:
    """Return the foundation model of that name; None for a folder or a hub name.

    Raises:
        ConfigError: it is one for the other modality.
    """
    row = find(weights)
    if row is not None and row.modality != modality:
        names = ", ".join(other.name for other in FOUNDATIONS if other.modality == modality)
        raise ConfigError(
            f"foundation.{modality}_weights: {row.name} reads {row.modality}s. Take one of {names}, a folder or a "
            "hub name."
        )
    return row
