"""The service behind HTTP: which bundle answers, where vectors and histories come from, and what is counted.

A request takes one reference to one :class:`Serving` and never sees another; a new bundle is loaded and warmed beside
the old one, then the reference is swapped. The old one goes when its last request is done.
"""

import contextlib
import logging
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mimctr.center.center import Center
from mimctr.center.publish import Behind, behind
from mimctr.center.record import State
from mimctr.center.stores.interface import ParameterStore, Pointed, Space
from mimctr.center.stores.local import LocalStore
from mimctr.errors import CenterError, ConfigError
from mimctr.serve.bundle import Bundle
from mimctr.serve.engines import Chosen, EngineSetting, choose_engine
from mimctr.serve.follower import Follower
from mimctr.serve.histories import Event, HistoryStore
from mimctr.serve.missing import Missing, missed
from mimctr.serve.queries import Queries
from mimctr.serve.remote import SCHEME, BundleStore
from mimctr.serve.scorer import NO_BEHAVIORS, Request, Scorer, Scores
from mimctr.serve.tables import Tables, embedded_tables
from mimctr.ubm.ciubm import CiUBM

logger = logging.getLogger(__name__)

WARM_UP = 3
"""Requests that a new bundle answers before it is served."""


@dataclass(frozen=True, slots=True)
class Serving:
    """One bundle bound to one generation."""

    name: str
    generation: int | None
    scorer: Scorer
    engine: Chosen
    """What computes its logits, and why that."""


class Service:
    """Scores with one bundle at a time.

    Args:
        load_model: Returns a bundle's model, in evaluation mode.
        center: Folder of the center; None for models without content, and where the store says what is active.
        store: Where vectors come from; None: a store of this process, kept up to date with the center.
        open_histories: Opens the behavior store, once in each thread; None: histories come with requests.
        bundles: Where ``store:LABEL`` comes from.
        engine: What computes logits; ``auto``: the fastest of those that a bundle can be served with.
    """

    def __init__(
        self,
        load_model: Callable[[Path], CiUBM],
        *,
        center: Path | None = None,
        store: ParameterStore | None = None,
        open_histories: Callable[[], HistoryStore] | None = None,
        bundles: BundleStore | None = None,
        engine: EngineSetting = "auto",
    ) -> None:
        self._load_model = load_model
        self._center = center
        self._engine = engine
        self._open_histories = open_histories
        self._bundles = bundles
        self._own = threading.local()
        self._swap = threading.Lock()
        self.serving: Serving | None = None
        self._scorers: tuple[weakref.ref[Scorer], ...] = ()
        """All that a request may hold."""
        self.store: ParameterStore | None = store
        self._follower: Follower | None = None
        self.queries: Queries | None = None if center is None else Queries(center)
        self.missing: Missing | None = None
        """Asked for candidates without a vector; None: nobody is."""
        if center is not None or store is not None:
            embedded = LocalStore() if store is None else None
            self.store = store or embedded
            self._follower = Follower(center, embedded, on_look=self._follow_active, in_use=self._generations)

    def close(self) -> None:
        """Stop what runs beside requests."""
        if self._follower is not None:
            self._follower.close()
        if self.queries is not None:
            self.queries.close()

    def load(self, name: str | Path) -> Serving:
        """Open, check and warm a bundle, then serve it; whoever is being served keeps what it has.

        Args:
            name: Its folder, or ``store:LABEL``.

        Raises:
            ConfigError: it is to come from a store, and there is none.
            RunError: there is no bundle, or a damaged one; what is served stays.
            StaleSnapshot: the active generation is another encoder's; what is served stays.
            CenterError: no generation is active.
            StoreUnavailable: the store cannot be reached.
        """
        label = str(name).removeprefix(SCHEME)
        with self._swap:
            if label == str(name):
                return self._open(Path(name).resolve().name, Path(name), embedded_tables)
            if self._bundles is None:
                raise ConfigError(f"{name}: there is no parameter store. Set store to its URL.")
            with self._bundles.pull(label) as folder:
                return self._open(label, folder, self._bundles.tables)

    def _open(self, label: str, folder: Path, open_tables: Callable[[Bundle], Tables]) -> Serving:
        """Serve a bundle with the active generation."""
        bundle = Bundle(folder)
        space = None
        if bundle.manifest.content_fingerprint is not None and self.store is not None:
            with contextlib.ExitStack() as opened:
                center = None if self._center is None else Center(self._center)
                if center is not None:
                    opened.callback(center.log.close)
                space = self._active(center)
            if space is None:
                raise CenterError(
                    f"{self._center or 'the store'}: no generation is active. Run 'mimctr center activate'"
                    f"{'' if self._center else ', and publish'} first."
                )
        model = self._load_model(folder)
        chosen = choose_engine(bundle, model, self._engine)
        return self._serve(
            label,
            Scorer(
                bundle,
                model,
                tables=open_tables(bundle),
                space=space,
                store=self.store,
                engine=chosen.engine,
            ),
            chosen,
        )

    def _serve(self, name: str, scorer: Scorer, engine: Chosen) -> Serving:
        """Warm a scorer, then serve it."""
        held = [one for one in self._scorers if one() is not None]
        self._scorers = (*held, weakref.ref(scorer))
        request = Request(None, np.zeros(1, np.int64), NO_BEHAVIORS, int(time.time()))
        for _ in range(WARM_UP):
            scorer.score(request)
        space = scorer.space
        if space is not None and self.queries is not None:
            self.queries.bind(space)
        self.serving = Serving(name, None if space is None else space.generation, scorer, engine)
        return self.serving

    def _active(self, center: Center | None) -> Space | None:
        """Return the active generation, as the center says, or the store where the center is elsewhere."""
        if center is None:
            return self.store.pointed() if isinstance(self.store, Pointed) else None
        active = center.log.generations.active()
        return None if active is None else center.log.generations.space(active.number)

    def _follow_active(self, center: Center | None) -> None:
        """Serve the generation that became active, with the bundle that is served.

        Raises:
            StaleSnapshot: it is another encoder's: that needs another bundle; what is served stays.
        """
        space, serving = self._active(center), self.serving
        if space is None or serving is None or serving.generation in (None, space.generation):
            return
        with self._swap:
            if self.serving is serving:  # or a bundle was loaded meanwhile, on the active generation
                self._serve(serving.name, serving.scorer.on(space), serving.engine)
                logger.info("generation %d is served", space.generation)

    def _generations(self) -> set[int]:
        """Return the generations of what is served, and of what its requests are not done with."""
        scorers = [one() for one in self._scorers]
        return {one.space.generation for one in scorers if one is not None and one.space is not None}

    def is_ready(self) -> str | None:
        """Return why requests cannot be answered, or None."""
        return "no bundle is loaded" if self.serving is None else None

    @property
    def follower_error(self) -> str | None:
        """Why the service does not follow its center; None: it does."""
        return None if self._follower is None else self._follower.error

    def behind(self) -> Behind | None:
        """Return how far the store is behind the log; None without a center, or without content.

        Raises:
            StoreUnavailable: the store cannot be reached.
        """
        serving = self.serving
        if self._center is None or self.store is None or serving is None or serving.generation is None:
            return None
        with contextlib.closing(Center(self._center).log) as log:
            return behind(log, self.store, serving.generation)

    def score(self, serving: Serving, request: Request, *, from_store: bool) -> Scores:
        """Score a request; its history comes from the behavior store where it brings none."""
        histories, seconds = self.histories, {}
        if from_store and histories is not None and request.user is not None:
            start, newest = time.perf_counter(), serving.scorer.bundle.manifest.max_length
            request = request._replace(behaviors=histories.newest(request.user, newest, before=request.time))
            seconds["history"] = time.perf_counter() - start
        scores = serving.scorer.score(request)
        if self.missing is not None and serving.generation is not None:
            lost = missed(request.candidates, scores.states)
            if lost is not None:
                self.missing.ask(*lost)
        return scores._replace(seconds={**seconds, **scores.seconds})

    def append(self, events: Sequence[Event]) -> None:
        """Keep events in the behavior store."""
        assert self.histories is not None, "the application has no such route without one"
        self.histories.append(events)

    @property
    def keeps_histories(self) -> bool:
        """Whether there is a behavior store."""
        return self._open_histories is not None

    @property
    def histories(self) -> HistoryStore | None:
        """The behavior store of this thread."""
        if self._open_histories is None:
            return None
        if not hasattr(self._own, "histories"):
            self._own.histories = self._open_histories()
        return self._own.histories


STATES = {State.HIT: "hit", State.MISS: "miss", State.DELETED: "deleted", State.DAMAGED: "damaged"}
"""What a response calls them."""
