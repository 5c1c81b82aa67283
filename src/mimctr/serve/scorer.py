"""Candidates and a history to probabilities: the model of a bundle, vectors of one generation. No HTTP.

The same two halves as offline, so that a score is the one that evaluation gave to the same inputs; what a user's
candidates share is looked up once.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from numpy import ndarray
from torch import Tensor

from mimctr.batch import Content, CtrBatch, pad_positions
from mimctr.center.record import Found
from mimctr.center.stores.interface import ParameterStore, Space
from mimctr.errors import DataError, StaleSnapshot
from mimctr.serve.bundle import Bundle
from mimctr.ubm.ciubm import CiUBM
from mimctr.ubm.embeddings import EmbeddingHalf


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


class Scorer:
    """A bundle bound to a generation.

    Args:
        bundle: Names to indices.
        model: The bundle's, in evaluation mode.
        space: Generation whose vectors it reads; None for Base.
        store: Holds them; None for Base.

    Raises:
        StaleSnapshot: the generation's vectors came from another encoder than the model was trained on.
    """

    def __init__(
        self, bundle: Bundle, model: CiUBM, *, space: Space | None = None, store: ParameterStore | None = None
    ) -> None:
        wanted = bundle.manifest.content_fingerprint
        found = None if space is None else space.fingerprint
        if wanted is not None and found != wanted:
            raise StaleSnapshot(
                f"{bundle.folder}: its model was trained on vectors of encoder {wanted[:12]}, the center serves those "
                f"of {found[:12] if found else 'none'}. Activate that encoder's generation, or export another model."
            )
        self.bundle = bundle
        self.model = model
        self.space = space
        self.store = store
        self.embedding: EmbeddingHalf = model.embedding
        extensions = None if model.dense.content is None else model.dense.content.extensions
        self.reads_query = extensions is not None and extensions.query
        """Whether a query's vector changes a score."""

    def score(self, request: Request) -> Scores:
        """Return the probability of a click on each candidate.

        Raises:
            DataError: there is no candidate, or a field that the model does not have.
            StoreUnavailable: the store cannot be reached.
        """
        if not len(request.candidates):
            raise DataError("candidates: there are none. Send at least one.")
        seen = self._seen(request)
        shared = self._shared(request, seen)
        targets = torch.from_numpy(self.bundle.item_index(request.candidates))
        with torch.inference_mode():
            content, found = self._content(request, seen, shared)
            logits = self.model.dense(self.embedding.of_candidates(shared, targets), content).logit
            probabilities = torch.sigmoid(logits.double()).numpy()
        count = len(request.candidates)
        return Scores(probabilities, found.states[:count], len(seen.items), int(found.known[count:].sum()))

    def _seen(self, request: Request) -> Behaviors:
        """Return the newest behaviors before the request, oldest first."""
        items, times, kinds = request.behaviors
        order = np.argsort(times, kind="stable")
        order = order[times[order] < request.time][-self.bundle.manifest.max_length :]
        return Behaviors(items[order], times[order], [kinds[place] for place in order.tolist()])

    def _shared(self, request: Request, seen: Behaviors) -> CtrBatch:
        """Return what all candidates share as one impression."""
        count = len(seen.items)
        positions, mask = pad_positions(np.array([0]), np.array([count]), self.bundle.manifest.max_length)
        items = np.append(self.bundle.item_index(seen.items), 0)
        kinds = np.append(np.array([self.bundle.kind_index(kind) for kind in seen.kinds], dtype=np.int64), 0)
        gaps = np.append(request.time - seen.times, 0)
        take = np.where(mask, positions, count)
        user = 1 if request.user is None else self.bundle.user_index(request.user)
        return CtrBatch(
            user_fields=self._fields("user", {**request.user_fields}, first=user),
            query_fields=self._fields("query", request.query_fields),
            context_fields=self._fields("context", request.context_fields),
            query=torch.zeros(1, dtype=torch.int64),
            target=torch.zeros(1, dtype=torch.int64),
            behaviors=torch.from_numpy(items[take]),
            kinds=torch.from_numpy(kinds[take]),
            time_gaps=torch.from_numpy(gaps[take]),
            mask=torch.from_numpy(mask),
            clicks=torch.zeros(1),
        )

    def _fields(
        self, side: str, values: Mapping[str, str | None], *, first: int | None = None
    ) -> Int[Tensor, "1 fields"]:
        """Return the indices of one side's fields, in the order of the model's columns."""
        names = list(self.embedding.names[side])
        unknown = sorted(set(values) - set(names))
        if unknown:
            raise DataError(
                f"{side} fields: the model has no {', '.join(unknown)}; it has {', '.join(names) or 'none'}."
            )
        indices = [self.bundle.value_index(side, name, values.get(name)) for name in names]
        if first is not None:
            indices[0] = first
        return torch.tensor([indices], dtype=torch.int64)

    def _content(self, request: Request, seen: Behaviors, shared: CtrBatch) -> tuple[Content | None, Found]:
        """Return content vectors of candidates and behaviors, fetched together."""
        keys = np.concatenate([request.candidates, seen.items])
        if self.space is None or self.store is None:
            return None, Found.misses(len(keys), 0)
        distinct, back = np.unique(keys, return_inverse=True)
        fetched = self.store.fetch(self.space, distinct)
        found = Found(fetched.vectors[back], fetched.states[back])
        count, length = len(request.candidates), shared.mask.shape[1]
        behaviors = np.zeros((1, length, self.space.dim), np.float32)
        known = np.zeros((1, length), np.bool_)
        if len(seen.items):
            behaviors[0, -len(seen.items) :] = found.vectors[count:]
            known[0, -len(seen.items) :] = found.known[count:]
        query = np.zeros(self.space.dim, np.float32) if request.query_vector is None else request.query_vector
        content = Content(
            target=torch.from_numpy(found.vectors[:count]),
            target_known=torch.from_numpy(found.known[:count]),
            behaviors=torch.from_numpy(behaviors).expand(count, -1, -1),
            behaviors_known=torch.from_numpy(known).expand(count, -1),
            query=torch.from_numpy(query.astype(np.float32)).expand(count, -1),
            query_known=torch.tensor(request.query_vector is not None).expand(count),
        )
        return content, found
