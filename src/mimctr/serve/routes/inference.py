"""The Open Inference Protocol, version 2: the same scores as ``POST /score``, for clients that speak it."""

import importlib.metadata
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, HTTPException, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import ValidationError

from mimctr.errors import DataError, MimctrError
from mimctr.serve.protocol import (
    InferenceRequest,
    InferenceResponse,
    ModelMetadata,
    ModelReady,
    ProtocolError,
    RequestOutput,
    ResponseOutput,
    ServerMetadata,
    TensorMetadata,
)
from mimctr.serve.refusals import refusals, refuse, why
from mimctr.serve.routes.context import Context
from mimctr.serve.routes.scoring import answer
from mimctr.serve.schemas import Live, Ready, ScoreRequest
from mimctr.serve.service import STATES, Serving
from mimctr.serve.tensors import SIZE, read_tensors, write_floats, write_texts

MODEL, PLATFORM, EXTENSION = "mimctr", "mimctr_bundle", "binary_tensor_data"
JSON_LENGTH = "Inference-Header-Content-Length"
SIDES = ("user", "query", "context")
ONE, MANY = [1], [-1]
INPUTS = (
    TensorMetadata(name="candidates", datatype="INT64", shape=MANY),
    TensorMetadata(name="user", datatype="INT64", shape=ONE),
    TensorMetadata(name="history_item_id", datatype="INT64", shape=MANY),
    TensorMetadata(name="history_time", datatype="INT64", shape=MANY),
    TensorMetadata(name="history_kind", datatype="BYTES", shape=MANY),
    TensorMetadata(name="time", datatype="INT64", shape=ONE),
    TensorMetadata(name="query", datatype="BYTES", shape=ONE),
)
"""Beside a model's own fields; only *candidates* must be there."""
OUTPUTS = (
    TensorMetadata(name="probability", datatype="FP64", shape=MANY),
    TensorMetadata(name="vector", datatype="BYTES", shape=MANY),
)
IDS = {"candidates": "item", "user": "user", "history_item_id": "item"}
"""Inputs of ids: INT64, or BYTES where the log names them by text."""
HISTORY = {"item_id": "history_item_id", "time": "history_time", "kind": "history_kind"}


class ProtocolRoute(APIRoute):
    """Says no as the protocol does."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, with its errors told."""
        handle = super().get_route_handler()

        async def told(request: Request) -> Response:
            try:
                return await handle(request)
            except (HTTPException, RequestValidationError, ValidationError, MimctrError, OSError) as error:
                status, line, headers = why(error)
                return refuse(400 if status == 422 else status, line, headers, key="error")

        return told


def inference_router(context: Context) -> APIRouter:
    """Return the routes of the protocol."""
    router = APIRouter(prefix="/v2", tags=["inference protocol"], route_class=ProtocolRoute)

    @router.get("")
    async def server() -> ServerMetadata:
        """Say what the server is."""
        return ServerMetadata(
            name=MODEL, version=importlib.metadata.version("mimctr"), extensions=[EXTENSION]
        )

    @router.get("/health/live")
    async def live() -> Live:
        """Say that the process runs."""
        return Live(live=True)

    @router.get("/health/ready", responses=refusals(503, model=ProtocolError))
    async def ready() -> Ready:
        """Say whether requests are answered."""
        context.admission.must_be_ready()
        return Ready(ready=True)

    def newest(name: Annotated[str, Path(max_length=512)]) -> Serving:
        return _serving(context, name, None)

    def named(
        name: Annotated[str, Path(max_length=512)], version: Annotated[str, Path(max_length=512)]
    ) -> Serving:
        return _serving(context, name, version)

    _add_model(router, context, "/models/{name}", newest, any_version=True)
    _add_model(router, context, "/models/{name}/versions/{version}", named, any_version=False)
    return router


def _add_model(
    router: APIRouter, context: Context, path: str, which: Callable[..., Serving], *, any_version: bool
) -> None:
    """Add the routes of the model."""
    unknown = refusals(400, 404, 503, model=ProtocolError)

    @router.get(path, responses=unknown)
    async def metadata(serving: Annotated[Serving, Depends(which)]) -> ModelMetadata:
        """Say what the model takes and returns."""
        return ModelMetadata(
            name=MODEL,
            versions=[serving.name],
            platform=PLATFORM,
            inputs=_inputs(serving),
            outputs=list(OUTPUTS),
        )

    @router.get(f"{path}/ready", responses=unknown)
    async def model_ready(serving: Annotated[Serving, Depends(which)]) -> ModelReady:
        """Say whether the model answers."""
        context.admission.must_be_ready()
        return ModelReady(name=MODEL, ready=serving is not None)

    @router.post(
        f"{path}/infer",
        response_model=InferenceResponse,
        responses={
            200: {"content": {"application/octet-stream": {}}},
            **refusals(400, 404, 409, 413, 415, 429, 503, 504, model=ProtocolError),
        },
        openapi_extra={"requestBody": _body()},
    )
    async def infer(
        asked: Request,
        serving: Annotated[Serving, Depends(which)],
        seconds: Annotated[float, Depends(context.admission.seconds_left)],
        json_length: Annotated[int | None, Header(alias=JSON_LENGTH, ge=0)] = None,
    ) -> Response:
        """Return the probability of a click on each candidate."""
        if asked.headers.get("content-encoding", "identity") != "identity":
            raise HTTPException(415, "a request in a content encoding is not read. Send it as it is.")
        body = await asked.body()
        wanted, request = _parse(body, len(body) if json_length is None else json_length)
        _must_be_known(wanted)
        served, found = await answer(
            context, request.to_request(), seconds, from_store=request.history is None
        )
        if not any_version and served.name != serving.name:  # another bundle was loaded meanwhile
            raise HTTPException(404, f"version {serving.name} of {MODEL} is not served any more")
        parameters: dict[str, str | int] = {
            "bundle": served.name,
            "num_behaviors": found.num_behaviors,
            "num_known": found.num_known,
        }
        if served.generation is not None:
            parameters["generation"] = served.generation
        values = {
            "probability": found.probabilities.tolist(),
            "vector": [STATES[one] for one in found.states.tolist()],
        }
        outputs, binary = _outputs(wanted, values)
        response = InferenceResponse(
            model_name=MODEL, model_version=served.name, id=wanted.id, parameters=parameters, outputs=outputs
        )
        content = response.model_dump_json(exclude_none=True).encode()
        if not binary:
            return Response(content, media_type="application/json")
        length = {JSON_LENGTH: str(len(content))}
        return Response(b"".join([content, *binary]), headers=length, media_type="application/octet-stream")


def _serving(context: Context, name: str, version: str | None) -> Serving:
    """Return what is served under a name.

    Raises:
        HTTPException: 404 there is no such model, or not in that version; 503 nothing is served yet.
    """
    serving = context.service.serving
    if name != MODEL:
        raise HTTPException(404, f"there is no model {name!r}; there is {MODEL!r}")
    if serving is None:
        context.admission.must_be_ready()
    assert serving is not None, "admission asks whether a bundle is loaded"
    if version is not None and version != serving.name:
        raise HTTPException(404, f"there is no version {version!r} of {MODEL}; there is {serving.name!r}")
    return serving


def _inputs(serving: Serving) -> list[TensorMetadata]:
    """Return the inputs of a model: those of all, and its fields."""
    names = serving.scorer.model.embedding.names
    fields = [
        f"{side}_fields.{field}"
        for side in SIDES
        for field in names[side]
        if field not in ("user", "query_text")  # they have inputs of their own
    ]
    text_ids = serving.scorer.bundle.manifest.text_ids
    own = [
        one.model_copy(update={"datatype": "BYTES"}) if IDS.get(one.name) in text_ids else one
        for one in INPUTS
        if one.name != "query" or "query_text" in names["query"]
    ]
    return own + [TensorMetadata(name=name, datatype="BYTES", shape=ONE) for name in fields]


def _parse(body: bytes, json_length: int) -> tuple[InferenceRequest, ScoreRequest]:
    """Return a request as the protocol and as ``POST /score`` have it.

    Raises:
        ValidationError: it is not one.
        DataError: a tensor is not what it should be.
    """
    if json_length > len(body):
        raise DataError(f"{JSON_LENGTH} is {json_length}, the request has {len(body)} bytes.")
    wanted = InferenceRequest.model_validate_json(body[:json_length])
    tensors = read_tensors(wanted.inputs, body[json_length:])
    known = {one.name: one for one in INPUTS}
    score: dict[str, Any] = {f"{side}_fields": {} for side in SIDES}
    for name, (datatype, values) in tensors.items():
        side, _, field = name.partition("_fields.")
        if side in SIDES and field:
            _must_be(name, datatype, "BYTES")
            score[f"{side}_fields"][field] = _one(name, values)
        elif name not in known:
            raise DataError(
                f"inputs: there is no {name!r}. Known are {', '.join(known)}, and SIDE_fields.NAME."
            )
        else:
            if name not in IDS:
                _must_be(name, datatype, known[name].datatype)
            if name not in HISTORY.values():
                score[name] = values if known[name].shape == MANY else _one(name, values)
    score["history"] = _history({part: tensors.get(name) for part, name in HISTORY.items()})
    return wanted, ScoreRequest.model_validate(score)


def _history(tensors: dict[str, tuple[str, list[int] | list[str]] | None]) -> list[dict[str, Any]] | None:
    """Return behaviors from their columns; None where there are none."""
    columns = {part: tensor[1] for part, tensor in tensors.items() if tensor is not None}
    if not columns:
        return None
    if "item_id" not in columns or "time" not in columns or len({len(one) for one in columns.values()}) > 1:
        told = ", ".join(f"{HISTORY[part]} {len(one)}" for part, one in columns.items())
        raise DataError(
            f"history: item_id and time must be there, and as many of each as of the others; there are: {told}."
        )
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _must_be(name: str, datatype: str, wanted: str) -> None:
    if datatype != wanted:
        raise DataError(f"{name}: its datatype is {datatype}. Send {wanted}.")


def _one(name: str, values: list[int] | list[str]) -> int | str:
    if len(values) != 1:
        raise DataError(f"{name}: it has {len(values)} elements. Send one, in shape [1].")
    return values[0]


def _must_be_known(wanted: InferenceRequest) -> None:
    """Refuse outputs that there are not, before any work is done."""
    known = [one.name for one in OUTPUTS]
    for one in wanted.outputs or []:
        if one.name not in known or set(one.parameters) - {"binary_data"}:
            raise DataError(
                f"outputs: {one.name!r} with parameters {sorted(one.parameters)} is not known. "
                f"Known are {', '.join(known)}, with binary_data."
            )


def _outputs(
    wanted: InferenceRequest, values: dict[str, list[float] | list[str]]
) -> tuple[list[ResponseOutput], list[bytes]]:
    """Return the tensors that are asked for, and the bytes of those that stand behind the JSON."""
    by_default = wanted.parameters.get("binary_data_output") is True
    asked = wanted.outputs or [RequestOutput(name=one.name) for one in OUTPUTS]
    outputs, binary = [], []
    datatypes = {one.name: one.datatype for one in OUTPUTS}
    for one in asked:
        tensor = values[one.name]
        output = ResponseOutput(name=one.name, datatype=datatypes[one.name], shape=[len(tensor)])
        if one.parameters.get("binary_data", by_default) is True:
            binary.append(write_floats(tensor) if output.datatype == "FP64" else write_texts(tensor))  # type: ignore[arg-type]
            output.parameters = {SIZE: len(binary[-1])}
        else:
            output.data = tensor
        outputs.append(output)
    return outputs, binary


def _body() -> dict[str, Any]:
    """Return how the documentation describes the body: the protocol's JSON, or that with tensors behind it."""
    schema = InferenceRequest.model_json_schema()
    parts = schema.pop("$defs")
    for name, place in (("RequestInput", schema["properties"]["inputs"]), ("RequestOutput", None)):
        target = place or schema["properties"]["outputs"]["anyOf"][0]
        target["items"] = parts[name]
    return {"required": True, "content": {"application/json": {"schema": schema}}}
