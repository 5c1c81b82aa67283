"""Stage 2, C-SFT: fine-tune the item encoder on interest pairs, MIM Section 3.3, Eq. (2) to (6)."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import torch
from torch import Tensor

from mimctr.csft.loss import Exclusions, Pool
from mimctr.csft.model import InterestModel
from mimctr.csft.negatives import NegativeMemory, gather_candidates
from mimctr.csft.objectives import CategoryCrossEntropy, MultiLevelInfoNCE, Objective, PairCrossEntropy
from mimctr.data.dataset import CtrDataset
from mimctr.distributed import average, barrier, from_main, is_main, rank, size, total
from mimctr.encoders.item import ItemEncoder
from mimctr.errors import ConfigError, DataError
from mimctr.files import write_json
from mimctr.progress import track
from mimctr.recipes.catalogue import Catalogue, TowerVectors, load_towers, start_plain
from mimctr.recipes.csft_config import Config
from mimctr.recipes.csft_examples import Examples
from mimctr.recipes.csft_neighbors import NeighborSheet
from mimctr.recipes.csft_towers import Towers
from mimctr.recipes.device import pick_device
from mimctr.recipes.fitting import LOG_EVERY, adamw, resume, take_step
from mimctr.recipes.neighbors import AFTER, BEFORE
from mimctr.recipes.tuning import finish_towers, prepare_towers
from mimctr.recipes.visual_search import SEARCH, Pairs, Searches, log_search, pair_table, usable_pairs
from mimctr.train.run import Run
from mimctr.train.seeds import seed_step
from mimctr.weights import load_tensors, save_tensors

__all__ = ["Config", "main"]

BEST = "best.safetensors"


def main(dataset: Path, encoders: Path, out: Path, config: Config) -> Searches:
    """Write the fine-tuned item encoder to ``out``; return visual-search metrics, before and after, by part and slice.

    Also writes ``search.json`` (what is returned), ``metrics.jsonl`` (held-out search from step 0, the plain geometry,
    on) and ``neighbors.jpg`` (nearest items of some held-out queries, before and after). The weights of the best
    evaluation are kept. Killed and called again, it ends bit for bit the same.

    Args:
        dataset: Written by ``mimctr prepare``.
        encoders: Folder with image/ and text/, written by ``mimctr foundation`` or ``mimctr pretrain``; or by ``mimctr
            plain``, whose kept vectors spare frozen towers a run.
        out: Stage folder.
        config: Settings.

    Raises:
        ConfigError: a setting does not suit the pairs or the towers.
        DataError: there are fewer than two pairs to train on, or none held out.
        EncoderError: a tower cannot be trained as the settings say.
        RunError: the loss is not finite.
    """
    device = pick_device(config.device)
    data = CtrDataset.open(dataset)
    torch.manual_seed(config.seed)
    encoder = load_towers(encoders, data, config).to(device)
    wanted = {part: pair_table(data, part, config.pair_kinds) for part in ("train", "validation", "test")}
    queries = np.unique(np.concatenate([table["query"].to_numpy() for table in wanted.values()]))
    kept_in = encoders if config.trainable == "heads" else None
    catalogue = Catalogue(data, encoder, queries[queries > 0], out / "pixels.npy", kept_in=kept_in)
    pairs = {
        name: usable_pairs(table, catalogue.pictures, catalogue.titles, catalogue.has_content)
        for name, table in wanted.items()
    }
    held_out = {
        part: pairs[part].sample(config.max_held_out_pairs, config.seed) for part in ("validation", "test")
    }
    num_pairs = math.ceil(config.pair_share * len(pairs["train"]))
    trained = pairs["train"].sample(num_pairs, config.seed)
    _refuse_few(config, wanted, pairs | {"train": trained}, where=dataset)
    _refuse_misfits(config, encoder, pairs, where=dataset)
    examples = Examples(data, trained, catalogue.has_content, config)
    encoder.image_encoder.adapt_batch_norm = config.adapt_batch_norm
    prepare_towers(encoder.image_encoder, encoder.text_encoder, config)
    towers = Towers(catalogue, encoder, device, config)
    sheet = NeighborSheet(catalogue, config)
    judged = (*held_out.values(), sheet.pairs)
    vectors = towers.everything(*judged)
    start_plain(encoder, catalogue, vectors, config)

    sheet.look(BEFORE, encoder, vectors)
    before = search_parts(catalogue, encoder, held_out, vectors, query=config.query)
    objective = make_objective(config, num_categories=int(data.item_fields[:, 0].max()) + 1)
    model = InterestModel(encoder, objective, drop_modality=config.drop_modality).to(device)
    tune(model, examples, towers, Run(out), config, judge=lambda: towers.search(held_out["validation"]))
    barrier()  # the best weights are on disk
    model.load_state_dict(load_tensors(out / BEST)[0])
    finish_towers(encoder.image_encoder, encoder.text_encoder, config)
    tuned = towers.everything(*judged)
    sheet.look(AFTER, encoder, tuned)
    if is_main():
        sheet.write(out)
    after = search_parts(catalogue, encoder, held_out, tuned, query=config.query)
    found = {**after, **{f"{part}_before": metrics for part, metrics in before.items()}}
    log_search(found)
    if is_main():
        if config.keep_vectors:
            catalogue.keep(out, encoder, vectors)
        encoder.cpu().save(out)
        write_json(out / SEARCH, found)
    return found


def _refuse_misfits(config: Config, encoder: ItemEncoder, pairs: Mapping[str, Pairs], *, where: Path) -> None:
    """Raise where settings do not suit the pairs or the towers, before any tower has run."""
    if config.query == "item" and any((table.query_item == 0).any() for table in pairs.values()):
        raise ConfigError(
            f"csft.query: 'item' needs pairs from behaviors, but {where} has pairs whose query is a picture or "
            "text of its own. Set query = 'image'."
        )
    if config.tower_batch_size and config.adapt_batch_norm and encoder.image_encoder.has_batch_norm:
        raise ConfigError(
            "csft.tower_batch_size: batch norm would see pieces, twice each, in place of the batch. Set "
            "adapt_batch_norm = false, or tower_batch_size = 0."
        )


def _refuse_few(
    config: Config, wanted: Mapping[str, pl.DataFrame], pairs: Mapping[str, Pairs], *, where: Path
) -> None:
    """Raise where too few pairs are left to train on, or none to stop early by.

    Args:
        config: Settings.
        wanted: All pairs of the wanted kinds, by part.
        pairs: Those of them that are used.
        where: The dataset.
    """
    kinds = " or ".join(config.pair_kinds) or "any"
    rules = {
        "train": (2, "to train on", "Look at [csft] pair_kinds and at the pair rule of 'mimctr prepare'."),
        "validation": (1, "in the validation part, to stop early by", "Prepare a longer one."),
    }
    for part, (least, use, advice) in rules.items():
        if len(pairs[part]) >= least:
            continue
        if num_unused := wanted[part].height - len(pairs[part]):
            advice = (
                f"{num_unused} more are there: [csft] pair_share leaves them out, their query is only a text "
                "(text_queries = true takes it), or query or item have neither picture nor text."
            )
        raise DataError(
            f"{where}: {len(pairs[part])} interest pairs of kind {kinds} {use}; at least {least} needed. {advice}"
        )


def tune(
    model: InterestModel,
    examples: Examples,
    towers: Towers,
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
    device = model.encoder.image_head.weight.device
    memory = NegativeMemory(config.num_memory_batches, examples.num_candidates, config.dim).to(device)
    anchor = {name: tensor.clone() for name, tensor in model.encoder.heads_state().items()}
    optimizer = _optimizer(model, config)
    kept = {"model": model, "memory": memory}
    start = resume(run, kept, optimizer, batch_size=examples.batch_size)
    for step in track(
        range(start, config.num_steps), total=config.num_steps, description="csft", start=start
    ):
        if step % config.evaluate_every == 0 and not _judge(model, run, step, config, judge):
            return
        seed_step(config.seed, step)
        model.train()
        batch = examples.batch(step).share()
        query, own = model(*towers.vectors(batch), batch.item_keys.to(device))
        everyones = gather_candidates(own, len(query))
        pool = memory.extend(everyones) if step >= config.memory_warmup_steps else Pool(everyones)
        known = examples.no_negatives(batch, pool.item_keys)
        exclusions = Exclusions(pool, len(query), first=rank() * len(query), known=known)
        loss = model.objective(query, own, pool, exclusions, batch.category.to(device))
        run.refuse_if_not_finite(step, loss, batch._asdict())
        if step % LOG_EVERY == 0:
            run.log(step, loss=total(loss).item(), **average(model.objective.facts(exclusions)))
        if config.start_pull:
            loss = loss + config.start_pull * distance(model.encoder, anchor) / size()
        take_step(optimizer, loss, step=step, num_steps=config.num_steps)
        memory.enqueue(everyones)
        run.checkpoint_if_due(step + 1, kept, optimizer, meta={"batch_size": examples.batch_size})
    _judge(model, run, config.num_steps, config, judge)


def make_objective(config: Config, *, num_categories: int) -> Objective:
    """Return what the config wants to be minimized, with fresh weights."""
    if config.objective == "pair_cross_entropy":
        return PairCrossEntropy(temperature=config.temperature)
    if config.objective == "category_cross_entropy":
        return CategoryCrossEntropy(config.dim, num_categories, temperature=config.temperature)
    return MultiLevelInfoNCE(
        temperature=config.temperature,
        learn_temperature=config.learn_temperature,
        text_weight=config.text_weight,
        image_weight=config.image_weight,
    )


def _judge(
    model: InterestModel, run: Run, step: int, config: Config, judge: Callable[[], dict[str, float]]
) -> bool:
    """Log held-out search, keep the weights if they are the best so far; return whether to go on."""
    model.eval()
    earlier = [line[config.metric] for line in run.metrics() if config.metric in line]
    found = judge()
    metrics = from_main(lambda: found)  # all go on, or none
    run.log(step, **metrics)
    if not earlier or metrics[config.metric] > max(earlier):
        if is_main():
            save_tensors(run.folder / BEST, model.state_dict())
        return True
    since_best = len(earlier) - int(np.argmax(earlier))
    return since_best < config.patience


def distance(encoder: ItemEncoder, anchor: Mapping[str, Tensor]) -> Tensor:
    """Return the squared distance of heads and fusion from where they started."""
    now = {name: value for name, value in encoder.named_parameters() if name in anchor}
    return torch.stack([(value - anchor[name]).square().sum() for name, value in now.items()]).sum()


def search_parts(
    catalogue: Catalogue,
    encoder: ItemEncoder,
    held_out: Mapping[str, Pairs],
    towers: TowerVectors,
    *,
    query: Literal["image", "item"],
) -> Searches:
    """Return the visual-search metrics of every part that has pairs, given the towers' vectors."""
    return {
        part: catalogue.search(encoder, pairs, towers, query=query)
        for part, pairs in held_out.items()
        if len(pairs)
    }


def _optimizer(model: InterestModel, config: Config) -> torch.optim.AdamW:
    encoder = model.encoder
    towers = [*encoder.image_encoder.parameters(), *encoder.text_encoder.parameters()]
    inside = set(map(id, towers))
    parts = {"heads": ([p for p in model.parameters() if id(p) not in inside], config.head_learning_rate)}
    if config.trainable == "all":
        parts["towers"] = (towers, config.tower_learning_rate)
    return adamw(parts, weight_decay=config.weight_decay)
