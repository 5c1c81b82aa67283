"""The schema of ``online.json``: a simulated A/B test of ranking policies (docs/online.md)."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from mimctr.evaluate.encoder_results import Estimate
from mimctr.evaluate.results import Machine, Record, read_record
from mimctr.files import write_json

FORMAT: Literal[1] = 1
AS_LOGGED, TRUTH = "as logged", "true probabilities"
"""Policies without a model: retrieval's own order, and that of a model that knew everything."""
Ranking = Literal["probability", "revenue"]
"""By the probability of a click, or by that times the bid."""
Measure = Literal["ctr", "rpm"]
"""Clicks per impression; revenue per thousand impressions, where a click pays its bid."""
Count = Literal["clicks", "expected"]
"""Of clicks that were drawn, or of the true probabilities themselves: what endless drawing would give."""


class Policy(Record):
    """What orders the candidates of a session."""

    name: str
    folders: list[str] = Field([])
    """Of its models, one a seed; empty without a model."""
    seeds: list[int] = Field([])


class Outcome(Record):
    """What a policy earned."""

    policy: str
    ranking: Ranking
    slice: str
    """``all`` or ``category:<name>``; a session is of one category."""
    num_sessions: int
    num_users: int
    num_impressions: int
    clicks: float
    """Mean over seeds and draws."""
    expected_clicks: float
    revenue: float
    expected_revenue: float
    ctr: Estimate
    rpm: Estimate


class Change(Record):
    """How much more a policy earned than another one in the same sessions, as a share of the other's."""

    policy: str
    against: str
    ranking: Ranking
    slice: str
    """``category:A, B`` is the mean over two slices."""
    minus_slice: str | None = None
    """Null, or the slice whose change is subtracted."""
    measure: Measure
    count: Count
    relative: Estimate
    """0.05 is 5 % more, or 5 points more than on ``minus_slice``; paired, over users and seeds."""


class Online(Record):
    """All of ``online.json``."""

    format: Literal[1] = FORMAT
    dataset: str
    """Which market, in words."""
    ubm: str
    base: str
    """The policy that others are compared with."""
    policies: list[Policy]
    start_time: int
    """Of the first session, seconds UTC."""
    end_time: int
    num_sessions: int
    num_users: int
    candidates_per_session: float
    shown_per_session: float
    shared_with_base: dict[str, float]
    """Policy -> share of its impressions that ``base`` shows in the same session too, ranked by probability."""
    outcomes: list[Outcome]
    changes: list[Change]
    config: dict[str, Any]
    versions: dict[str, str]
    machine: Machine

    def outcome(self, policy: str, ranking: Ranking, name: str = "all") -> Outcome | None:
        """Return what a policy earned on a slice; None where there is none."""
        wanted = (policy, ranking, name)
        return next((one for one in self.outcomes if (one.policy, one.ranking, one.slice) == wanted), None)

    def change(
        self,
        policy: str,
        against: str,
        measure: Measure,
        *,
        ranking: Ranking,
        name: str = "all",
        minus: str | None = None,
        count: Count = "clicks",
    ) -> Estimate | None:
        """Return how much more a policy earned than another one; None where that was not compared."""
        wanted = (policy, against, measure, ranking, name, minus, count)
        for one in self.changes:
            where = (one.slice, one.minus_slice)
            if (one.policy, one.against, one.measure, one.ranking, *where, one.count) == wanted:
                return one.relative
        return None

    def slices(self) -> list[str]:
        """Return every slice once, in order."""
        return list(dict.fromkeys(one.slice for one in self.outcomes))


def write_online(path: Path, online: Online) -> None:
    """Write ``online`` as JSON, atomically."""
    write_json(path, online.model_dump(mode="json"))


def read_online(path: Path) -> Online:
    """Read what :func:`write_online` wrote.

    Raises:
        RunError: the file is missing or not JSON.
        DataError: it does not follow the schema.
    """
    return read_record(path, Online, schema="online.json", again="mimctr ab-test")
