"""Settings of ``mimctr cost``."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from mimctr.recipes import ctr_config
from mimctr.recipes.ctr_config import Ubm


class Config(BaseModel):
    """What is measured, and how long."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ubm: Ubm = Field("sim", description="User behavior model. Paper's default: SIM.")
    max_length: int = Field(50, ge=1, description="Newest behaviors that a model sees.")
    embedding_dim: int = Field(16, ge=1, description="Width of user, item and query text.")
    field_dim: int = Field(8, ge=1, description="Width of every other field.")
    hidden_dims: tuple[PositiveInt, ...] = Field(
        (256, 128, 64), min_length=1, description="Of the deep network."
    )
    batch_size: int = Field(
        1024, ge=1, description="Impressions of a step of Base and of MIM as they are trained. Paper: 1024."
    )
    num_steps: int = Field(20, ge=1, description="Of those, timed.")
    num_warmup_steps: int = Field(3, ge=1, description="Of those, before the clock starts.")
    compared_batch_size: int = Field(
        16, ge=1, description="Impressions of a step of all sides, where costs are compared and counted."
    )
    num_compared_steps: int = Field(3, ge=1, description="Of those, timed; one more comes before.")
    items_at_once: int = Field(
        256, ge=1, description="Pictures or titles of a forward pass of the item encoder."
    )
    distinct: bool = Field(True, description="Measure also with each different item of a batch encoded once.")
    towers: Literal["own", "float32", "bfloat16"] = Field(
        "own", description="What the towers compute in; own: as the item encoder was made."
    )
    seed: int = Field(0, ge=0, description="Of weights and of which impressions are measured.")
    device: str = Field("auto", description="'auto' takes CUDA where there is a GPU, else the CPU.")

    def ctr(self, *, with_content: bool, batch_size: int) -> ctr_config.Config:
        """Return the settings of the CTR model."""
        return ctr_config.Config(
            ubm=self.ubm,
            variant="mim" if with_content else "base",
            max_length=self.max_length,
            embedding_dim=self.embedding_dim,
            field_dim=self.field_dim,
            hidden_dims=self.hidden_dims,
            batch_size=batch_size,
            schedule="constant",
            seed=self.seed,
            device=self.device,
        )
