"""The schema of ``cost.json``: what content costs with the representation center and without it (MIM, Table 6)."""

from pathlib import Path
from typing import Any, Literal

from mimctr.evaluate.results import Machine, Record, read_record
from mimctr.files import write_json

FORMAT: Literal[1] = 1
Side = Literal[
    "base", "without_center", "end_to_end", "mim", "without_center_distinct", "end_to_end_distinct"
]
"""``base``: no content; ``mim``: vectors from the center; ``without_center``: the frozen item encoder runs on what a
batch shows, once for each appearance of an item; ``end_to_end``: and is trained; ``_distinct``: once for each different
item of a batch."""
Mode = Literal["training", "inference"]


class Operations(Record):
    """Floating-point operations of one impression."""

    products: float
    """Of products of matrices, convolutions and attention."""
    elementwise: float
    """Of what is computed number by number."""


class Run(Record):
    """Steps of one batch size."""

    batch_size: int
    num_steps: int
    """That were timed."""
    seconds: float
    """Of one impression: the median step's, its batch included."""
    memory_bytes: int
    """At most, above what the process held before it opened anything; on a GPU what PyTorch had allocated there."""
    process_bytes: int
    """At most, of the whole process; on a GPU what PyTorch had reserved there."""


class Measured(Record):
    """One side in one mode, in a process of its own."""

    side: Side
    mode: Mode
    operations: Operations
    """Of the impressions that all sides are counted on."""
    compared: Run
    """With the batch size that all sides share."""
    usual: Run | None
    """With the batch size of a training; null where the encoder runs."""


class Agreement(Record):
    """How close the encoder's own vectors are to the center's, before anything was measured."""

    num_vectors: int
    mean_cosine: float
    least_cosine: float
    largest_logit_difference: float


class Cost(Record):
    """All of ``cost.json``."""

    format: Literal[1] = FORMAT
    config: dict[str, Any]
    encoder: str
    """Fingerprint."""
    num_impressions: int
    """That operations were counted on."""
    items_per_impression: float
    """Target and behaviors of one of them, on average."""
    distinct_items_per_impression: float
    """Different items of the counted batch, divided by its impressions."""
    agreement: Agreement
    measured: list[Measured]
    device: str
    threads: int
    machine: Machine
    versions: dict[str, str]

    def find(self, side: Side, mode: Mode) -> Measured | None:
        """Return one side in one mode; None where it was not run."""
        return next((one for one in self.measured if (one.side, one.mode) == (side, mode)), None)


def write_cost(path: Path, cost: Cost) -> None:
    """Write ``cost`` as JSON, atomically."""
    write_json(path, cost.model_dump(mode="json"))


def read_cost(path: Path) -> Cost:
    """Read what :func:`write_cost` wrote.

    Raises:
        RunError: the file is missing or not JSON.
        DataError: it does not follow the schema.
    """
    return read_record(path, Cost, schema="cost.json", again="mimctr cost")
