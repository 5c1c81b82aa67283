"""The trained models that rank in an A/B test, or on a log with propensities."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mimctr.errors import RunError
from mimctr.evaluate.compare import BASE, MIM
from mimctr.evaluate.online import Policy
from mimctr.evaluate.paper.online import offline_gain
from mimctr.evaluate.results import Comparison, read_results
from mimctr.recipes.evaluate import MODEL_RECORD, RESULTS, embed_folder, read_model_record, variant_of


class Trained(NamedTuple):
    """A trained model."""

    folder: Path
    """Written by ``mimctr train``."""
    content: Path | None
    """The vectors that it reads, written by ``mimctr embed``; None for Base."""


def find_models(run: Path, *, ubm: str, encoder: str) -> dict[str, list[Trained]]:
    """Return the models of Base and Base+MIM of a run, in the order of the seeds that both have.

    Args:
        run: Run folder with ``train`` and ``embed``.
        ubm: Of both.
        encoder: Whose vectors Base+MIM reads.

    Raises:
        RunError: there is no such run, no seed with both, or a seed with several models of one sort.
    """
    if not (run / "train").is_dir():
        raise RunError(f"{run}: no folder train, so no model. Give the folder of a finished 'mimctr run'.")
    found: dict[str, dict[int, list[Trained]]] = {BASE: {}, MIM: {}}
    for path in sorted((run / "train").glob(f"*/{MODEL_RECORD}")):
        record = read_model_record(path.parent)
        name = variant_of(record)
        if record.ubm != ubm or name not in found or (name == MIM and record.encoder != encoder):
            continue
        content = embed_folder(run, encoder, record.seed) if name == MIM else None
        found[name].setdefault(record.seed, []).append(Trained(path.parent, content))
    seeds = sorted(found[BASE].keys() & found[MIM].keys())
    if not seeds:
        there = "; ".join(f"{name}: {len(own)}" for name, own in found.items())
        raise RunError(
            f"{run / 'train'}: no seed of '{ubm}' has both a model without content and one on the vectors of "
            f"'{encoder}' (models found: {there}). Name another user behavior model or encoder, or train them."
        )
    for name, by_seed in found.items():
        for seed, own in by_seed.items():
            if len(own) > 1:
                raise RunError(
                    f"{run / 'train'}: {len(own)} models of {ubm}, {name}, seed {seed}: "
                    f"{', '.join(one.folder.name for one in own)}. Which one ranks is not decided here: move the "
                    "others out of this folder."
                )
    return {name: [own[seed][0] for seed in seeds] for name, own in found.items()}


def find_offline_gain(run: Path, policies: Sequence[Policy], *, ubm: str, encoder: str) -> Comparison | None:
    """Return what Base+MIM gains over Base on a run's test impressions; None where nobody has evaluated these seeds.

    Args:
        run: Run folder; of a recipe, or of a reproduction, whose evaluations stand in folders of their own.
        policies: That ranked; their seeds are those of the comparison.
        ubm: Of both.
        encoder: Whose vectors Base+MIM reads.
    """
    [seeds] = [one.seeds for one in policies if one.name == MIM]
    for path in sorted((run / "evaluate").rglob(RESULTS)):
        gain = offline_gain(read_results(path), ubm, encoder)
        if gain is not None and gain.seeds == seeds:
            return gain
    return None


def describe_models(models: Mapping[str, Sequence[Trained]]) -> tuple[list[Policy], str]:
    """Return the policies with their seeds, and the user behavior model that all have.

    Raises:
        RunError: there is no policy or one without models, or they differ in UBM or seeds.
    """
    records = {name: [read_model_record(one.folder) for one in own] for name, own in models.items()}
    seeds = {name: [record.seed for record in own] for name, own in records.items()}
    first = next(iter(seeds.values()), [])
    if not first or any(own != first for own in seeds.values()):
        told = "; ".join(f"{name}: {', '.join(map(str, own)) or 'none'}" for name, own in seeds.items())
        raise RunError(
            f"policies are compared seed by seed, these have other seeds ({told or 'no policy'}). Give every "
            "policy a model of each seed, in the same order."
        )
    ubms = list(dict.fromkeys(record.ubm for own in records.values() for record in own))
    if len(ubms) > 1:
        raise RunError(
            f"policies: models of {' and '.join(ubms)}. Compare policies of one user behavior model."
        )
    policies = [
        Policy(name=name, folders=[one.folder.name for one in own], seeds=first)
        for name, own in models.items()
    ]
    return policies, ubms[0]
