"""The same model as two other servers would serve it: LitServe, and FastAPI with PyTorch as one writes it down.

    python benchmarks/serve_peers.py litserve|fastapi BUNDLE SNAPSHOT PORT

Tables and vectors are in memory. The user's rows and vectors are looked up once and expanded to the candidates.
"""

import sys
from pathlib import Path
from typing import Any

import litserve
import numpy as np
import torch
from pydantic import BaseModel

from mimctr.batch import Content, CtrBatch
from mimctr.center.snapshot import Snapshot
from mimctr.recipes.ctr_model import load_model
from mimctr.serve.bundle import Bundle


class Behavior(BaseModel):
    """Something that the user did."""

    item_id: int
    time: int
    kind: str


class Body(BaseModel):
    """A request."""

    user: int
    candidates: list[int]
    history: list[Behavior]
    time: int
    user_fields: dict[str, str]
    context_fields: dict[str, str]


class Predictor:
    """A bundle's model with all vectors in memory, by index.

    Args:
        bundle: Of the model.
        snapshot: With the vectors.
    """

    def __init__(self, bundle: Path, snapshot: Path) -> None:
        torch.set_num_threads(1)
        self.bundle, self.model = Bundle(bundle), load_model(bundle)
        found = Snapshot.open(snapshot, encoder="bench")
        index = torch.from_numpy(self.bundle.item_index(found.keys))
        num_items = len(self.model.embedding.item_rows)
        self.vectors = torch.zeros(num_items, found.dim)
        self.known = torch.zeros(num_items, dtype=torch.bool)
        self.vectors[index] = torch.from_numpy(found.fetch(found.keys).vectors)
        self.known[index] = True

    @torch.inference_mode()
    def __call__(self, body: dict[str, Any]) -> list[float]:
        """Return the probabilities of a request."""
        bundle, embedding = self.bundle, self.model.embedding
        history = sorted(body["history"], key=lambda one: one["time"])[-bundle.manifest.max_length :]
        behaviors = torch.from_numpy(bundle.item_index(np.array([one["item_id"] for one in history])))
        targets = torch.from_numpy(bundle.item_index(np.array(body["candidates"])))

        def fields(side: str, first: list[int]) -> torch.Tensor:
            names = embedding.names[side][len(first) :]
            return torch.tensor(
                [first + [bundle.value_index(side, name, body[f"{side}_fields"].get(name)) for name in names]]
            )

        batch = CtrBatch(
            user_fields=fields("user", [bundle.user_index(body["user"])]),
            query_fields=torch.zeros(1, len(embedding.names["query"]), dtype=torch.int64),
            context_fields=fields("context", []),
            query=torch.zeros(1, dtype=torch.int64),
            target=torch.zeros(1, dtype=torch.int64),
            behaviors=behaviors.unsqueeze(0),
            kinds=torch.tensor([[bundle.kind_index(one["kind"]) for one in history]]),
            time_gaps=torch.tensor([[body["time"] - one["time"] for one in history]]),
            mask=torch.ones(1, len(history), dtype=torch.bool),
            clicks=torch.zeros(1),
        )
        count = len(targets)
        rows = embedding.of_candidates(batch, targets)
        rows = rows._replace(
            **{
                name: tensor.expand(count, *tensor.shape[1:])
                for name, tensor in rows._asdict().items()
                if tensor is not None
            }
        )
        content = Content(
            target=self.vectors[targets],
            target_known=self.known[targets],
            behaviors=self.vectors[behaviors].expand(count, -1, -1),
            behaviors_known=self.known[behaviors].expand(count, -1),
            query=torch.zeros(1, self.vectors.shape[1]).expand(count, -1),
            query_known=torch.zeros(1, dtype=torch.bool).expand(count),
        )
        probabilities: list[float] = torch.sigmoid(self.model.dense(rows, content).logit).tolist()
        return probabilities


def serve_fastapi(bundle: Path, snapshot: Path, port: int) -> None:
    """Serve until told to stop."""
    import uvicorn
    from fastapi import FastAPI

    app, predictor = FastAPI(), Predictor(bundle, snapshot)

    @app.post("/score")
    async def score(body: Body) -> dict[str, list[float]]:
        return {"probabilities": predictor(body.model_dump())}

    uvicorn.run(app, port=port, log_level="warning", access_log=False)


class Api(litserve.LitAPI):
    """What LitServe asks for, in a process of its own."""

    def __init__(self, bundle: Path, snapshot: Path) -> None:
        super().__init__(api_path="/score")
        self.folders = bundle, snapshot

    def setup(self, device: str) -> None:
        """Load the model, in the process that predicts."""
        self.predictor = Predictor(*self.folders)

    def decode_request(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return what ``predict`` gets."""
        return request

    def predict(self, body: dict[str, Any]) -> list[float]:
        """Return the probabilities."""
        return self.predictor(body)

    def encode_response(self, output: list[float]) -> dict[str, list[float]]:
        """Return what is sent back."""
        return {"probabilities": output}


def serve_litserve(bundle: Path, snapshot: Path, port: int) -> None:
    """Serve until told to stop."""
    server = litserve.LitServer(Api(bundle, snapshot), accelerator="cpu", fast_queue=True)
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    {"fastapi": serve_fastapi, "litserve": serve_litserve}[sys.argv[1]](
        Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    )
