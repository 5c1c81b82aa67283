"""What Prometheus reads (docs/runbook.md says what each means)."""

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

BUCKETS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
"""Seconds."""


class Metrics:
    """The service's own counts; each application has its own."""

    def __init__(self) -> None:
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
        self.bundle = Gauge("mimctr_bundle_info", "1 of the bundle that is served.", ["bundle"], **named)
        self.lag = Gauge(
            "mimctr_lag_windows", "Windows of the log that the vectors' store has not applied.", **named
        )
        self.staleness = Gauge(
            "mimctr_staleness_seconds", "Age of the oldest window not applied; 0 where none waits.", **named
        )
        self.failing = Gauge(
            "mimctr_follower_failing", "1 while the embedded store cannot follow the log.", **named
        )
