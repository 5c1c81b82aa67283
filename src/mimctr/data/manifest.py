"""manifest.json: what a prepared dataset is, for people and programs."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mimctr.data.split import Split
from mimctr.errors import RunError
from mimctr.files import hash_json, read_json

SCHEMA_VERSION = 1


class Fields(BaseModel):
    """Vocabulary size of every categorical field (0 and 1 included), in the order of the columns."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    item: dict[str, int] = Field(description="Columns of item_fields; the first is 'category'.")
    user: dict[str, int] = Field(description="Columns of user_fields; the first is 'user'.")
    query: dict[str, int] = Field(description="Columns of query_fields; the first is 'query_text'.")
    context: dict[str, int] = Field(description="Columns of context_fields; there may be none.")


class Manifest(BaseModel):
    """Everything about a dataset that is not an array."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = Field(description="Layout of the folder; this code reads exactly one.")
    counts: dict[str, int] = Field(
        description="Items, users, behaviors, pairs ...; impressions in all and by part."
    )
    fields: Fields
    kinds: list[str] = Field(description="Kinds of behavior; the first has index 2.")
    train_start: int = Field(
        description="First second of the training part, UTC; earlier impressions warm up."
    )
    validation_start: int = Field(description="First second of the validation part, UTC.")
    test_start: int = Field(description="First second of the test part, UTC.")
    test_end: int = Field(description="First second after the test part, UTC.")
    behaviors_from: str = Field(
        description="'behaviors', or 'impressions' (their clicks) without such a table."
    )
    pair_rule: str = Field(description="Where the interest pairs of C-SFT come from, in words.")
    source_hash: str = Field(description="SHA-256 of the raw tables and of the images they name.")
    problem_counts: dict[str, int] = Field(
        description="Rows (or values) by rule that was broken and tolerated."
    )
    checksums: dict[str, int] = Field({}, description="CRC-32 of every array and table, by relative name.")

    @property
    def split(self) -> Split:
        """The boundaries of the parts."""
        return Split(self.train_start, self.validation_start, self.test_start, self.test_end)

    def data_hash(self) -> str:
        """Return the hash of what the dataset was made of, and how it is split; the same on every machine."""
        return hash_json(
            self.model_dump(mode="json", exclude={"schema_version", "problem_counts", "checksums"})
        )

    def training_hash(self) -> str:
        """Return the hash of what a CTR model is trained on and looks its values up in: tables, split, vocabularies."""
        names = {
            "source_hash",
            "train_start",
            "validation_start",
            "test_start",
            "fields",
            "kinds",
            "behaviors_from",
        }
        return hash_json(self.model_dump(mode="json", include=names))

    def refuse_other_training(self, model: Path, trained_with: str | None) -> None:
        """See to it that a model can score this dataset.

        Args:
            model: Its folder, for the message.
            trained_with: The ``training_hash`` that it names; None: it names none, as before there was one.

        Raises:
            RunError: it was trained on another split of the tables, or with other vocabularies.
        """
        if trained_with not in (None, self.training_hash()):
            raise RunError(
                f"{model}: it was trained on another split of these tables, or with another min_count; values of "
                "fields have other indices here. Name the dataset of its training."
            )

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read ``manifest.json`` in ``folder``.

        Raises:
            RunError: it is missing, damaged or of another schema version.
        """
        path = folder / "manifest.json"
        if not path.is_file():
            raise RunError(
                f"{folder}: holds no dataset ({path.name} is missing). Run 'mimctr prepare' first."
            )
        values = read_json(path)
        version = values.get("schema_version") if isinstance(values, dict) else None
        if version != SCHEMA_VERSION:
            raise RunError(
                f"{path}: schema version {version}, this program reads {SCHEMA_VERSION}. Prepare it again."
            )
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            raise RunError(
                f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}. Prepare it again."
            ) from None
