"""Stage 1: fit the encoders to the catalogue (DDA) and to one another (DMA), MIM Section 3.2.

DDA continues each encoder's own self-supervised training: masked image modelling on the pictures; on the titles causal
language modelling for networks that look back only (GPT-2), masked for all others. DMA aligns picture and title of an
item. Only items known before the test part starts are read.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from numpy import ndarray
from pydantic import Field
from torch import Tensor, nn

from mimctr.batch import FIRST_INDEX
from mimctr.data.dataset import CtrDataset
from mimctr.distributed import is_main
from mimctr.encoders.image import ImageEncoder
from mimctr.encoders.text import TextEncoder
from mimctr.errors import DataError
from mimctr.files import write_json
from mimctr.precision import autocast
from mimctr.pretrain.alignment import AlignmentModel, retrieval_metrics, symmetric_info_nce
from mimctr.pretrain.language import LanguageModel, language_loss, language_model
from mimctr.pretrain.masked_image import MaskedImageModel
from mimctr.pretrain.masked_language import HEAD, MaskedLanguageModel, read_head
from mimctr.recipes.content import Pictures, Titles, chunks
from mimctr.recipes.device import pick_device
from mimctr.recipes.fitting import fit
from mimctr.recipes.tuning import TuningConfig, finish_towers, prepare_towers
from mimctr.train.run import Run
from mimctr.weights import save_tensors

logger = logging.getLogger(__name__)

MAX_HELD_OUT = 1000
HELD_OUT_AT_ONCE = 250


class Config(TuningConfig):
    """Settings of ``mimctr pretrain``."""

    masked_image: bool = Field(True, description="DDA of the image encoder.")
    language: bool = Field(
        True,
        description="DDA of the text encoder: causal language modelling of a network that looks back only, such as "
        "GPT-2; masked of any other.",
    )
    alignment: bool = Field(True, description="DMA.")
    masked_image_steps: int = Field(60, ge=1, description="Training steps of masked image modelling.")
    language_steps: int = Field(200, ge=1, description="Training steps of language modelling.")
    alignment_steps: int = Field(200, ge=1, description="Training steps of DMA.")
    batch_size: int = Field(128, ge=2, description="Items per step.")
    image_learning_rate: float = Field(
        1e-4, gt=0, description="Peak learning rate of masked image modelling, AdamW."
    )
    text_learning_rate: float = Field(
        5e-4, gt=0, description="Peak learning rate of language modelling, AdamW."
    )
    alignment_learning_rate: float = Field(1e-3, gt=0, description="Peak learning rate of DMA, AdamW.")
    weight_decay: float = Field(0.05, ge=0, description="Decoupled weight decay.")
    masked_patch: int = Field(16, ge=1, description="Height and width in pixels of what is hidden at once.")
    masked_image_ratio: float = Field(0.5, gt=0, lt=1, description="Share of patches hidden. SimMIM: 0.6.")
    masked_language_ratio: float = Field(
        0.15, gt=0, lt=1, description="Share of tokens that masked language modelling predicts. BERT: 0.15."
    )
    temperature: float = Field(0.07, gt=0, description="Of DMA at the start; learned from there. CLIP: 0.07.")
    adapt_batch_norm: bool = Field(
        True,
        description="Let batch norm's statistics follow the image encoder in DMA; never while patches are masked.",
    )
    seed: int = Field(0, ge=0, description="Of order, masks and projections.")
    device: str = Field("auto", description="'auto' takes CUDA where there is a GPU, else the CPU.")
    bf16: bool = Field(True, description="Matrix products in bfloat16, where the processor has them.")


class Split(NamedTuple):
    """``item_index`` of items that train, and of those held out."""

    trained: Int[ndarray, "trained"]
    held: Int[ndarray, "held"]


def main(dataset: Path, encoders: Path, out: Path, config: Config) -> dict[str, float]:
    """Write adapted encoders to ``out/image`` and ``out/text``; return each step's held-out metrics before and after.

    Args:
        dataset: Written by ``mimctr prepare``.
        encoders: Folder with image/ and text/, written by ``mimctr foundation``.
        out: Stage folder. Also gets ``pretrain.json``: what is returned.
        config: Settings.

    Raises:
        DataError: too few items have what a step needs.
        EncoderError: an encoder cannot be trained as the settings say.
    """
    data = CtrDataset.open(dataset)
    image, text = ImageEncoder.load(encoders / "image"), TextEncoder.load(encoders / "text")
    known = np.flatnonzero(data.items["first_seen_time"].to_numpy() < data.manifest.test_start) + FIRST_INDEX
    work = out / "run"
    titles = Titles.tokenize(data, text)
    pictures = Pictures.decode(
        data, image, work / "pixels.npy", items=known, queries=np.zeros(0, dtype=np.int64)
    )
    has_picture, has_title = pictures.of_item[known] >= 0, titles.known[known]
    head = read_head(encoders / "text")
    torch.manual_seed(config.seed)
    prepare_towers(image, text, config)

    metrics: dict[str, float] = {}
    if config.masked_image:
        metrics |= adapt_image(
            image, pictures, _hold_out(known[has_picture], config.seed, "image"), work, config
        )
    if config.language:
        torch.manual_seed(config.seed)
        language = language_model(text, ratio=config.masked_language_ratio, head=head)
        metrics |= adapt_text(
            language, titles, _hold_out(known[has_title], config.seed, "title"), work, config
        )
        head = language.head_state()
    if config.alignment:
        both = _hold_out(known[has_picture & has_title], config.seed, "image and title")
        metrics |= align(image, text, pictures, titles, both, work, config)
    finish_towers(image, text, config)
    if is_main():
        image.cpu().save(out / "image")
        text.cpu().save(out / "text")
        if head:
            save_tensors(out / "text" / HEAD, head)
        write_json(out / "pretrain.json", metrics)
    return metrics


def adapt_image(
    encoder: ImageEncoder, pictures: Pictures, items: Split, work: Path, config: Config
) -> dict[str, float]:
    """DDA of the image encoder, in place: masked image modelling."""
    device = pick_device(config.device)
    torch.manual_seed(config.seed)
    model = MaskedImageModel(encoder, patch=config.masked_patch, ratio=config.masked_image_ratio).to(device)

    def loss_of(chosen: ndarray) -> Tensor:
        mask = model.draw_mask(len(chosen)).to(device)
        with autocast(device, bf16=config.bf16):
            return model(pictures.gather(pictures.of_item[chosen]).to(device), mask)

    return _fit(
        "masked_image",
        model,
        loss_of,
        lambda: {"held_out_loss": _mean(loss_of, items.held)},
        items,
        work=work,
        num_steps=config.masked_image_steps,
        learning_rate=config.image_learning_rate,
        config=config,
    )


def adapt_text(
    model: LanguageModel, titles: Titles, items: Split, work: Path, config: Config
) -> dict[str, float]:
    """DDA of the text encoder, in place: language modelling, under the name of its kind."""
    device = pick_device(config.device)
    model = model.to(device)

    def loss_of(chosen: ndarray) -> Tensor:
        tokens = titles.gather(chosen)
        ids, mask = tokens.ids.to(device), tokens.mask.to(device)
        with autocast(device, bf16=config.bf16):
            return language_loss(model, ids, mask)

    return _fit(
        "masked_language" if isinstance(model, MaskedLanguageModel) else "causal_language",
        model,
        loss_of,
        lambda: {"held_out_loss": _mean(loss_of, items.held)},
        items,
        work=work,
        num_steps=config.language_steps,
        learning_rate=config.text_learning_rate,
        config=config,
    )


def align(
    image: ImageEncoder,
    text: TextEncoder,
    pictures: Pictures,
    titles: Titles,
    items: Split,
    work: Path,
    config: Config,
) -> dict[str, float]:
    """DMA of both encoders, in place: symmetric InfoNCE.

    Items of equal titles or pictures are no negatives of one another, nor errors of the held-out search.
    """
    device = pick_device(config.device)
    torch.manual_seed(config.seed)
    image.adapt_batch_norm = config.adapt_batch_norm
    model = AlignmentModel(image, text, temperature=config.temperature).to(device)
    _, title = np.unique(titles.ids, axis=0, return_inverse=True)
    content = torch.from_numpy(np.stack([title.reshape(-1), pictures.of_item], axis=1)).to(device)

    def encode(chosen: ndarray) -> tuple[Tensor, Tensor]:
        tokens = titles.gather(chosen)
        with autocast(device, bf16=config.bf16):
            pixels = pictures.gather(pictures.of_item[chosen]).to(device)
            return model.encode_images(pixels), model.encode_texts(
                tokens.ids.to(device), tokens.mask.to(device)
            )

    def loss_of(chosen: ndarray) -> Tensor:
        model.clamp_scale()
        return symmetric_info_nce(*encode(chosen), content[chosen], scale=model.scale)

    def held_out() -> dict[str, float]:
        pairs = [encode(chosen) for chosen in chunks(items.held, HELD_OUT_AT_ONCE)]
        images, texts = (torch.cat(side) for side in zip(*pairs, strict=True))
        loss = symmetric_info_nce(images, texts, content[items.held], scale=model.scale).item()
        return {"held_out_loss": loss, **retrieval_metrics(images, texts, content[items.held])}

    return _fit(
        "alignment",
        model,
        loss_of,
        held_out,
        items,
        work=work,
        num_steps=config.alignment_steps,
        learning_rate=config.alignment_learning_rate,
        config=config,
    )


def _fit(
    name: str,
    model: nn.Module,
    loss_of: Callable[[ndarray], Tensor],
    held_out: Callable[[], dict[str, float]],
    items: Split,
    *,
    work: Path,
    num_steps: int,
    learning_rate: float,
    config: Config,
) -> dict[str, float]:
    """Train one step of the stage; return its held-out metrics before and after, under the step's name."""
    run = Run(work / name)
    after = fit(
        run,
        model,
        loss_of,
        held_out,
        trained=items.trained,
        batch_size=config.batch_size,
        num_steps=num_steps,
        learning_rate=learning_rate,
        weight_decay=config.weight_decay,
        seed=config.seed,
    )
    before = run.metrics()[0]
    metrics = {f"{name}_{key}_before": before[key] for key in after}
    metrics |= {f"{name}_{key}_after": value for key, value in after.items()}
    logger.info("%s: %s", name, metrics)
    return metrics


def _mean(loss_of: Callable[[ndarray], Tensor], items: Int[ndarray, "items"]) -> float:
    """Return the mean loss over chunks of held-out items."""
    return float(np.mean([loss_of(chosen).item() for chosen in chunks(items, HELD_OUT_AT_ONCE)]))


def _hold_out(items: Int[ndarray, "items"], seed: int, what: str) -> Split:
    """Hold out a tenth of ``items``, at most ``MAX_HELD_OUT``."""
    if len(items) < 4:
        raise DataError(
            f"pretrain: only {len(items)} items known before the test part have {what}; 4 are needed. "
            "Switch the step off, or prepare more items."
        )
    order = np.random.default_rng([seed, len(items)]).permutation(len(items))
    held = min(max(len(items) // 10, 2), MAX_HELD_OUT)
    return Split(np.sort(items[order[held:]]), np.sort(items[order[:held]]))
