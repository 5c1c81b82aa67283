"""Settings of ``mimctr embed``."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mimctr.encoders.backends import BackendName


class Config(BaseModel):
    """How the catalogue is embedded. What changes no vector is no part of a stage's key: it may change on the way."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    batch_size: int = Field(64, ge=1, description="Pictures or titles of a forward pass; a GPU likes more.")
    batches_per_shard: int = Field(
        16, ge=1, description="An interrupted run loses at most this many batches a worker."
    )
    device: str = Field("auto", description="'auto' takes CUDA where there is a GPU, else the CPU.")
    backend: BackendName = Field(
        "torch",
        description="What runs the towers; onnx and openvino run on the CPU, and are refused where far from PyTorch.",
    )
    engine: Literal["local", "ray"] = Field(
        "local",
        exclude=True,
        description="Threads of this process (or of those of torchrun), or a Ray cluster whose machines all see the "
        "folders.",
    )
    num_workers: int = Field(
        0,
        ge=0,
        exclude=True,
        description="Threads that decode, tokenize and run the towers on one core each; 0: one a core.",
    )

    @model_validator(mode="after")
    def _backend_runs_there(self) -> "Config":
        if self.backend != "torch" and self.device not in ("auto", "cpu"):
            raise ValueError(f"device: the back-end {self.backend} runs on the CPU. Use 'auto' or 'cpu'")
        return self
