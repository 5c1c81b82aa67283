"""What the trained models say of the test impressions, with and without content."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Float, Int
from numpy import ndarray

from mimctr.errors import DataError
from mimctr.evaluate.compare import BASE
from mimctr.evaluate.results import ModelFacts
from mimctr.explore.schemas import Score
from mimctr.report.summary import MIM
from mimctr.report.wording import ubm_name, variant_name

PROBABILITY = "probability:"


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """The probabilities of one model by test impression, in the order of the test part."""

    ubm: str
    variant: str
    encoder: str | None
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
        table = pl.read_parquet(path).sort("row")
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
                    probability=table[f"{PROBABILITY}{Path(model.folder).name}"].to_numpy(),
                )
                for model in models
                if f"{PROBABILITY}{Path(model.folder).name}" in table.columns
            ]
        )

    def mean(self, variant: str) -> Float[ndarray, "rows"] | None:
        """Return the mean over UBMs and seeds of a variant; of Base+MIM, on the vectors of C-SFT if there are any."""
        own = [model for model in self.models if model.variant == variant]
        preferred = [model for model in own if model.encoder == "csft"] or own
        return np.mean([model.probability for model in preferred], axis=0) if preferred else None

    def of(self, places: Int[ndarray, "places"]) -> list[Score]:
        """Return the mean probability on some test impressions: by UBM, variant and encoder, over seeds."""
        if not len(places):
            return []
        groups: dict[tuple[str, str, str | None], list[Said]] = {}
        for model in self.models:
            groups.setdefault((model.variant, model.ubm, model.encoder), []).append(model)
        order = {BASE: 0, MIM: 1}
        return [
            Score(
                name=f"{ubm_name(ubm)} {variant_name(variant)}" + (f" ({encoder})" if encoder else ""),
                num_models=len(group),
                probability=float(np.mean([model.probability[places] for model in group])),
            )
            for (variant, ubm, encoder), group in sorted(
                groups.items(),
                key=lambda one: (one[0][1], order.get(one[0][0], 2), one[0][0], one[0][2] or ""),
            )
        ]
