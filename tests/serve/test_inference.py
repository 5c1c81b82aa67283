"""The Open Inference Protocol, version 2, asked by an existing client for it."""

import json
import struct

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from fastapi.testclient import TestClient
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from mimctr.recipes.ctr_model import load_model
from mimctr.serve.app import create_app
from mimctr.serve.service import Service
from serve.running import running
from serve.shops import NUM_ITEMS, body

INFER = "/v2/models/mimctr/infer"


@pytest.fixture
def port(service):
    with running(create_app(service, deadline=60.0)) as made:
        yield made


def tensors_of(asked: dict) -> dict[str, np.ndarray]:
    """Return what POST /score takes as the tensors that docs/serving.md names."""

    def column(values: list) -> np.ndarray:
        return np.array(values, dtype=np.int64 if isinstance(values[0], int) else np.object_)

    found = {
        "user": [asked["user"]],
        "candidates": asked["candidates"],
        "time": [asked["time"]],
        "history_item_id": [one["item_id"] for one in asked["history"]],
        "history_time": [one["time"] for one in asked["history"]],
        "history_kind": [one["kind"] for one in asked["history"]],
        "user_fields.user_age": [asked["user_fields"]["user_age"]],
        "context_fields.context_hour": [asked["context_fields"]["context_hour"]],
    }
    if asked["query"] is not None:
        found["query"] = [asked["query"]]
    return {name: column(values) for name, values in found.items()}


def inputs_of(asked: dict, *, binary: bool) -> list[triton.InferInput]:
    made = []
    for name, values in tensors_of(asked).items():
        made.append(triton.InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype)))
        made[-1].set_data_from_numpy(values, binary_data=binary)
    return made


def every_item(shop) -> list:
    """Return all items as the log names them."""
    name = str(body(shop, 850)["candidates"][0])
    return [f"item{n}" if name.startswith("item") else n for n in range(NUM_ITEMS)]


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
def test_an_existing_client_gets_the_scores_of_the_friendly_route(shop, port, binary):
    """Bit for bit. Mutants: histories are not taken over; a field goes to another side; FP32."""
    client = triton.InferenceServerClient(f"127.0.0.1:{port}")
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("mimctr")
    assert client.is_model_ready("mimctr", "bundle")
    assert not client.is_model_ready("mimctr", "another")
    assert not client.is_model_ready("another")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    items = every_item(shop)
    for row in (10, 850, 899):
        asked = body(shop, row, items)
        answer = httpx.post(f"http://127.0.0.1:{port}/score", json=asked).json()
        outputs = [triton.InferRequestedOutput(name, binary) for name in ("vector", "probability")]
        found = client.infer("mimctr", inputs_of(asked, binary=binary), outputs=outputs, request_id="7")
        assert found.as_numpy("probability").tolist() == [one["probability"] for one in answer["scores"]]
        states = found.as_numpy("vector").tolist()
        assert [one.decode() if binary else one for one in states] == [
            one["vector"] for one in answer["scores"]
        ]
        told = found.get_response()
        assert (told["id"], told["model_name"], told["model_version"]) == ("7", "mimctr", "bundle")
        numbers = {name: answer[name] for name in ("bundle", "generation", "num_behaviors", "num_known")}
        assert told["parameters"] == numbers
        assert (answer["num_behaviors"] > 0) == (row > 10)  # the first rows have none before them
        assert {one["vector"] for one in answer["scores"]} == {"hit", "miss"}
        same = client.infer("mimctr", inputs_of(asked, binary=binary), model_version="bundle")
        assert same.as_numpy("probability").tolist() == found.as_numpy("probability").tolist()
    client.close()


def test_the_metadata_lists_what_the_model_takes(shop, port):
    """Every input of the request above is listed, with its datatype."""
    client = triton.InferenceServerClient(f"127.0.0.1:{port}")
    told = client.get_model_metadata("mimctr", "bundle")
    assert (told["name"], told["versions"], told["platform"]) == ("mimctr", ["bundle"], "mimctr_bundle")
    listed = {one["name"]: (one["datatype"], one["shape"]) for one in told["inputs"]}
    sent = tensors_of(body(shop, 850) | {"query": "red"})
    assert set(listed) == set(sent)
    for name, values in sent.items():
        assert listed[name][0] == np_to_triton_dtype(values.dtype), name
    assert [listed[name][1] for name in ("candidates", "user", "history_time", "query")] == [
        [-1],
        [1],
        [-1],
        [1],
    ]
    outputs = {one["name"]: one["datatype"] for one in told["outputs"]}
    assert outputs == {"probability": "FP64", "vector": "BYTES"}
    client.close()


def test_the_client_is_told_what_is_wrong(port):
    client = triton.InferenceServerClient(f"127.0.0.1:{port}")
    (wrong,) = [triton.InferInput("candidates", [2], "FP32")]
    wrong.set_data_from_numpy(np.zeros(2, np.float32))
    for name, version, told in (
        ("mimctr", "", "candidates: its datatype is 'FP32'. Known are INT64 and BYTES."),
        ("other", "", "there is no model 'other'; there is 'mimctr'"),
        ("mimctr", "9", "there is no version '9' of mimctr; there is 'bundle'"),
    ):
        with pytest.raises(InferenceServerException) as caught:
            client.infer(name, [wrong], model_version=version)
        assert caught.value.message() == told
        assert caught.value.status() == ("404" if "there is no" in told else "400")
    client.close()


def tensor(name: str = "candidates", data: list | None = None, **more: object) -> dict:
    data = [1] if data is None else data
    return {"name": name, "datatype": "INT64", "shape": [len(data)], "data": data} | more


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ([], "candidates: Field required"),
        ([tensor(data=[])], "candidates: List should have at least 1 item"),
        ([tensor(data=[0] * 5001)], "candidates: List should have at most 5000 items"),
        ([tensor(data=[-1])], "greater than or equal to 0"),
        ([tensor(data=[2**63])], "less than 9223372036854775808"),
        ([tensor(data=[1.5])], "candidates: data[0] is not of datatype INT64"),
        ([tensor(data=[True])], "candidates: data[0] is not of datatype INT64"),
        ([tensor(datatype="BYTES")], "candidates: data[0] is not of datatype BYTES"),
        ([tensor(shape=[2])], "candidates: its shape is [2], its data has 1 elements"),
        ([tensor(shape=[1, 1], data=[[1]])], "its shape is [1, 1]. All inputs have one dimension"),
        ([tensor(), tensor()], "'candidates' is there twice"),
        ([tensor(), tensor("titel")], "there is no 'titel'. Known are candidates, user"),
        ([tensor(), tensor("user", [1, 2])], "user: it has 2 elements. Send one, in shape [1]."),
        ([tensor(), tensor("query")], "query: its datatype is INT64. Send BYTES."),
        ([tensor(), tensor("user_fields.user_age")], "user_fields.user_age: its datatype is INT64"),
        (
            [tensor(), tensor("context_fields.our", ["1h"], datatype="BYTES")],
            "the model has no our; it has context_hour",
        ),
        ([tensor(), tensor("history_item_id")], "there are: history_item_id 1"),
        (
            [tensor(), tensor("history_item_id"), tensor("history_time", [1, 2])],
            "there are: history_item_id 1, history_time 2",
        ),
        ([tensor(data=None, parameters={"shared_memory_region": "x"}) | {"data": None}], "neither data nor"),
        ([tensor(parameters={"binary_data_size": 8}) | {"data": None}], "0 bytes are left behind the JSON"),
        ([tensor(parameters={"binary_data_size": True})], "its binary_data_size is True"),
        ([tensor(parameters={"binary_data_size": 0})], "it has data and a binary_data_size"),
        ([tensor(titel=1)], "inputs.0.titel: Extra inputs are not permitted"),
    ],
)
def test_a_wrong_request_is_told_why(client, inputs, told):
    answer = client.post(INFER, json={"inputs": inputs})
    assert answer.status_code == 400, answer.text
    assert told in answer.json()["error"]


@pytest.mark.parametrize(
    ("datatype", "count", "binary", "told"),
    [
        ("INT64", 1, b"\0" * 7, "7 bytes are not a multiple of the 8 of INT64"),
        ("INT64", 1, b"\0" * 16, "its shape is [1], its data has 2 elements"),
        ("BYTES", 1, struct.pack("<I", 3) + b"ab", "element 0 of BYTES ends after the tensor's 6 bytes"),
        ("BYTES", 1, b"\1\0", "element 0 of BYTES ends after the tensor's 2 bytes"),
        ("BYTES", 1, struct.pack("<I", 2) + b"\xc3\x28", "element 0 is not UTF-8"),
        ("BYTES", 2, struct.pack("<I", 1) + b"a", "its shape is [2], its data has 1 elements"),
    ],
)
def test_wrong_bytes_are_told(client, datatype, count, binary, told):
    one = {"name": "candidates", "datatype": datatype, "shape": [count]}
    one["parameters"] = {"binary_data_size": len(binary)}
    head = json.dumps({"inputs": [one]}).encode()
    length = {"Inference-Header-Content-Length": str(len(head))}
    answer = client.post(INFER, content=head + binary, headers=length)
    assert (answer.status_code, told in answer.json()["error"]) == (400, True), answer.text
    more = client.post(INFER, content=head + binary + b"more", headers=length)
    assert more.status_code == 400
    beyond = {"Inference-Header-Content-Length": str(len(head) + 999)}
    assert "the request has" in client.post(INFER, content=head, headers=beyond).json()["error"]


def test_refusals_have_the_body_of_the_protocol(client, shop):
    right = {"inputs": [tensor()]}
    for status, answer in (
        (400, client.post(INFER, content=b"{")),
        (400, client.post(INFER, json=right | {"outputs": [{"name": "logit"}]})),
        (400, client.post(INFER, json=right, headers={"X-Deadline-Ms": "0"})),
        (413, client.post(INFER, content=b"x" * 5_000_000)),
        (413, client.post(INFER, content=iter([b"x" * 1_000_000] * 5))),
        (415, client.post(INFER, content=b"x", headers={"Content-Encoding": "gzip"})),
        (404, client.get("/v2/models/other")),
    ):
        assert (answer.status_code, list(answer.json())) == (status, ["error"])
    empty = Service(load_model, center=shop / "center")
    with TestClient(create_app(empty)) as other:
        for path in ("/v2/health/ready", "/v2/models/mimctr", "/v2/models/mimctr/ready"):
            answer = other.get(path)
            assert (answer.status_code, answer.json()) == (503, {"error": "not ready: no bundle is loaded"})
        assert other.post(INFER, json=right).status_code == 503
        assert other.get("/v2/health/live").json() == {"live": True}


def test_an_empty_history_is_not_asked_of_the_store(client):
    """As in POST /score: none is asked of the behavior store, an empty one is empty."""
    event = {"user": 5, "item_id": 1, "time": 5, "kind": "click"}
    token = {"Authorization": "Bearer secret"}
    client.post("/events", json={"events": [event]}, headers=token)
    empty = [tensor("history_item_id", []), tensor("history_time", [])]
    for more, count in (([], 1), (empty, 0)):
        answer = client.post(INFER, json={"inputs": [tensor(), tensor("user", [5]), *more]}).json()
        assert answer["parameters"]["num_behaviors"] == count
