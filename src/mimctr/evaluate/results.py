"""The schema of ``results.json``: everything the report shows (docs/results-schema.md).

A value that does not exist is null, never a made-up number: the ceiling where the true probability is unknown, the log
loss of scores that are no probabilities, the interval of one seed on too few users.
"""

from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from mimctr.errors import DataError
from mimctr.files import read_json, write_json

FORMAT: Literal[1] = 1
M = TypeVar("M", bound=BaseModel)
POOLED = "pooled"
"""In place of a UBM's name: the mean over all UBMs that have both variants."""


class Record(BaseModel):
    """Base of all parts: nothing unknown, nothing changed afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Row(Record):
    """Metrics of one trained model on one slice of the test part."""

    dataset: str
    ubm: str
    variant: str
    """``base``, ``mim``, ``mim_plus``, ``mim_permuted`` (leak control) or ``untrained_cosine``; an ablation is named by
    the interests that it lacks: ``mim_without_fusion``."""
    encoder: str | None
    """What made the content vectors, in words (``csft``, ``plain`` ...); null for ``base``."""
    seed: int
    slice: str
    """``all``, or ``kind:value`` as in ``mimctr.evaluate.cohorts``."""
    num_impressions: int
    num_clicks: int
    num_users: int
    auc: float
    gauc: float | None
    """Mean AUC over users, weighted by impressions; null where no user has both classes."""
    gauc_unweighted: float | None
    num_gauc_users: int
    """Users with both classes."""
    query_gauc: float | None = None
    """Mean AUC over queries (equal text and image, whoever asked), weighted by impressions; those without a query are
    left out. Null where no query has both classes."""
    query_gauc_unweighted: float | None = None
    num_queries: int | None = None
    """Distinct queries."""
    num_gauc_queries: int | None = None
    """Queries with both classes."""
    log_loss: float | None
    """Nats; null where scores are no probabilities."""
    pcoc: float | None
    ece: float | None
    ceiling_auc: float | None
    """AUC of the true click probabilities on the slice; null where they are unknown."""


class Comparison(Record):
    """Difference of AUC between two variants of one UBM, paired, pooled over seeds."""

    dataset: str
    ubm: str
    """A UBM, or ``pooled``."""
    variant: str
    encoder: str | None
    against: str
    """The variant that is subtracted."""
    against_encoder: str | None
    slice: str
    """``category:A, B`` is the mean over two slices."""
    minus_slice: str | None
    """Null, or the slice whose difference is subtracted (does the gain differ between the two?)."""
    seeds: list[int]
    difference: float
    sd: float | None
    """Over seeds; null for one seed."""
    standard_error: float | None
    low: float | None
    """Of the 95 % interval over users and seeds."""
    high: float | None
    p_value: float | None
    delong_standard_error: float | None = None
    """Over impressions taken as independent, for these very models; null with fewer than two clicks or non-clicks."""
    delong_p_value: float | None = None
    relative_improvement: float | None
    """RelaImpr: difference over (AUC of ``against`` - 0.5); null with ``minus_slice`` or where that is not positive."""


class ContentUse(Record):
    """What the AUC of a model with content loses on all test impressions when its vectors are shuffled, over seeds.

    The model is unchanged; its items' vectors are permuted within category before it scores.
    """

    dataset: str
    ubm: str
    variant: str
    encoder: str | None
    seeds: list[int]
    auc: float
    shuffled_auc: float
    drop: float
    """``auc`` minus ``shuffled_auc``; about 0 where the model does not look at the vectors."""
    sd: float | None
    """Of the drop over seeds; null for one seed."""
    standard_error: float | None
    low: float | None
    """Of the 95 % interval over users and seeds."""
    high: float | None
    p_value: float | None


class Reliability(Record):
    """Predicted and observed click rate of one model on all test impressions, in bins of equal count."""

    ubm: str
    variant: str
    encoder: str | None
    seed: int
    num_impressions: list[int]
    """By bin, lowest predictions first."""
    predicted: list[float]
    observed: list[float]


class SkippedSlice(Record):
    """A slice that has no AUC: all its impressions are clicks, or none is."""

    slice: str
    num_impressions: int
    num_clicks: int


class Part(Record):
    """Size of one part of the dataset."""

    part: str
    start_time: int
    """Seconds UTC."""
    end_time: int
    num_impressions: int
    num_clicks: int
    num_users: int
    num_items: int
    """Distinct targets."""


class DatasetFacts(Record):
    """What was evaluated on."""

    name: str
    num_items: int
    num_users: int
    num_behaviors: int
    num_queries: int
    num_pairs: int
    pair_rule: str
    """How C-SFT pairs were made, in words."""
    parts: list[Part]


class Coverage(Record):
    """Share of something that has a content vector."""

    encoder: str
    of: str
    """``catalogue items``, ``test targets``, ``test behaviors`` or ``test query images``."""
    known: int
    total: int


class ModelFacts(Record):
    """One trained model."""

    ubm: str
    variant: str
    seed: int
    encoder: str | None
    folder: str
    config: dict


class StageFacts(Record):
    """One finished stage of the run, from its ``stage.json``."""

    folder: str
    """Relative to the run."""
    name: str
    key: str
    config: dict
    inputs: dict[str, str]
    versions: dict[str, str]
    seconds: float
    peak_memory_bytes: int


class Curve(Record):
    """One metric over the steps of one training, thinned to what a plot can show."""

    folder: str
    """Of its ``metrics.jsonl``, relative to the run."""
    metric: str
    steps: list[int]
    values: list[float]


class Search(Record):
    """Visual search with one encoder on held-out interest pairs: an encoder's quality before any CTR model."""

    encoder: str
    """Folder of the encoder, relative to the run."""
    part: str
    """``validation`` or ``test``; with ``_before``: the same encoder before C-SFT trained it."""
    slice: str = "all"
    """``all``, ``item:unseen`` and ``item:seen`` (is the item in a training pair?), ``category:<name>``, or
    ``query:image`` and ``query:text`` where both ask."""
    metrics: dict[str, float]
    """``recall@1`` ..., ``mrr``, ``chance_recall@10``, ``num_pairs``."""


class PictureSheet(Record):
    """A picture file beside ``results.json``."""

    file: str
    title: str
    caption: str


class Machine(Record):
    """Where it ran."""

    system: str
    processor: str
    num_cores: int
    memory_bytes: int | None
    has_bfloat16: bool | None = None
    """Whether its GPU, or its processor where it has none, has products in bfloat16; else what asks for them ran in
    float32. Null: not known."""


class Results(Record):
    """All of ``results.json``."""

    format: Literal[1] = FORMAT
    dataset: DatasetFacts
    rows: list[Row]
    comparisons: list[Comparison]
    content_use: list[ContentUse] = []
    reliability: list[Reliability] = []
    skipped_slices: list[SkippedSlice]
    coverage: list[Coverage]
    models: list[ModelFacts]
    stages: list[StageFacts]
    curves: list[Curve]
    searches: list[Search]
    pictures: list[PictureSheet]
    settings: dict
    """Config of the evaluation itself."""
    versions: dict[str, str]
    machine: Machine


def write_results(path: Path, results: Results) -> None:
    """Write ``results`` as JSON, atomically."""
    write_json(path, results.model_dump(mode="json"))


def read_results(path: Path) -> Results:
    """Read what :func:`write_results` wrote.

    Raises:
        RunError: the file is missing or not JSON.
        DataError: it does not follow the schema.
    """
    return read_record(path, Results, schema="results.json", again="mimctr evaluate")


def read_record(path: Path, model: type[M], *, schema: str, again: str) -> M:
    """Read a JSON file as the pydantic model that wrote it.

    Args:
        path: The file.
        model: What it holds.
        schema: What the file is called wherever it lies.
        again: The command that makes it.

    Raises:
        RunError: the file is missing or not JSON.
        DataError: it does not follow the schema; the message has the first wrong value.
    """
    value = read_json(path)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DataError(
            f"{path}: {error.error_count()} values do not follow the schema of {schema}. First: {where}: "
            f"{first['msg']}. Run '{again}' again with this version."
        ) from None
