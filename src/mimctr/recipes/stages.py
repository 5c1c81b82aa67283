"""Every stage of the road, its inputs named; ``run`` makes it, keeps what is unchanged, resumes what is half done."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mimctr.recipes import cost as cost_recipe
from mimctr.recipes import csft as csft_recipe
from mimctr.recipes import embed as embed_recipe
from mimctr.recipes import evaluate as evaluate_recipe
from mimctr.recipes import features as features_recipe
from mimctr.recipes import foundation as foundation_recipe
from mimctr.recipes import off_policy as off_policy_recipe
from mimctr.recipes import online as online_recipe
from mimctr.recipes import plain as plain_recipe
from mimctr.recipes import prepare as prepare_recipe
from mimctr.recipes import pretrain as pretrain_recipe
from mimctr.recipes import random_towers as random_towers_recipe
from mimctr.recipes import report as report_recipe
from mimctr.recipes import search as search_recipe
from mimctr.recipes import train as train_recipe
from mimctr.recipes.online_models import Trained
from mimctr.train.stage import Stage, fill_folder


def prepare(tables: Path, out: Path, config: prepare_recipe.Config) -> Stage:
    """Raw tables -> dataset."""
    return Stage(
        "prepare",
        out,
        config=config,
        inputs={"tables": tables},
        work=lambda: fill_folder(out, lambda folder: prepare_recipe.main(tables, folder, config)),
    )


def foundation(corpus: Path | None, out: Path, config: foundation_recipe.Config) -> Stage:
    """Generic corpus, or public weights -> plain encoders. Other weights in the same folder are another input."""
    given = {"image_weights": config.image_weights, "text_weights": config.text_weights}
    inputs = {
        name: path for name, path in given.items() if path is not None and path.exists()
    }  # else hub names
    if corpus is not None:
        inputs["corpus"] = corpus
    return Stage(
        "foundation",
        out,
        config=config,
        inputs=inputs,
        work=lambda: foundation_recipe.main(corpus, out, config),
    )


def random_towers(encoders: Path, out: Path, config: random_towers_recipe.Config) -> Stage:
    """Encoders -> the same architectures with random weights."""
    return Stage(
        "random_towers",
        out,
        config=config,
        inputs={"encoders": encoders},
        work=lambda: random_towers_recipe.main(encoders, out, config),
    )


def pretrain(dataset: Path, encoders: Path, out: Path, config: pretrain_recipe.Config) -> Stage:
    """Plain encoders -> encoders adapted to the catalogue (DDA) and aligned (DMA)."""
    return Stage(
        "pretrain",
        out,
        config=config,
        inputs={"dataset": dataset, "encoders": encoders},
        work=lambda: pretrain_recipe.main(dataset, encoders, out, config),
        together=True,
    )


def plain(dataset: Path, encoders: Path, out: Path, config: plain_recipe.Config) -> Stage:
    """Encoders -> item encoder in the plain geometry (PCA of both vectors)."""
    return Stage(
        "plain",
        out,
        config=config,
        inputs={"dataset": dataset, "encoders": encoders},
        work=lambda: plain_recipe.main(dataset, encoders, out, config),
    )


def csft(dataset: Path, encoders: Path, out: Path, config: csft_recipe.Config) -> Stage:
    """Encoders -> item encoder tuned on interest pairs."""
    return Stage(
        "csft",
        out,
        config=config,
        inputs={"dataset": dataset, "encoders": encoders},
        work=lambda: csft_recipe.main(dataset, encoders, out, config),
        together=True,
    )


def search(dataset: Path, encoder: Path, out: Path, config: search_recipe.Config) -> Stage:
    """Item encoder -> ranks of held-out purchases."""
    return Stage(
        "search",
        out,
        config=config,
        inputs={"dataset": dataset, "encoder": encoder},
        work=lambda: search_recipe.main(dataset, encoder, out, config),
    )


def embed(dataset: Path, encoder: Path, out: Path, config: embed_recipe.Config) -> Stage:
    """Item encoder -> snapshots of all items and query images."""
    return Stage(
        "embed",
        out,
        config=config,
        inputs={"dataset": dataset, "encoder": encoder},
        work=lambda: embed_recipe.main(dataset, encoder, out, config),
        together=True,
    )


def features(dataset: Path, content: Path, out: Path, config: features_recipe.Config) -> Stage:
    """Dataset and content -> content interest as columns."""
    content = embed_recipe.content_folder(content)
    return Stage(
        "features",
        out,
        config=config,
        inputs={"dataset": dataset, "content": content},
        work=lambda: features_recipe.main(dataset, content, out, config),
    )


def cost(dataset: Path, content: Path, encoder: Path, out: Path, config: cost_recipe.Config) -> Stage:
    """Dataset, content and item encoder -> what content costs with the center and without it."""
    content = embed_recipe.content_folder(content)
    return Stage(
        "cost",
        out,
        config=config,
        inputs={"dataset": dataset, "content": content, "encoder": encoder},
        work=lambda: cost_recipe.main(dataset, content, encoder, out, config),
    )


def train(dataset: Path, content: Path | None, out: Path, config: train_recipe.Config) -> Stage:
    """Dataset and content -> one trained CTR model and its predictions."""
    content = content and embed_recipe.content_folder(content)
    return Stage(
        "train",
        out,
        config=config,
        inputs={"dataset": dataset} if content is None else {"dataset": dataset, "content": content},
        work=lambda: train_recipe.main(dataset, content, out, config),
        together=True,
    )


def evaluate(run: Path, out: Path, config: evaluate_recipe.Config) -> Stage:
    """Trained models of a run -> results.json."""
    named = evaluate_recipe.model_folders(run / "train", config.models) if config.models else ()
    models = named or (run / "train").glob("*")  # also what was interrupted, which is refused
    embeds = evaluate_recipe.embed_folders(run, config.embeds)
    read = [*models, *embeds, run / "plain", run / "csft"]
    stages = {path.relative_to(run).as_posix(): path for path in sorted(read) if path.is_dir()}
    return Stage(
        "evaluate",
        out,
        config=config,
        inputs={"dataset": run / "dataset", **stages},
        work=lambda: evaluate_recipe.main(run, out, config),
    )


def online(
    tables: Path,
    dataset: Path,
    models: Mapping[str, Sequence[Trained]],
    out: Path,
    config: online_recipe.Config,
) -> Stage:
    """A bazaar and trained models -> what they earn when they rank its sessions."""
    return Stage(
        "ab-test",
        out,
        config=config,
        inputs={"tables": tables, "dataset": dataset, **_given(models)},
        work=lambda: online_recipe.main(tables, dataset, models, out, config),
    )


def off_policy(
    dataset: Path, models: Mapping[str, Sequence[Trained]], out: Path, config: off_policy_recipe.Config
) -> Stage:
    """A log with propensities and trained models -> what their orders of its pages would have been clicked."""
    return Stage(
        "off-policy",
        out,
        config=config,
        inputs={"dataset": dataset, **_given(models)},
        work=lambda: off_policy_recipe.main(dataset, models, out, config),
    )


def _given(models: Mapping[str, Sequence[Trained]]) -> dict[str, Path]:
    """Return the folders of models and of the vectors that they read, by what they are."""
    given = {f"{name} {seed}": one for name, own in models.items() for seed, one in enumerate(own)}
    folders = {name: one.folder for name, one in given.items()}
    contents = {
        f"{name}, content": embed_recipe.content_folder(one.content)
        for name, one in given.items()
        if one.content is not None
    }
    return folders | contents


def report(run: Path, out: Path) -> Stage:
    """results.json -> report.html."""
    return Stage(
        "report",
        out,
        config=report_recipe.Config(),
        inputs={"results": run / "evaluate"},
        work=lambda: report_recipe.main(run, out),
    )
