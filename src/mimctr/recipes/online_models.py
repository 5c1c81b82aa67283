"""The trained models that an A/B test compares."""

from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from mimctr.errors import RunError
from mimctr.evaluate.compare import BASE, MIM
from mimctr.files import read_json
from mimctr.recipes.evaluate import MODEL_RECORD, ModelRecord, embed_folder, variant_of


class Trained(NamedTuple):
    """A trained model."""

    folder: Path
    """Written by ``mimctr train``."""
    content: Path | None
    """The vectors that it reads, written by ``mimctr embed``; None for Base."""


def read_model_record(folder: Path) -> ModelRecord:
    """Return what a trained model's folder says of itself.

    Raises:
        RunError: there is no model, or its record is damaged.
    """
    try:
        return ModelRecord.model_validate(read_json(folder / MODEL_RECORD))
    except ValidationError as error:
        raise RunError(f"{folder}: not a model's record ({error}). Train it again.") from None


def find_models(run: Path, *, ubm: str, encoder: str) -> dict[str, list[Trained]]:
    """Return the models of Base and Base+MIM of a run, in the order of the seeds that both have.

    Args:
        run: Run folder with ``train`` and ``embed``.
        ubm: Of both.
        encoder: Whose vectors Base+MIM reads.

    Raises:
        RunError: there is no seed with both.
    """
    found: dict[str, dict[int, Trained]] = {BASE: {}, MIM: {}}
    for path in sorted((run / "train").glob(f"*/{MODEL_RECORD}")):
        record = read_model_record(path.parent)
        name = variant_of(record)
        if record.ubm != ubm or name not in found or (name == MIM and record.encoder != encoder):
            continue
        content = embed_folder(run, encoder, record.seed) if name == MIM else None
        found[name][record.seed] = Trained(path.parent, content)
    seeds = sorted(found[BASE].keys() & found[MIM].keys())
    if not seeds:
        there = "; ".join(f"{name}: {len(own)}" for name, own in found.items())
        raise RunError(
            f"{run / 'train'}: no seed of '{ubm}' has both a model without content and one on the vectors of "
            f"'{encoder}' (models found: {there}). Name another user behavior model or encoder, or train them."
        )
    return {name: [own[seed] for seed in seeds] for name, own in found.items()}
