"""The objects of the Open Inference Protocol, version 2 (KServe, Triton), as they come in and go out.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from mimctr.serve.schemas import Strict

Datatype = Literal["INT64", "FP64", "BYTES"]
Name = Annotated[str, Field(max_length=512)]


class RequestInput(Strict):
    """One tensor that a request brings, in JSON or, with ``binary_data_size``, behind it."""

    name: Name
    shape: list[Annotated[int, Field(ge=0, lt=2**31)]] = Field(max_length=8)
    datatype: Name
    parameters: dict[str, Any] = Field(default_factory=dict)
    data: list[Any] | None = None


class RequestOutput(Strict):
    """One tensor that is asked for."""

    name: Name
    parameters: dict[str, Any] = Field(default_factory=dict)


class InferenceRequest(Strict):
    """What ``infer`` takes."""

    id: Name | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    inputs: list[RequestInput] = Field(max_length=1_000)
    outputs: list[RequestOutput] | None = Field(None, max_length=1_000)


class ResponseOutput(BaseModel):
    """One tensor of the answer."""

    name: str
    datatype: Datatype
    shape: list[int]
    parameters: dict[str, int] | None = None
    data: list[float] | list[str] | None = None


class InferenceResponse(BaseModel):
    """What ``infer`` returns."""

    model_name: str
    model_version: str
    id: str | None = None
    parameters: dict[str, str | int]
    outputs: list[ResponseOutput]


class ServerMetadata(BaseModel):
    """What the server is."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    """What a tensor is; -1 is any size."""

    name: str
    datatype: Datatype
    shape: list[int]


class ModelMetadata(BaseModel):
    """What a model takes and returns."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ModelReady(BaseModel):
    """That a model answers."""

    name: str
    ready: bool


class ProtocolError(BaseModel):
    """Why a request is not answered."""

    error: str
