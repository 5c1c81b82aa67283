"""Content interest in a model of another library: DeepCTR-Torch's DIN.

    pip install deepctr-torch requests
    mimctr run recipes/demo.toml --out runs/demo
    python examples/deepctr_torch_din.py runs/demo/dataset runs/demo/embed/csft

Trains the library's own DIN, and the same DIN with mimctr's ContentAwareInterest behind its attention, both by the
library's own ``fit``; prints the AUC of both on the test part, and the gain.
"""

import argparse
import contextlib
import sys
from pathlib import Path

import numpy as np
import torch
from deepctr_torch.inputs import SparseFeat, VarLenSparseFeat
from deepctr_torch.layers import DNN
from deepctr_torch.models import DIN
from torch import Tensor, nn

from mimctr.batch import Content
from mimctr.data.dataset import CtrDataset
from mimctr.errors import MimctrError
from mimctr.evaluate.metrics import auc
from mimctr.recipes.embed import open_content
from mimctr.ubm.content_module import ContentAwareInterest
from mimctr.ubm.interface import Interest

HISTORY = ("item", "category")
HIDDEN_DIMS = (256, 128, 64)


class ContentAttention(nn.Module):
    """The library's attention, and behind its ID interest what content adds, Eq. (7) to (9).

    Args:
        attention: From rows of target and behaviors to the ID interest.
        dim: Width of a row.
        vectors: Content vector of each item index; a row of NaN where there is none.
    """

    def __init__(self, attention: nn.Module, dim: int, vectors: Tensor) -> None:
        super().__init__()
        self.attention = attention
        self.aware = ContentAwareInterest(id_width=dim, dim=dim, content_dim=vectors.shape[1])
        self.width = self.aware.width + self.aware.feature_width
        self.register_buffer("known", ~vectors.isnan().any(dim=1))
        self.register_buffer("vectors", vectors.nan_to_num(0.0))

    def look_up(self, target: Tensor, behaviors: Tensor) -> None:
        """Take the content vectors of the next batch from its item indices."""
        self.content = Content(
            target=self.vectors[target],
            target_known=self.known[target],
            behaviors=self.vectors[behaviors],
            behaviors_known=self.known[behaviors],
            query=torch.zeros(len(target), self.vectors.shape[1], device=target.device),
            query_known=torch.zeros(len(target), dtype=torch.bool, device=target.device),
        )

    def forward(self, target: Tensor, behaviors: Tensor, lengths: Tensor) -> Tensor:
        """Return ``h_B`` and the flag of a target with a vector, in the library's shape (batch, 1, width)."""
        id_interest = self.attention(target, behaviors, lengths).squeeze(1)
        mask = torch.arange(behaviors.shape[1], device=lengths.device) < lengths.view(-1, 1)
        aware = self.aware(Interest(id_interest, kept=mask), behaviors, mask, self.content)
        return torch.cat([aware.interest, aware.features], dim=-1).unsqueeze(1)


class ContentDIN(DIN):
    """DeepCTR-Torch's DIN, with content.

    Args:
        columns: As the library takes them.
        vectors: Content vector of each item index; a row of NaN where there is none.
        seed: As the library takes it.
    """

    def __init__(self, columns: list[SparseFeat | VarLenSparseFeat], vectors: Tensor, *, seed: int) -> None:
        super().__init__(columns, list(HISTORY), dnn_hidden_units=HIDDEN_DIMS, seed=seed)
        self.attention = ContentAttention(self.attention, self._compute_interest_dim(), vectors)
        inputs = (
            self.compute_input_dim([c for c in columns if isinstance(c, SparseFeat)]) + self.attention.width
        )
        self.dnn = DNN(inputs, HIDDEN_DIMS)

    def forward(self, X: Tensor) -> Tensor:
        """Return the probability of a click."""
        target, behaviors = (X[:, slice(*self.feature_index[name])].long() for name in ("item", "hist_item"))
        self.attention.look_up(target.squeeze(1), behaviors)
        return super().forward(X)


def main() -> None:
    """Train both, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path, help="folder that 'mimctr prepare' wrote")
    parser.add_argument("content", type=Path, help="folder that 'mimctr embed' wrote")
    parser.add_argument("--max-length", type=int, default=50, help="newest behaviors that DIN sees")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    try:
        dataset = CtrDataset.open(args.dataset)
        vectors = content_vectors(dataset, args.content)
    except MimctrError as error:
        parser.error(str(error))
    columns = feature_columns(dataset, args.max_length)
    own = DIN(columns, list(HISTORY), dnn_hidden_units=HIDDEN_DIMS, seed=args.seed)
    aware = ContentDIN(columns, vectors, seed=args.seed)
    train, test = (inputs(dataset, part, args.max_length) for part in ("train", "test"))
    found = []
    for name, model in (("DIN", own), ("DIN with content", aware)):
        model.compile(torch.optim.Adam(model.parameters(), lr=0.005), "binary_crossentropy")
        with contextlib.redirect_stdout(sys.stderr):  # the library tells how it goes
            model.fit(*train, batch_size=1024, epochs=args.epochs, verbose=2)
        found.append(auc(test[1], model.predict(test[0], batch_size=1024)[:, 0]))
        print(f"{name:16} test AUC {found[-1]:.4f}")
    print(f"{'gain':16}          {found[1] - found[0]:+.4f}")


def feature_columns(dataset: CtrDataset, max_length: int) -> list[SparseFeat | VarLenSparseFeat]:
    """Return the fields as the library takes them: user, target and the behaviors, which share the target's tables."""
    sizes = {"user": dataset.num_users + 2, "item": len(dataset.item_fields)}
    sizes["category"] = dataset.fields.item["category"]
    columns = [SparseFeat(name, size, embedding_dim=16) for name, size in sizes.items()]
    return columns + [
        VarLenSparseFeat(
            SparseFeat(f"hist_{name}", sizes[name], 16, embedding_name=name),
            maxlen=max_length,
            length_name="length",
        )
        for name in HISTORY
    ]


def inputs(dataset: CtrDataset, part: str, max_length: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the impressions of a part as the library takes them, and their clicks."""
    batch = dataset.batch(np.array(dataset.rows(part)), max_length=max_length)
    lengths = batch.mask.sum(dim=1).numpy()
    behaviors = np.zeros((len(batch), max_length), dtype=np.int64)
    # Here the newest behavior stands last, behind the padding; the library wants the padding last.
    behaviors[np.arange(max_length) < lengths[:, None]] = batch.behaviors[batch.mask].numpy()
    category = dataset.item_fields[:, 0].astype(np.int64)
    target = batch.target.numpy()
    fields = {"user": batch.user_fields[:, 0].numpy(), "item": target, "category": category[target]}
    fields |= {"hist_item": behaviors, "hist_category": category[behaviors], "length": lengths}
    return fields, batch.clicks.numpy()


def content_vectors(dataset: CtrDataset, folder: Path) -> Tensor:
    """Return the content vector of each item index, a row of NaN where there is none."""
    table = open_content(dataset, folder)
    vectors = np.full((len(table.item_rows), table.dim), np.nan, dtype=np.float32)
    known = table.item_rows >= 0
    vectors[known] = table.snapshot.vectors[table.item_rows[known]]
    return torch.from_numpy(vectors)


if __name__ == "__main__":
    main()
