"""What the trained models say of the test impressions, with and without content."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Float, Int
from numpy import ndarray

from mimctr.errors import DataError
from mimctr.evaluate.compare import BASE, Contender
from mimctr.evaluate.results import ModelFacts
from mimctr.explore.schemas import Score
from mimctr.report.summary import MIM, shared_models
from mimctr.report.wording import UBM_NAMES, ubm_name, variant_name

PROBABILITY = "probability:"


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """The probabilities of one model by test impression, in the order of the test part."""

    ubm: str
    variant: str
    encoder: str | None
    seed: int
    probability: Float[ndarray, "rows"]


@dataclass(frozen=True, slots=True)
class Scores:
    """Everything that models said."""

    models: list[Said] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path, models: list[ModelFacts], rows: range) -> "Scores":
        """Read ``predictions.parquet``, in the order of the dataset's rows.

        Raises:
            DataError: it is of other impressions.
        """
        file = pl.scan_parquet(path)
        there = file.collect_schema()
        named = [(model, f"{PROBABILITY}{Path(model.folder).name}") for model in models]
        said = [(model, column) for model, column in named if column in there]
        table = file.select("row", *dict.fromkeys(column for _, column in said)).collect()
        if not table["row"].is_sorted():
            table = table.sort("row")
        if not np.array_equal(table["row"].to_numpy(), np.asarray(rows)):
            raise DataError(
                f"{path}: {table.height:,} impressions that are not the {len(rows):,} of the test part. Run "
                "'mimctr evaluate' again."
            )
        return cls(
            [
                Said(
                    ubm=model.ubm,
                    variant=model.variant,
                    encoder=model.encoder,
                    seed=model.seed,
                    probability=table[column].to_numpy(),
                )
                for model, column in said
            ]
        )

    def compared(
        self, contender: Contender | None
    ) -> tuple[Float[ndarray, "rows"], Float[ndarray, "rows"]] | None:
        """Return the mean of Base and of a contender, over the models that both have; None where they share none."""
        if contender is None:
            return None
        base = Contender(BASE, None)
        said = {
            (model.ubm, Contender(model.variant, model.encoder), model.seed): model.probability
            for model in self.models
        }
        both = shared_models(said, [base, contender])
        if not both:
            return None
        means = [_mean([said[ubm, one, seed] for ubm, seed in both]) for one in (base, contender)]
        return means[0], means[1]

    def of(self, places: Int[ndarray, "places"]) -> list[Score]:
        """Return the mean probability on some test impressions: by UBM, variant and encoder, over seeds."""
        if not len(places):
            return []
        groups: dict[tuple[str, str, str | None], list[Said]] = {}
        for model in self.models:
            groups.setdefault((model.ubm, model.variant, model.encoder), []).append(model)
        return [
            Score(
                name=model_name(*kind),
                num_models=len(group),
                probability=float(np.mean([model.probability[places] for model in group])),
            )
            for kind, group in sorted(groups.items(), key=lambda one: model_order(*one[0]))
        ]


def _mean(said: Sequence[Float[ndarray, "rows"]]) -> Float[ndarray, "rows"]:
    """Return the mean of what some models said, added up one by one: as one array they would be large."""
    return reduce(np.add, said) / len(said)


def model_name(ubm: str, variant: str, encoder: str | None) -> str:
    """Return a model in words."""
    return f"{ubm_name(ubm)} {variant_name(variant)}" + (f" ({encoder})" if encoder else "")


def model_order(ubm: str, variant: str, encoder: str | None) -> tuple[int, str, int, str, str]:
    """Return what models are sorted by: the UBM, in the paper's order; Base, Base+MIM, the other variants."""
    place = list(UBM_NAMES).index(ubm) if ubm in UBM_NAMES else len(UBM_NAMES)
    return place, ubm, {BASE: 0, MIM: 1}.get(variant, 2), variant, encoder or ""
