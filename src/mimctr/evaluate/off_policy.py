"""The schema of ``off_policy.json``: what policies would have been clicked, from a log with propensities.

docs/online.md says how it is measured.
"""

from pathlib import Path
from typing import Any, Literal

from mimctr.evaluate.encoder_results import Estimate
from mimctr.evaluate.online import Policy
from mimctr.evaluate.results import Machine, Record, read_record
from mimctr.files import write_json

FORMAT: Literal[1] = 1
AS_LOGGED = "as logged"
"""The policy that wrote the log."""


class Wrong(Record):
    """Where the weights of a policy do not have the mean 1: the log does not support it there."""

    place: int | None
    """The first such place, 1 on top; null: the page as a whole."""
    mean_weight: float
    """Over seeds; 0 where the log never did there what the policy does."""


class Support(Record):
    """How much the log knows of a policy."""

    policy: str
    mean_weight: Estimate
    """1 where the log supports the policy."""
    matched_impressions: float
    """That the policy would have made too; mean over seeds."""
    effective_impressions: float
    """As many impressions of equal weight would say as much; mean over seeds."""
    largest_weight: float
    wrong: Wrong | None = None
    """Depths that reach this place are not estimated; null: there is none."""
    supported: bool
    """False: no depth is estimated."""


class Outcome(Record):
    """What a policy would have been clicked in the first places of every page."""

    policy: str
    depth: int | None
    """Places from the top; null: all of a page."""
    ctr: Estimate
    """Clicks per impression."""


class Change(Record):
    """How much more a policy would have been clicked than another one, as a share of the other's."""

    policy: str
    against: str
    depth: int | None
    relative: Estimate
    """0.05 is 5 % more; paired, over users and seeds."""


class OffPolicy(Record):
    """All of ``off_policy.json``."""

    format: Literal[1] = FORMAT
    dataset: str
    ubm: str
    base: str
    """The policy that others are compared with."""
    policies: list[Policy]
    num_pages: int
    num_users: int
    num_impressions: int
    left_out: dict[str, int]
    """Why pages of the test part do not count -> how many."""
    support: list[Support]
    outcomes: list[Outcome]
    changes: list[Change]
    config: dict[str, Any]
    versions: dict[str, str]
    machine: Machine

    def outcome(self, policy: str, depth: int | None) -> Outcome | None:
        """Return what a policy would have been clicked; None where that is not known."""
        return next((one for one in self.outcomes if (one.policy, one.depth) == (policy, depth)), None)

    def change(self, policy: str, against: str, depth: int | None) -> Estimate | None:
        """Return how much more a policy would have been clicked than another one; None where that is not known."""
        wanted = (policy, against, depth)
        return next(
            (one.relative for one in self.changes if (one.policy, one.against, one.depth) == wanted), None
        )

    def supported(self, policy: str) -> bool:
        """Return whether the log supports a policy."""
        return all(one.supported for one in self.support if one.policy == policy)


def write_off_policy(path: Path, found: OffPolicy) -> None:
    """Write ``found`` as JSON, atomically."""
    write_json(path, found.model_dump(mode="json"))


def read_off_policy(path: Path) -> OffPolicy:
    """Read what :func:`write_off_policy` wrote.

    Raises:
        RunError: the file is missing or not JSON.
        DataError: it does not follow the schema.
    """
    return read_record(path, OffPolicy, schema="off_policy.json", again="mimctr off-policy")
