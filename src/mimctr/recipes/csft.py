"""Stage 2, C-SFT: fine-tune the item encoder on interest pairs, MIM Section 3.3, Eq. (2) to (6)."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from mimctr.batch import FIRST_INDEX
from mimctr.csft.loss import NOBODY, accidental_negatives, multi_level_info_nce
from mimctr.csft.model import InterestModel
from mimctr.csft.negatives import NegativeMemory, count_negatives
from mimctr.data.dataset import CtrDataset
from mimctr.data.pairs import HardNegatives
from mimctr.encoders.item import ItemEncoder, ItemVectors
from mimctr.errors import DataError
from mimctr.files import write_json
from mimctr.progress import track
from mimctr.recipes.catalogue import Catalogue, load_towers, start_plain
from mimctr.recipes.content import autocast, epoch_batch
from mimctr.recipes.device import pick_device
from mimctr.recipes.fitting import LOG_EVERY, adamw, take_step
from mimctr.recipes.plain import SEARCH
from mimctr.recipes.visual_search import Pairs, cosine_auc, pair_table, usable_pairs
from mimctr.train.run import Run
from mimctr.train.seeds import seed_step
from mimctr.weights import load_tensors, save_tensors

logger = logging.getLogger(__name__)

BEST = "best.safetensors"


class Config(BaseModel):
    """Settings of ``mimctr csft``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dim: int = Field(64, ge=1, description="Content dimension. The paper does not give it.")
    hidden: int = Field(128, ge=1, description="Width of the fusion MLP. The paper does not give it.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Of the fusion MLP.")
    trainable: Literal["all", "heads"] = Field(
        "all", description="'heads' runs the towers once and trains heads and fusion on their vectors."
    )
    pair_kinds: list[str] = Field(
        ["purchase"], description="Kinds of interest pair; empty for all. Paper: purchases."
    )
    batch_size: int = Field(128, ge=2, description="Pairs per step, N. Paper: 1024.")
    num_memory_batches: int = Field(
        0,
        ge=0,
        description="Batches of the negative memory, k. Paper: 10; it wants towers that hardly move any more.",
    )
    memory_warmup_steps: int = Field(150, ge=0, description="Steps before the negative memory is used.")
    hard_negatives: bool = Field(True, description="Same-category negative for each pair, as in the paper.")
    mask_same_user: bool = Field(
        True, description="Other items the query's user bought are no negatives of it."
    )
    temperature: float = Field(0.07, gt=0, description="Divides the cosine of Eq. (5), which prints none.")
    learn_temperature: bool = Field(False, description="Train the temperature too.")
    text_weight: float = Field(0.5, ge=0, description="alpha of Eq. (6). Paper: 0.5.")
    image_weight: float = Field(0.5, ge=0, description="beta of Eq. (6). Paper: 0.5.")
    drop_modality: float = Field(
        0.05, ge=0, lt=1, description="Share of items that lose picture or title in a step."
    )
    num_steps: int = Field(250, ge=1, description="Most training steps.")
    evaluate_every: int = Field(50, ge=1, description="Steps between two evaluations on held-out pairs.")
    patience: int = Field(4, ge=1, description="Evaluations without a better one before training stops.")
    metric: Literal["recall@10", "recall@100", "mrr", "cosine_auc"] = Field(
        "recall@10",
        description="Held-out metric that early stopping watches; cosine_auc is that of the mean cosine of target and "
        "behaviors on validation impressions.",
    )
    tower_learning_rate: float = Field(1e-3, ge=0, description="Peak learning rate of the towers, AdamW.")
    head_learning_rate: float = Field(
        3e-3, gt=0, description="Peak learning rate of heads and fusion, AdamW."
    )
    weight_decay: float = Field(0.01, ge=0, description="Decoupled weight decay.")
    adapt_batch_norm: bool = Field(
        True, description="Let batch norm's statistics follow the trained towers; false for small batches."
    )
    start_pull: float = Field(
        0.0, ge=0, description="Weight of the squared distance of heads and fusion from the plain geometry."
    )
    max_held_out_pairs: int = Field(
        2000, ge=1, description="Held-out pairs that an evaluation ranks, at most."
    )
    center_by_category: bool = Field(
        False,
        description="Center content vectors on their category; for logs whose targets compete within a category.",
    )
    whitening: float = Field(
        0.0, ge=0, le=1, description="Of the plain geometry: 0 is PCA, 1 makes all its variances equal."
    )
    max_plain_items: int = Field(
        20_000, ge=2, description="Items that the starting PCA is fitted on, at most."
    )
    seed: int = Field(0, ge=0, description="Of order, negatives and dropped modalities.")
    device: str = Field("auto", description="'auto' takes CUDA where there is a GPU, else the CPU.")
    bf16: bool = Field(True, description="Run the towers in bfloat16; heads and loss stay in float32.")


def main(dataset: Path, encoders: Path, out: Path, config: Config) -> dict[str, dict[str, float]]:
    """Write the fine-tuned item encoder to ``out``; return visual-search metrics before and after by part.

    Also writes ``search.json`` (what is returned) and ``metrics.jsonl`` (held-out search from step 0, the plain
    geometry, on). The weights of the best evaluation are kept. Killed and called again, it ends bit for bit the same.

    Args:
        dataset: Written by ``mimctr prepare``.
        encoders: Folder with image/ and text/, written by ``mimctr foundation`` or ``mimctr pretrain``.
        out: Stage folder.
        config: Settings.

    Raises:
        DataError: there are fewer than two pairs to train on, or none held out.
        RunError: the loss is not finite.
    """
    device = pick_device(config.device)
    data = CtrDataset.open(dataset)
    torch.manual_seed(config.seed)
    encoder = load_towers(
        encoders,
        dim=config.dim,
        hidden=config.hidden,
        dropout=config.dropout,
        center_on=data if config.center_by_category else None,
    ).to(device)
    wanted = {part: pair_table(data, part, config.pair_kinds) for part in ("train", "validation", "test")}
    queries = np.unique(np.concatenate([table["query"].to_numpy() for table in wanted.values()]))
    catalogue = Catalogue(data, encoder, queries[queries > 0], out / "pixels.npy")
    pairs = {
        name: usable_pairs(table, catalogue.pictures, catalogue.has_content) for name, table in wanted.items()
    }
    held_out = {
        part: pairs[part].sample(config.max_held_out_pairs, config.seed) for part in ("validation", "test")
    }
    towers = Towers(catalogue, encoder, device, cached=config.trainable == "heads", bf16=config.bf16)
    judged = np.concatenate([chosen.picture for chosen in held_out.values()])
    tables = towers.tables(judged)
    start_plain(
        encoder,
        catalogue,
        *tables,
        max_items=config.max_plain_items,
        whitening=config.whitening,
        seed=config.seed,
    )
    examples = Examples(data, pairs["train"], config)
    if not len(held_out["validation"]):
        raise DataError(
            f"{dataset}: no interest pair in the validation part to stop early by. Prepare a longer one."
        )

    before = search_parts(catalogue, encoder, held_out, *tables)
    model = InterestModel(
        encoder,
        temperature=config.temperature,
        learn_temperature=config.learn_temperature,
        drop_modality=config.drop_modality,
    ).to(device)
    encoder.image_encoder.adapt_batch_norm = config.adapt_batch_norm
    tune(model, examples, towers, Run(out), config, judge=lambda: towers.search(held_out["validation"]))
    model.load_state_dict(load_tensors(out / BEST)[0])
    after = search_parts(catalogue, encoder, held_out, *towers.tables(judged))
    found = {**after, **{f"{part}_before": metrics for part, metrics in before.items()}}
    logger.info("visual search: %s", found)
    encoder.cpu().save(out)
    write_json(out / SEARCH, found)
    catalogue.close()
    return found


def tune(
    model: InterestModel,
    examples: "Examples",
    towers: "Towers",
    run: Run,
    config: Config,
    *,
    judge: Callable[[], dict[str, float]],
) -> None:
    """Train ``model`` until its held-out search no longer improves; the best weights are in ``best.safetensors``.

    Args:
        model: Trained in place; afterwards it holds the last weights, not the best.
        examples: What it learns from.
        towers: Its towers, or their vectors.
        run: Where metrics, checkpoint and best weights go; an interrupted run is resumed.
        config: Settings.
        judge: Held-out metrics of the present weights.
    """
    device = model.log_temperature.device
    memory = NegativeMemory(config.num_memory_batches, examples.num_candidates, config.dim).to(device)
    anchor = {name: tensor.clone() for name, tensor in model.encoder.heads_state().items()}
    optimizer = _optimizer(model, config)
    start, _, _ = run.restore({"model": model, "memory": memory}, optimizer)
    for step in track(
        range(start, config.num_steps), total=config.num_steps, description="csft", start=start
    ):
        if step % config.evaluate_every == 0 and not _judge(model, run, step, config, judge):
            return
        seed_step(config.seed, step)
        model.train()
        model.clamp_temperature()
        batch = examples.batch(step)
        query, candidates = model(*towers.vectors(batch), batch.item_keys.to(device), batch.users.to(device))
        pool = memory.extend(candidates) if step >= config.memory_warmup_steps else candidates
        excluded = accidental_negatives(pool, len(query), mask_same_user=config.mask_same_user)
        loss = multi_level_info_nce(
            query,
            pool,
            excluded,
            text_weight=config.text_weight,
            image_weight=config.image_weight,
            temperature=model.temperature,
        )
        if step % LOG_EVERY == 0 or not loss.isfinite():
            run.log(
                step,
                loss=loss.item(),
                negatives=count_negatives(excluded),
                temperature=model.temperature.item(),
            )
        if config.start_pull:
            loss = loss + config.start_pull * distance(model.encoder, anchor)
        take_step(optimizer, loss, step=step, num_steps=config.num_steps)
        memory.enqueue(candidates)
        run.checkpoint_if_due(step + 1, {"model": model, "memory": memory}, optimizer)
    _judge(model, run, config.num_steps, config, judge)


def _judge(
    model: InterestModel, run: Run, step: int, config: Config, judge: Callable[[], dict[str, float]]
) -> bool:
    """Log held-out search, keep the weights if they are the best so far; return whether to go on."""
    model.eval()
    earlier = [line[config.metric] for line in run.metrics() if config.metric in line]
    metrics = judge()
    run.log(step, **metrics)
    if not earlier or metrics[config.metric] > max(earlier):
        save_tensors(run.folder / BEST, model.state_dict())
        return True
    since_best = len(earlier) - int(np.argmax(earlier))
    return since_best < config.patience


def distance(encoder: ItemEncoder, anchor: Mapping[str, Tensor]) -> Tensor:
    """Return the squared distance of heads and fusion from where they started."""
    now = {name: value for name, value in encoder.named_parameters() if name in anchor}
    return torch.stack([(value - anchor[name]).square().sum() for name, value in now.items()]).sum()


class Batch(NamedTuple):
    """What a step trains on."""

    pictures: Int[ndarray, "batch"]
    """Rows in the decoded pictures of the query images."""
    items: Int[ndarray, "candidates"]
    """``item_index``: the positives in the order of the queries, then their hard negatives."""
    item_keys: Int[Tensor, "candidates"]
    users: Int[Tensor, "candidates"]
    """Who bought the item; ``NOBODY`` at a hard negative that its query's user did not buy."""


class Examples:
    """Training pairs by step, each with a hard negative.

    Hard negatives are items first seen before the validation part: later ones would be negatives only, and held-out
    search would count that against them.

    Args:
        data: Says categories and keys.
        pairs: Of the training part.
        config: Settings.

    Raises:
        DataError: there are fewer than two pairs.
    """

    def __init__(self, data: CtrDataset, pairs: Pairs, config: Config) -> None:
        if len(pairs) < 2:
            raise DataError(
                f"{data.folder}: {len(pairs)} interest pairs of kind {config.pair_kinds} to train on; at least 2 are "
                "needed. Look at [csft] pair_kinds and at the pair rule of 'mimctr prepare'."
            )
        self._pairs = pairs
        self._config = config
        self._keys = data.item_keys
        self.batch_size = min(config.batch_size, len(pairs))
        first_seen = np.concatenate(
            [np.zeros(FIRST_INDEX, dtype=np.int64), data.items["first_seen_time"].to_numpy()]
        )
        self._negatives = HardNegatives(
            data.item_fields[:, 0], first_seen, before=data.manifest.validation_start
        )
        self._stride = len(data.item_keys)
        self._bought = np.unique(pairs.user * self._stride + pairs.item)

    @property
    def num_candidates(self) -> int:
        """Items of a batch: 2 N with hard negatives, else N."""
        return self.batch_size * (2 if self._config.hard_negatives else 1)

    def batch(self, step: int) -> Batch:
        """Return the batch of a step; the same in every run of the same seed."""
        seed = self._config.seed
        rows = epoch_batch(len(self._pairs), batch_size=self.batch_size, seed=seed, step=step)
        items, users = self._pairs.item[rows], self._pairs.user[rows]
        owners = users
        if self._config.hard_negatives:
            drawn, _ = self._negatives.draw(items, np.random.default_rng([seed, 1, step]))
            bought = np.isin(users * self._stride + drawn, self._bought)
            items = np.concatenate([items, drawn])
            owners = np.concatenate([users, np.where(bought, users, NOBODY)])
        return Batch(
            self._pairs.picture[rows], items, torch.from_numpy(self._keys[items]), torch.from_numpy(owners)
        )


class Towers:
    """The towers' vectors of a batch or of everything: run with gradient, or once for all.

    Args:
        catalogue: Pictures and titles.
        encoder: Owns the towers.
        device: Where they run.
        cached: Run them once, now, in evaluation mode; they are not trained then.
        bf16: Run them in bfloat16.
    """

    def __init__(
        self, catalogue: Catalogue, encoder: ItemEncoder, device: torch.device, *, cached: bool, bf16: bool
    ) -> None:
        self._catalogue = catalogue
        self._encoder = encoder
        self._device = device
        self._bf16 = bf16
        self._tables: tuple[Tensor, Tensor] | None = None
        if cached:
            self._tables = self._run_all(None)

    def tables(self, pictures: Int[ndarray, "queries"] | None = None) -> tuple[Tensor, Tensor]:
        """Return the vectors of all pictures (or the items' and some queries') and titles, without gradient."""
        return self._tables or self._run_all(pictures)

    def search(self, pairs: Pairs) -> dict[str, float]:
        """Center ``h^MM`` on the catalogue; return the visual-search metrics of ``pairs`` with the present weights."""
        tables = self.tables(pairs.picture)
        catalogue, encoder = self._catalogue, self._encoder
        catalogue.recenter(encoder, *tables)
        found = catalogue.search(encoder, pairs, *tables)
        fused = catalogue.fused(encoder, np.arange(len(catalogue.has_content)), *tables).to(self._device)
        content = encoder.content(fused, catalogue.category_index(encoder).to(self._device)).cpu()
        return found | {"cosine_auc": cosine_auc(catalogue.data, content)}

    def vectors(self, batch: Batch) -> tuple[Float[Tensor, "batch image"], ItemVectors]:
        """Return the query vectors and the item vectors of a batch, on the device; with gradient unless cached."""
        if self._tables is not None:
            found = self._catalogue.item_vectors(batch.items, *self._tables)
            return self._tables[0][batch.pictures].to(self._device), ItemVectors(
                *(v.to(self._device) for v in found)
            )
        pictures, titles = self._catalogue.pictures, self._catalogue.titles
        has_image, has_text = self._catalogue.has_image[batch.items], self._catalogue.has_text[batch.items]
        rows = np.concatenate([batch.pictures, pictures.of_item[batch.items[has_image]]])
        distinct, place = np.unique(rows, return_inverse=True)
        tokens = titles.gather(batch.items[has_text])
        with autocast(self._device, enabled=self._bf16):
            images = self._encoder.image_vectors(pictures.gather(distinct).to(self._device))
            texts = self._encoder.text_vectors(tokens.ids.to(self._device), tokens.mask.to(self._device))
        images = images[torch.from_numpy(place).to(self._device)]  # (queries + items with a picture, Dv)
        count = len(batch.pictures)
        return images[:count], ItemVectors(
            *_spread(images[count:], has_image, self._device), *_spread(texts, has_text, self._device)
        )

    def _run_all(self, pictures: ndarray | None) -> tuple[Tensor, Tensor]:
        self._encoder.eval()
        images = self._catalogue.picture_vectors(
            self._encoder, device=self._device, bf16=self._bf16, also=pictures
        )
        return images, self._catalogue.title_vectors(self._encoder, device=self._device, bf16=self._bf16)


def search_parts(
    catalogue: Catalogue,
    encoder: ItemEncoder,
    held_out: Mapping[str, Pairs],
    pictures: Float[Tensor, "pictures image"],
    titles: Float[Tensor, "items text"],
) -> dict[str, dict[str, float]]:
    """Return the visual-search metrics of every part that has pairs, given the towers' vectors."""
    return {
        part: catalogue.search(encoder, pairs, pictures, titles)
        for part, pairs in held_out.items()
        if len(pairs)
    }


def _spread(found: Tensor, there: ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    """Put the rows of ``found`` where ``there`` is True, zero elsewhere; return that and ``there``."""
    mask = torch.from_numpy(there).to(device)
    spread = found.new_zeros(len(there), found.shape[1])
    return spread.index_put((mask.nonzero().squeeze(1),), found), mask


def _optimizer(model: InterestModel, config: Config) -> torch.optim.AdamW:
    encoder = model.encoder
    towers = [*encoder.image_encoder.parameters(), *encoder.text_encoder.parameters()]
    inside = set(map(id, towers))
    parts = {"heads": ([p for p in model.parameters() if id(p) not in inside], config.head_learning_rate)}
    if config.trainable == "all":
        parts["towers"] = (towers, config.tower_learning_rate)
    return adamw(parts, weight_decay=config.weight_decay)
