"""How much memory does a training step of large towers take, with frozen layers, LoRA and activation checkpointing?

    python benchmarks/bench_tower_memory.py --image convnextv2-base --text bert-base --batch-size 16

Each setting makes one AdamW step, image against title, of the whole architectures (weights drawn at random) in a
process of its own. All settings must say the same loss first. Prints a table, then one line of JSON (the last line of
stdout) with the same numbers.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AutoConfig

from mimctr.encoders.image import ImageEncoder
from mimctr.encoders.registry import Foundation, find
from mimctr.encoders.text import TextEncoder, train_tokenizer
from mimctr.encoders.tuning import layers
from mimctr.recipes.tuning import TuningConfig, prepare_towers

TOKENS = 48
NO_DROPOUT = {
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "resid_pdrop",
    "embd_pdrop",
    "attn_pdrop",
}
SETTINGS: dict[str, dict[str, Any]] = {
    "everything": {},
    "activations made again": {"activation_checkpointing": True},
    "half the layers frozen": {"half_frozen": True},
    "LoRA, rank 8": {"lora_rank": 8},
    "LoRA and activations made again": {"lora_rank": 8, "activation_checkpointing": True},
}


def main() -> None:
    """Measure every setting in a process of its own, or one in this process."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image", default="convnextv2-base")
    parser.add_argument("--text", default="bert-base")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--only", choices=SETTINGS, help="one setting, in this process")
    args = parser.parse_args()
    if args.only:
        print(json.dumps(measure(args)))
        return
    results = {}
    for name in SETTINGS:
        command = [sys.executable, __file__, "--only", name, "--batch-size", str(args.batch_size)]
        done = subprocess.run(
            [*command, "--image", args.image, "--text", args.text], check=True, capture_output=True, text=True
        )
        results[name] = json.loads(done.stdout.splitlines()[-1])
    losses = {result["loss"] for result in results.values()}
    assert max(losses) - min(losses) < 1e-4, losses

    for name, result in results.items():
        print(
            f"{name:>32}  peak {result['peak_mb']:6,.0f} MB, of which {result['start_mb']:5,.0f} before the step   "
            f"trained {result['trained'] / 1e6:6.1f} M   {result['seconds']:5.1f} s"
        )
    print(
        json.dumps(
            {**vars(args), "machine": platform.machine(), "torch": torch.__version__, "results": results}
        )
    )


def measure(args: argparse.Namespace) -> dict[str, float]:
    """Make one step; return its loss, bytes and seconds."""
    torch.manual_seed(0)
    image, text = towers(find(args.image), find(args.text))
    pixels = torch.randint(256, (args.batch_size, 3, image.size, image.size), dtype=torch.uint8)
    ids = torch.randint(5, 30, (args.batch_size, TOKENS))
    settings = dict(SETTINGS[args.only])
    if settings.pop("half_frozen", False):
        settings["frozen_image_layers"] = len(layers(image.network)) // 2
        settings["frozen_text_layers"] = len(layers(text.network)) // 2
    prepare_towers(image, text, TuningConfig(**settings))
    trained = [p for encoder in (image, text) for p in encoder.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    start_bytes, start = resident_bytes(), time.perf_counter()
    images, texts = image.train()(pixels), text.train()(ids, torch.ones_like(ids, dtype=torch.bool))
    width = min(images.shape[1], texts.shape[1])
    logits = F.normalize(images[:, :width], dim=1) @ F.normalize(texts[:, :width], dim=1).T / 0.07
    loss = F.cross_entropy(logits, torch.arange(len(logits)))
    loss.backward()
    optimizer.step()
    return {
        "loss": loss.item(),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        "start_mb": start_bytes / 1e6,
        "trained": sum(parameter.numel() for parameter in trained),
        "seconds": time.perf_counter() - start,
    }


def towers(image: Foundation, text: Foundation) -> tuple[ImageEncoder, TextEncoder]:
    """Return both encoders at full size, without dropout, so that losses can be compared."""
    fields = {name: 0.0 for name in NO_DROPOUT if hasattr(AutoConfig.for_model(**text.network), name)}
    tokenizer = train_tokenizer(["the quick brown fox jumps over the lazy dog"])
    return (
        ImageEncoder.from_config(image.network, size=image.size, pooling=image.pooling),
        TextEncoder.from_config(text.network | fields, tokenizer, max_length=TOKENS, pooling=text.pooling),
    )


def resident_bytes() -> int:
    """Return the memory that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


if __name__ == "__main__":
    main()
