"""Candidates and a history to probabilities: the model of a bundle, vectors of one generation. No HTTP.

The same halves as offline, so that a score is the one that evaluation gave to the same inputs; rows and vectors are
fetched by key, only those of the request, and what a user's candidates share is looked up once.
"""

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from numpy import ndarray
from torch import Tensor

from mimctr.batch import PADDING, UNKNOWN, Content
from mimctr.center.record import Found
from mimctr.center.stores.interface import ParameterStore, Space
from mimctr.errors import DataError, StaleSnapshot
from mimctr.serve.bundle import Bundle, Table
from mimctr.serve.engines import Engine, TorchEngine
from mimctr.serve.tables import Tables, embedded_tables, trained_rows
from mimctr.ubm.ciubm import CiUBM
from mimctr.ubm.embeddings import Fetched, Rows


class Behaviors(NamedTuple):
    """What a user did, in any order."""

    items: Int[ndarray, "behaviors"]
    """Item keys."""
    times: Int[ndarray, "behaviors"]
    """Seconds UTC."""
    kinds: Sequence[str]


NO_BEHAVIORS = Behaviors(np.zeros(0, np.int64), np.zeros(0, np.int64), ())


class Request(NamedTuple):
    """One user, now, and what might be shown."""

    user: int | None
    """Key; None: not known."""
    candidates: Int[ndarray, "candidates"]
    """Item keys."""
    behaviors: Behaviors
    time: int
    """Seconds UTC; behaviors at that time or later are not looked at."""
    user_fields: Mapping[str, str | None] = {}
    query_fields: Mapping[str, str | None] = {}
    context_fields: Mapping[str, str | None] = {}
    query_vector: Float[ndarray, "content"] | None = None
    query_image: bytes | None = None
    """Picture that was asked with; a scorer reads its vector only."""


class Scores(NamedTuple):
    """What the model says."""

    probabilities: Float[ndarray, "candidates"]
    """Of a click."""
    states: UInt8[ndarray, "candidates"]
    """Of each candidate's vector (:class:`~mimctr.center.record.State`)."""
    num_behaviors: int
    """That the model saw."""
    num_known: int
    """Of them, with a vector."""
    query_vector: str = "none"
    """Where the query's came from (:class:`mimctr.serve.queries.QueryState`)."""
    seconds: Mapping[str, float] = {}
    """Where the time went, by stage."""


class Scorer:
    """A bundle bound to a generation.

    Args:
        bundle: Names to indices.
        model: The bundle's, in evaluation mode.
        tables: Where rows of items and users come from; None: from the bundle itself.
        space: Generation whose vectors it reads; None for Base.
        store: Holds them; None for Base.
        engine: Computes the logits; None: PyTorch.

    Raises:
        StaleSnapshot: the generation's vectors came from another encoder than the model was trained on, or are wider
            or narrower than its encoder's.
    """

    def __init__(
        self,
        bundle: Bundle,
        model: CiUBM,
        *,
        tables: Tables | None = None,
        space: Space | None = None,
        store: ParameterStore | None = None,
        engine: Engine | None = None,
    ) -> None:
        wanted = bundle.manifest.content_fingerprint
        found = None if space is None else space.fingerprint
        if wanted is not None and found != wanted:
            raise StaleSnapshot(
                f"{bundle.folder}: its model was trained on vectors of encoder {wanted[:12]}, the center serves those "
                f"of {found[:12] if found else 'none'}. Activate that encoder's generation, or export another model."
            )
        width = bundle.manifest.content_dim
        if space is not None and width not in (None, space.dim):
            raise StaleSnapshot(
                f"{bundle.folder}: its model reads vectors of {width} numbers, those of generation {space.generation} "
                f"have {space.dim}. Activate its encoder's generation, or export another model."
            )
        self.bundle = bundle
        self.model = model
        self.space = space
        self.store = store
        self.tables = embedded_tables(bundle) if tables is None else tables
        with torch.inference_mode():
            unknown = torch.tensor([UNKNOWN])
            self._unknown = {
                table: trained_rows(model.embedding, table, unknown)[0].numpy() for table in Table
            }
        self.engine = engine or TorchEngine(model.dense)
        extensions = None if model.dense.content is None else model.dense.content.extensions
        self.reads_query = extensions is not None and extensions.query
        """Whether a query's vector changes a score."""

    def on(self, space: Space) -> "Scorer":
        """Return the same with another generation.

        Raises:
            StaleSnapshot: its vectors came from another encoder.
        """
        return Scorer(
            self.bundle, self.model, tables=self.tables, space=space, store=self.store, engine=self.engine
        )

    def score(self, request: Request) -> Scores:
        """Return the probability of a click on each candidate.

        Raises:
            DataError: there is no candidate, or a field that the model does not have.
            FloatingPointError: the model says NaN or infinity.
            StoreUnavailable: the store cannot be reached.
        """
        if not len(request.candidates):
            raise DataError("candidates: there are none. Send at least one.")
        start = time.perf_counter()
        seen = self._seen(request)
        keys, back = np.unique(np.concatenate([request.candidates, seen.items]), return_inverse=True)
        with torch.inference_mode():
            rows = self._rows(request, seen, keys, back)
            content, found = self._content(request, seen, keys, back)
            fetched = time.perf_counter()
            logits = self.engine.logits(rows, content)
            self._refuse_no_number(request, logits.numpy())
            probabilities = torch.sigmoid(logits.double()).numpy()
        count = len(request.candidates)
        return Scores(
            probabilities,
            found.states[:count],
            num_behaviors=len(seen.items),
            num_known=int(found.known[count:].sum()),
            seconds={"fetch": fetched - start, "dense": time.perf_counter() - fetched},
        )

    def _refuse_no_number(self, request: Request, logits: Float[ndarray, "candidates"]) -> None:
        finite = np.isfinite(logits)
        if not finite.all():
            raise FloatingPointError(
                f"{self.bundle.folder}: {np.sum(~finite)} of {len(logits)} logits are not finite, the first is that of "
                f"item key {request.candidates[~finite][0]}."
            )

    def _seen(self, request: Request) -> Behaviors:
        """Return the newest behaviors before the request, oldest first."""
        items, times, kinds = request.behaviors
        order = np.argsort(times, kind="stable")
        order = order[times[order] < request.time][-self.bundle.manifest.max_length :]
        return Behaviors(items[order], times[order], [kinds[place] for place in order.tolist()])

    def _rows(
        self, request: Request, seen: Behaviors, keys: Int[ndarray, "keys"], back: Int[ndarray, "asked"]
    ) -> Rows:
        """Return the rows of a request, those of its candidates and behaviors fetched together."""
        count, length = len(request.candidates), max(len(seen.items), 1)
        items = self.tables[Table.ITEMS].rows(keys, unknown=self._unknown[Table.ITEMS])
        candidates = torch.from_numpy(items[back[:count]])
        behaviors = torch.zeros(1, length, items.shape[1])
        behaviors[0, length - len(seen.items) :] = torch.from_numpy(items[back[count:]])
        kinds = torch.full((1, length), PADDING)
        time_gaps = torch.zeros(1, length, dtype=torch.int64)
        kinds[0, length - len(seen.items) :] = torch.tensor(
            [self.bundle.kind_index(one) for one in seen.kinds]
        )
        time_gaps[0, length - len(seen.items) :] = torch.from_numpy(request.time - seen.times)
        return self.model.embedding.of_fetched(
            Fetched(
                user=torch.from_numpy(self._user(request)),
                candidates=candidates[:, :-1],
                categories=candidates[:, -1].long(),
                behaviors=behaviors[..., :-1],
                behavior_categories=behaviors[..., -1].long(),
                kinds=kinds,
                time_gaps=time_gaps,
                mask=kinds != PADDING,
                user_fields=self._fields("user", request.user_fields)[:, 1:],
                query_fields=self._fields("query", request.query_fields),
                context_fields=self._fields("context", request.context_fields),
            )
        )

    def _user(self, request: Request) -> Float[ndarray, "1 width"]:
        unknown = self._unknown[Table.USERS]
        if request.user is None:
            return unknown[None]
        return self.tables[Table.USERS].rows(np.array([request.user]), unknown=unknown)

    def _fields(self, side: str, values: Mapping[str, str | None]) -> Int[Tensor, "1 fields"]:
        """Return the indices of one side's fields, in the order of the model's columns."""
        names = self.model.embedding.names[side]
        unknown = sorted(set(values) - set(names))
        if unknown:
            raise DataError(
                f"{side} fields: the model has no {', '.join(unknown)}; it has {', '.join(names) or 'none'}."
            )
        indices = [self.bundle.value_index(side, name, values.get(name)) for name in names]
        return torch.tensor([indices], dtype=torch.int64)

    def _content(
        self, request: Request, seen: Behaviors, keys: Int[ndarray, "keys"], back: Int[ndarray, "asked"]
    ) -> tuple[Content | None, Found]:
        """Return content vectors of candidates and behaviors, fetched together."""
        if self.space is None or self.store is None:
            return None, Found.misses(len(back), 0)
        fetched = self.store.fetch(self.space, keys)
        found = Found(fetched.vectors[back], fetched.states[back])
        count, length = len(request.candidates), max(len(seen.items), 1)
        behaviors = np.zeros((1, length, self.space.dim), np.float32)
        known = np.zeros((1, length), np.bool_)
        if len(seen.items):
            behaviors[0, -len(seen.items) :] = found.vectors[count:]
            known[0, -len(seen.items) :] = found.known[count:]
        query = np.zeros(self.space.dim, np.float32) if request.query_vector is None else request.query_vector
        content = Content(
            target=torch.from_numpy(found.vectors[:count]),
            target_known=torch.from_numpy(found.known[:count]),
            behaviors=torch.from_numpy(behaviors),
            behaviors_known=torch.from_numpy(known),
            query=torch.from_numpy(query.astype(np.float32)).unsqueeze(0),
            query_known=torch.tensor([request.query_vector is not None]),
        )
        return content, found
