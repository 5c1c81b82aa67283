"""What trained models say of candidates in sessions, asked as a service is asked: one request a session."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from mimctr.batch import FIRST_INDEX
from mimctr.center.snapshot import Snapshot, read_manifest
from mimctr.center.stores.interface import Space
from mimctr.center.stores.local import LocalStore
from mimctr.data.dataset import CtrDataset
from mimctr.errors import RunError
from mimctr.recipes import bundle
from mimctr.recipes.ctr_model import load_model
from mimctr.recipes.embed import ITEMS, content_folder
from mimctr.recipes.evaluate import read_model_record
from mimctr.recipes.online_models import Trained
from mimctr.serve.bundle import Bundle
from mimctr.serve.scorer import NO_BEHAVIORS, Behaviors, Request, Scorer
from mimctr.sources.bazaar.serving import Offers

SERVED = ("base", "mim")
"""Variants that a session's request has everything for."""
FIRST_PLACE = {"context_position": "0"}
"""Candidates are compared as if each stood first: where one will stand is not known before."""
SIDES = ("user", "query", "context")


def open_scorer(model: Trained, dataset: Path, scratch: Path) -> Scorer:
    """Return the scorer that would serve a model.

    Args:
        model: Base or Base+MIM.
        dataset: What it was trained on.
        scratch: For its bundle; must not exist.

    Raises:
        RunError: there is no such model, it is another variant, or it was trained on another dataset.
        StaleSnapshot: it was trained on other vectors.
    """
    variant = read_model_record(model.folder).variant
    if variant not in SERVED:
        raise RunError(
            f"{model.folder}: a model of variant '{variant}', which reads what a session does not tell. "
            f"Name models of {' or '.join(SERVED)}."
        )
    bundle.main(model.folder, dataset, scratch, onnx=False)
    opened, trained = Bundle(scratch), load_model(scratch)
    if model.content is None:
        return Scorer(opened, trained)
    items = content_folder(model.content) / ITEMS
    manifest = read_manifest(items)
    space = Space(1, manifest.fingerprint, manifest.dim, manifest.dtype, len(manifest.watermarks))
    store = LocalStore()
    store.load(space, Snapshot.open(items, encoder=manifest.fingerprint))
    return Scorer(opened, trained, space=space, store=store)


def score_offers(
    scorer: Scorer, offers: Offers, histories: "Histories"
) -> Iterator[Float[ndarray, "candidates"]]:
    """Yield the probabilities of each session's candidates, 0 where there is none.

    Args:
        scorer: Of one model.
        offers: The sessions.
        histories: What their users did; a scorer looks at what comes before a session only.
    """
    names = {side: set(scorer.model.embedding.names[side]) for side in SIDES}
    for place, asked in enumerate(offers.asked.to_pylist()):
        there = offers.offered[place]
        probabilities = np.zeros(len(there))
        request = _request(asked, offers.item_id[place][there], histories, names)
        probabilities[there] = scorer.score(request).probabilities
        yield probabilities


def _request(
    asked: dict[str, Any],
    candidates: Int[ndarray, "candidates"],
    histories: "Histories",
    names: dict[str, set[str]],
) -> Request:
    known = {name: None if value is None else str(value) for name, value in asked.items()} | FIRST_PLACE
    fields = {side: {name: known[name] for name in names[side] & known.keys()} for side in SIDES}
    return Request(
        user=asked["user_id"],
        candidates=candidates,
        behaviors=histories.of(asked["user_id"]),
        time=asked["time"],
        user_fields=fields["user"],
        query_fields=fields["query"],
        context_fields=fields["context"],
    )


class Histories:
    """What every user of a log did, as a service is told it.

    Args:
        dataset: The log; its ids are integers.
    """

    def __init__(self, dataset: CtrDataset) -> None:
        self._dataset = dataset
        self._index = {user: row for row, user in enumerate(dataset.users["user_id"].to_list(), FIRST_INDEX)}
        self._kinds = np.array([None, None, *dataset.manifest.kinds], dtype=object)

    def of(self, user: int) -> Behaviors:
        """Return all behaviors of a user, oldest first, those of later days too; none of one who is not in the log."""
        index = self._index.get(user)
        if index is None:
            return NO_BEHAVIORS
        behaviors = self._dataset.behaviors
        own = slice(*behaviors.offsets[index : index + 2])
        return Behaviors(
            self._dataset.item_keys[behaviors.item[own]],
            behaviors.time[own],
            self._kinds[behaviors.kind[own]].tolist(),
        )
