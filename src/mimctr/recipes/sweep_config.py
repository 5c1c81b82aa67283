"""Settings of ``mimctr sweep``."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Config(BaseModel):
    """Settings of ``mimctr sweep``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    search: dict[str, Any] = Field(
        {},
        description="Settings of [train] to search, each with a range ('log:1e-4:1e-2', 'linear:0:0.5') or values "
        "('din,sim', or a list).",
    )
    minutes: float = Field(
        60.0,
        gt=0,
        description="Training time, that of earlier calls included. The trial that is then running stops at its next "
        "look at validation, unless none has finished.",
    )
    num_trials: int = Field(100, ge=1, description="Trials at most, those of earlier calls included.")
    num_random_trials: int = Field(
        10, ge=1, description="Trials drawn at random and never pruned; Optuna's TPE learns from them."
    )
    pruning: bool = Field(
        True,
        description="Stop a trial that a look finds below the median of earlier trials at the same look.",
    )
    seed: int = Field(0, ge=0, description="Of what is tried. Trials train with the seed of [train].")
