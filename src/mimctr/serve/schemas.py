"""What comes in and goes out over HTTP."""

import base64
import binascii
import time
from typing import Annotated

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from mimctr.data.keys import item_key
from mimctr.serve import scorer
from mimctr.serve.histories import Event

MAX_CANDIDATES, MAX_HISTORY, MAX_EVENTS = 5_000, 10_000, 1_000
MAX_DIM = 8_192
Second = Annotated[int, Field(ge=0, lt=2**40)]


def from_base64(value: object) -> object:
    """Return the bytes that a text stands for.

    Raises:
        ValueError: it is not base64; nothing of it is passed over.
    """
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("not base64") from None


Id = Annotated[int, Field(ge=0, lt=2**63)] | Annotated[str, Field(min_length=1, max_length=512)]
Text = Annotated[str, Field(max_length=4096)]
LongText = Annotated[str, Field(max_length=100_000)]
ShortText = Annotated[str, Field(max_length=512)]
Base64 = Annotated[
    bytes, BeforeValidator(from_base64), Field(json_schema_extra={"contentEncoding": "base64"})
]
Number = Annotated[float, Field(allow_inf_nan=False)]


class Strict(BaseModel):
    """What comes in: nothing that is not known is passed over."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Behavior(Strict):
    """Something that the user did."""

    item_id: Id
    time: Second = Field(description="Seconds UTC.")
    kind: Annotated[str, Field(max_length=64)] = "click"


class ScoreRequest(Strict):
    """One user, now, and what might be shown."""

    user: Id | None = Field(None, description="As in the log that the model was trained on.")
    candidates: list[Id] = Field(min_length=1, max_length=MAX_CANDIDATES)
    history: list[Behavior] | None = Field(
        None, max_length=MAX_HISTORY, description="What the user did; none: the behavior store is asked."
    )
    time: Second | None = Field(None, description="Seconds UTC; none: now.")
    query: Text | None = Field(None, description="Text of the query.")
    query_image: Base64 | None = Field(None, description="Picture that is asked with, in base64.")
    query_vector: list[Number] | None = Field(
        None, min_length=1, max_length=MAX_DIM, description="Its content vector, where the caller has it."
    )
    user_fields: dict[ShortText, Text | None] = {}
    query_fields: dict[ShortText, Text | None] = {}
    context_fields: dict[ShortText, Text | None] = {}

    def to_request(self) -> scorer.Request:
        """Return what a scorer understands."""
        behaviors = scorer.NO_BEHAVIORS
        if self.history:
            behaviors = scorer.Behaviors(
                np.array([item_key(one.item_id) for one in self.history], dtype=np.int64),
                np.array([one.time for one in self.history], dtype=np.int64),
                [one.kind for one in self.history],
            )
        query = {} if self.query is None else {"query_text": self.query}
        return scorer.Request(
            user=None if self.user is None else item_key(self.user),
            candidates=np.array([item_key(name) for name in self.candidates], dtype=np.int64),
            behaviors=behaviors,
            time=int(time.time()) if self.time is None else self.time,
            user_fields=self.user_fields,
            query_fields=query | self.query_fields,
            context_fields=self.context_fields,
            query_vector=None if self.query_vector is None else np.array(self.query_vector),
            query_image=self.query_image,
        )


class Score(BaseModel):
    """What the model says of a candidate."""

    item_id: int | str
    probability: float = Field(description="Of a click.")
    vector: str = Field(description="Of its content: hit, miss, deleted or damaged.")


class ScoreResponse(BaseModel):
    """Scores in the order of the candidates."""

    scores: list[Score]
    bundle: str
    generation: int | None
    num_behaviors: int = Field(description="That the model saw.")
    num_known: int = Field(description="Of them, with a content vector.")
    query_vector: str = Field(
        description="Where it came from: given, hit, cached or encoded; late or none where there is none."
    )


class ItemContent(Strict):
    """What an item is. One with neither title nor picture has no vector."""

    title: LongText | None = None
    category: ShortText | None = Field(None, description="As in the catalogue.")
    image: Base64 | None = Field(None, description="The picture's file, in base64.")


class ItemTaken(BaseModel):
    """Where an item is, on the disk."""

    item_id: int | str
    version: int = Field(description="Of the item: 1, 2, 3, ...")
    windows: dict[int, int] = Field(description="Generation -> number of the window in the item's partition.")


class NewEvent(Strict):
    """Something that a user did just now."""

    user: Id
    item_id: Id
    time: Second
    kind: Annotated[str, Field(min_length=1, max_length=64)] = "click"
    event_id: Annotated[str, Field(max_length=128)] = ""

    def to_event(self) -> Event:
        """Return what a behavior store keeps."""
        return Event(item_key(self.user), item_key(self.item_id), self.time, self.kind, self.event_id)


class Events(Strict):
    """Some of them."""

    events: list[NewEvent] = Field(min_length=1, max_length=MAX_EVENTS)


class Kept(BaseModel):
    """How many were kept."""

    num_events: int


class Reload(Strict):
    """Which bundle to serve from now on."""

    bundle: str = Field(
        min_length=1, max_length=4096, description="Its folder, in the one that bundles come from."
    )


class Reloaded(BaseModel):
    """What is served now."""

    bundle: str
    generation: int | None


class Served(Reloaded):
    """The same, and what computes the logits."""

    engine: str
    why: str
    milliseconds: dict[str, float] = Field(
        description="Of a typical request, by engine, where both were timed."
    )
    largest_difference: float | None = Field(description="Between the engines' logits.")


class Live(BaseModel):
    """That the process runs."""

    live: bool


class Ready(BaseModel):
    """That requests are answered."""

    ready: bool
