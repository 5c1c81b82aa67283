"""What Prometheus reads (docs/runbook.md says what each means)."""

from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, ProcessCollector
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from mimctr.center.stores.cached import CachedStore
from mimctr.center.stores.interface import ParameterStore

BUCKETS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
"""Seconds."""


class CachedRows(Collector):
    """What a cache of hot rows counts itself.

    Args:
        store: Whether it is one, or not.
    """

    def __init__(self, store: ParameterStore | None) -> None:
        self.store = store

    def collect(self) -> Iterator[Metric]:
        """Return the counts at this moment."""
        counts = CounterMetricFamily("mimctr_cache_rows", "Rows asked of the cache.", labels=["outcome"])
        cached = self.store if isinstance(self.store, CachedStore) else None
        counts.add_metric(["hit"], cached.hits if cached else 0)
        counts.add_metric(["miss"], cached.misses if cached else 0)
        yield counts


class Metrics:
    """The service's own counts; each application has its own.

    Args:
        store: Of the vectors; a cache of it counts.
    """

    def __init__(self, store: ParameterStore | None = None) -> None:
        self.registry = CollectorRegistry()
        named: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter(
            "mimctr_requests", "Requests by route and status.", ["route", "status"], **named
        )
        self.seconds = Histogram(
            "mimctr_request_seconds", "Time of a request.", ["route"], buckets=BUCKETS, **named
        )
        self.stages = Histogram(
            "mimctr_stage_seconds", "Time of a score's stages.", ["stage"], buckets=BUCKETS, **named
        )
        self.vectors = Counter("mimctr_vectors", "Candidates' vectors by what was found.", ["state"], **named)
        self.queries = Counter(
            "mimctr_queries", "Requests by where the query's vector came from.", ["outcome"], **named
        )
        self.items = Counter(
            "mimctr_items", "Items that came or went, by what became of them.", ["outcome"], **named
        )
        self.items_waiting = Gauge("mimctr_items_waiting", "Items that wait to be encoded.", **named)
        self.disk_free = Gauge("mimctr_disk_free_bytes", "Free on the center's disk.", **named)
        self.missing = Counter(
            "mimctr_missing",
            "Candidates without a vector, by what became of asking for it.",
            ["outcome"],
            **named,
        )
        self.waiting = Gauge("mimctr_requests_in_flight", "Requests that wait or are worked on.", **named)
        self.generation = Gauge("mimctr_generation", "Generation that is served; 0 is none.", **named)
        self.bundle = Gauge(
            "mimctr_bundle_info",
            "1 of the bundle that is served, and what computes it.",
            ["bundle", "engine"],
            **named,
        )
        self.lag = Gauge(
            "mimctr_lag_windows", "Windows of the log that the vectors' store has not applied.", **named
        )
        self.staleness = Gauge(
            "mimctr_staleness_seconds", "Age of the oldest window not applied; 0 where none waits.", **named
        )
        self.failing = Gauge(
            "mimctr_follower_failing", "1 while the service cannot follow the center's log.", **named
        )
        self.unreachable = Gauge(
            "mimctr_store_unreachable", "1 while the vectors' store does not answer.", **named
        )
        self.registry.register(CachedRows(store))
        ProcessCollector(registry=self.registry)
