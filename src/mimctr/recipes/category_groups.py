"""Which categories are expected to gain more than which: settings of every comparison by category."""

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mimctr.evaluate.contrasts import CONTENT_SENSITIVE, LESS_SENSITIVE, Contrast, between_categories


class CategoryGroups(BaseModel):
    """Two groups of categories."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    content_sensitive: tuple[str, ...] = Field(
        CONTENT_SENSITIVE,
        min_length=1,
        description="Categories whose mean gain is compared with that of less_sensitive, where the test part has all "
        "of them. Paper: those that gained most online (Table 7).",
    )
    less_sensitive: tuple[str, ...] = Field(
        LESS_SENSITIVE, min_length=1, description="Likewise. Paper: those that gained least."
    )

    @model_validator(mode="after")
    def _are_apart(self) -> "CategoryGroups":
        names = self.content_sensitive + self.less_sensitive
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"content_sensitive and less_sensitive name '{twice}' twice. Name it once")
        return self

    @property
    def contrast(self) -> Contrast:
        """Of the two groups."""
        return between_categories(self.content_sensitive, self.less_sensitive)
