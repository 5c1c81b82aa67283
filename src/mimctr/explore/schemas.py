"""What the explorer says, as JSON and as pages."""

from pydantic import BaseModel, Field

ItemId = int | str


class Card(BaseModel):
    """An item in short."""

    item_id: ItemId
    title: str | None
    category: str | None
    picture: str | None = Field(description="Address of its picture; null where it has none.")


class Hit(Card):
    """An item that was found."""

    cosine: float | None = Field(None, description="With what was asked; null where words were searched.")


class Found(BaseModel):
    """The answer to a search."""

    asked: str = Field(description="What was compared, in words.")
    total: int = Field(description="Items among which was searched, or that the words match.")
    hits: list[Hit]
    note: str | None = Field(
        None, description="Why the answer is as it is; null where nothing is to be said."
    )


class Strip(BaseModel):
    """The nearest items in one generation."""

    encoder: str
    has_vector: bool = Field(description="Whether the item itself has a vector.")
    among: str | None = Field(None, description="Which items were searched, in words; null: all.")
    hits: list[Hit]


class Bin(BaseModel):
    """A stretch of time in an item's life."""

    start: int = Field(description="Seconds UTC.")
    end: int
    num_impressions: int
    num_clicks: int
    in_test: bool


class Score(BaseModel):
    """What models say of an item's test impressions on average."""

    name: str
    num_models: int
    probability: float


class SeenBy(BaseModel):
    """A test impression of an item."""

    row: int
    user_id: ItemId
    time: int = Field(description="Seconds UTC.")
    clicked: bool


class ItemView(BaseModel):
    """All that the run knows of an item."""

    card: Card
    fields: dict[str, str]
    price: float | None
    first_seen_time: int = Field(description="Seconds UTC.")
    age_days: float = Field(description="At the start of the test part; negative where it came later.")
    in_log: bool = Field(
        description="False where the log never names it: its first time is the catalogue's, or the start of the log."
    )
    train_count: int = Field(description="How often training shows it, as a target or a behavior.")
    num_impressions: int
    num_clicks: int
    num_test_impressions: int
    observed: float | None = Field(description="Clicks per test impression; null without any.")
    life: list[Bin]
    scores: list[Score]
    neighbors: list[Strip]
    seen_by: list[SeenBy] = Field(description="The first of its test impressions.")


class Weighed(Card):
    """A behavior, and how much content makes of it."""

    kind: str
    seconds_before: int | None = Field(description="Before the impression; null where none was chosen.")
    time: int = Field(description="Seconds UTC.")
    weight: float | None = Field(description="Of Eq. (7); null where it, or the target, has no vector.")


class Impression(BaseModel):
    """One test impression."""

    row: int
    time: int
    clicked: bool
    item: Card
    query_text: str | None
    query_picture: str | None
    true_probability: float | None
    scores: list[Score]


class UserView(BaseModel):
    """A user before one impression, or now."""

    user_id: ItemId
    num_behaviors: int = Field(description="Before the impression, or in all.")
    num_test_impressions: int
    place: int | None = Field(description="Of the impression among the user's in the test part, from 1.")
    impression: Impression | None
    previous: int | None = Field(description="Row of the test impression before.")
    next: int | None
    encoder: str | None = Field(description="Whose vectors weigh; null where the run has none.")
    target: Card | None
    target_has_vector: bool
    behaviors: list[Weighed] = Field(description="Newest first.")


class SliceRow(BaseModel):
    """AUC on one slice, averaged over UBMs and seeds."""

    slice: str
    name: str
    num_impressions: int
    num_clicks: int
    base: float | None
    content: float | None
    gain: float | None
    low: float | None = Field(description="Of the 95 % interval of the gain.")
    high: float | None
    p_value: float | None
    ceiling: float | None


class Example(BaseModel):
    """A test impression on which content and IDs disagree."""

    row: int
    user_id: ItemId
    item: Card
    clicked: bool
    base: float
    content: float


class SliceView(BaseModel):
    """Examples of a slice."""

    slice: str
    name: str
    num_impressions: int
    items: list[Hit] = Field(description="Most shown first.")
    helped: list[Example] = Field(
        description="Where content moved the probability towards what happened: clicked ones, then the others, each by "
        "how far, farthest first."
    )
    harmed: list[Example] = Field(description="Where it moved away from what happened, in the same order.")


class Number(BaseModel):
    """A number at the top of the page."""

    label: str
    value: str
    note: str


class RunView(BaseModel):
    """What the run is."""

    name: str
    headline: str | None
    remarks: list[str]
    figures: list[Number]
    counts: dict[str, int]
    pair_rule: str
    evaluation: str | None = Field(description="Folder of the results that are shown, below the run.")
    models: list[str]
    encoders: list[str]
    asks: list[str] = Field(description="Encoders that texts and pictures can be put to.")
    some_user: ItemId | None = Field(description="Who has the first test impression.")
    missing: list[str] = Field(description="What the run lacks, and what that takes away.")
