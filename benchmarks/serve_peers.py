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

from mimctr.batch import Content
from mimctr.center.snapshot import Snapshot
from mimctr.recipes.ctr_model import load_model
from mimctr.serve.bundle import Bundle, Table
from mimctr.ubm.embeddings import Fetched


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
        items, users = (self.bundle.open_table(table) for table in (Table.ITEMS, Table.USERS))
        self.item_keys, self.items = items.keys.copy(), torch.from_numpy(items.vectors.copy())
        self.user_keys, self.users = users.keys.copy(), torch.from_numpy(users.vectors.copy())
        found = Snapshot.open(snapshot, encoder="bench")
        index = torch.from_numpy(np.searchsorted(self.item_keys, found.keys))
        self.vectors = torch.zeros(len(self.items), found.dim)
        self.known = torch.zeros(len(self.items), dtype=torch.bool)
        self.vectors[index] = torch.from_numpy(found.fetch(found.keys).vectors)
        self.known[index] = True

    @torch.inference_mode()
    def __call__(self, body: dict[str, Any]) -> list[float]:
        """Return the probabilities of a request."""
        bundle, embedding = self.bundle, self.model.embedding
        history = sorted(body["history"], key=lambda one: one["time"])[-bundle.manifest.max_length :]
        behaviors, targets = (
            torch.from_numpy(np.searchsorted(self.item_keys, np.array(ids)))
            for ids in ([one["item_id"] for one in history], body["candidates"])
        )
        user = int(np.searchsorted(self.user_keys, body["user"]))

        def fields(side: str, first: int = 0) -> torch.Tensor:
            names, values = embedding.names[side][first:], body.get(f"{side}_fields", {})
            return torch.tensor(
                [[bundle.value_index(side, name, values.get(name)) for name in names]], dtype=torch.int64
            )

        count = len(targets)
        of_history, of_targets = self.items[behaviors].unsqueeze(0), self.items[targets]
        rows = embedding.of_fetched(
            Fetched(
                user=self.users[user].unsqueeze(0),
                candidates=of_targets[:, :-1],
                categories=of_targets[:, -1].long(),
                behaviors=of_history[..., :-1],
                behavior_categories=of_history[..., -1].long(),
                kinds=torch.tensor([[bundle.kind_index(one["kind"]) for one in history]]),
                time_gaps=torch.tensor([[body["time"] - one["time"] for one in history]]),
                mask=torch.ones(1, len(history), dtype=torch.bool),
                user_fields=fields("user", 1),
                query_fields=fields("query"),
                context_fields=fields("context"),
            )
        )
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
