"""Settings of a reproduction, and what can be asked of it."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from mimctr.files import hash_path
from mimctr.recipes import cost as cost_recipe
from mimctr.recipes import embed as embed_recipe
from mimctr.recipes import evaluate as evaluate_recipe
from mimctr.recipes import off_policy as off_policy_recipe
from mimctr.recipes import online as online_recipe
from mimctr.recipes import train as train_recipe
from mimctr.recipes.ctr_config import Ubm
from mimctr.recipes.ctr_plan import CtrModel
from mimctr.recipes.encoder_recipe import Recipe as EncoderRecipe
from mimctr.recipes.encoder_rows import AFTER_DMA, MIM, ROWS, Row

EXPERIMENTS = {
    "table 1": "the data",
    "table 2": "six user behavior models, Base and Base+MIM",
    "table 3": "pre-training",
    "table 4": "signal and loss of C-SFT",
    "table 5": "ablations",
    "table 6": "cost, with the center and without it",
    "figure 5": "foundation models",
    "figure 6": "gain by item age",
    "table 7": "gain by category",
    "online": "clicks on rankings, simulated or by propensities",
    "extensions": "what is added to Base+MIM",
    "pairs": "gain by number of purchase pairs",
}
"""What can be asked for, in the order in which it is made and shown."""


class Recipe(EncoderRecipe):
    """The paper's evaluation on one dataset, as read from a TOML file."""

    embed: embed_recipe.Config = embed_recipe.Config()
    train: train_recipe.Config = Field(train_recipe.Config(), description="What all CTR models share.")
    evaluate: evaluate_recipe.Config = evaluate_recipe.Config(num_pictures=0)
    cost: cost_recipe.Config = cost_recipe.Config()
    online: online_recipe.Config = online_recipe.Config()
    off_policy: off_policy_recipe.Config = off_policy_recipe.Config()
    ubms: list[Ubm] = Field(
        ["mean", "din", "dien", "bst", "sim", "twin"],
        min_length=1,
        description="User behavior models of Table 2. Paper: these six.",
    )
    ubm: Ubm = Field("sim", description="That of all other tables. Paper: SIM.")
    models_grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(
        {},
        description="Settings of [train] with the values to try. Every model, Base too, takes what is best on "
        "validation with the first seed.",
    )
    pair_shares: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
        [0.25, 0.5], description="Of the training pairs, with which C-SFT is made once more."
    )
    num_workers: int = Field(
        0,
        ge=0,
        description="CTR models trained at a time; 0: one a core, at most 8, or one where there is a GPU.",
    )
    num_pictures: int = Field(6, ge=1, description="Sheets of each gallery of pictures.")
    quick: list[str] = Field(
        [], description="Settings, as behind --set, that --quick changes: a first look in less time."
    )

    @field_validator("ubms", "pair_shares")
    @classmethod
    def _each_is_named_once(cls, values: list[Any]) -> list[Any]:
        if len(set(values)) < len(values):
            raise ValueError("Input should name each once")
        return values

    def settings(self) -> dict[str, Any]:
        """Return the settings that decide numbers where they are not the default, as ``--set`` names them.

        Of weights in a folder it is the hash of what they are. Without seeds, devices and what decides the dataset.
        """
        elsewhere = {"name", "seeds", "source", "prepare", "quick", "num_workers", "num_pictures"}
        given = _dotted(self.model_dump(mode="json", exclude=elsewhere, exclude_defaults=True))
        models = {"foundation": self.foundation} | {
            f"others.{name}": one for name, one in self.others.items()
        }
        for name, model in models.items():
            for kind in ("image_weights", "text_weights"):
                weights = getattr(model, kind)
                if weights is not None and weights.exists():  # else a name of the hub
                    given[f"{name}.{kind}"] = hash_path(weights)
        return {name: value for name, value in given.items() if not name.endswith(".device")}

    @model_validator(mode="after")
    def _the_main_ubm_is_in_table_2(self) -> "Recipe":
        if self.ubm not in self.ubms:
            raise ValueError(f"ubm = '{self.ubm}' is not among ubms. Name it there too")
        return self


def _dotted(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings in one level, with the names of their tables in front."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= (
            _dotted(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
        )
    return flat


def share_row(share: float) -> Row:
    """Return MIM's encoder trained with a share of the pairs; its name says the percents, exactly."""
    percents = (100 * Decimal(repr(share))).normalize()
    return Row(f"pairs_{percents:f}", {}, "dma", {"pair_share": share})


def rows_of(recipe: Recipe) -> dict[str, list[str]]:
    """Return the names of the encoder rows that each experiment needs."""
    by_table = {number: [row.name for row in ROWS if number in row.labels] for number in (3, 4, 5)}
    return {
        "table 2": [MIM],
        "table 3": by_table[3],
        "table 4": by_table[4],
        "table 5": by_table[5],
        "table 6": [MIM],
        "figure 5": [MIM, *(f"{MIM}, {name}" for name in recipe.others)],
        "figure 6": [MIM],
        "table 7": [MIM],
        "online": [MIM],
        "extensions": [MIM],
        "pairs": [AFTER_DMA, MIM, *(share_row(share).name for share in recipe.pair_shares)],
    }


_NOTHING_MORE = {
    "plus_scalars": False,
    "plus_num_tiers": 0,
    "plus_softmax_temperature": 0.0,
    "plus_query": False,
    "plus_target_dim": 0,
}
_EXTENSIONS: dict[str, dict[str, Any]] = {
    "scalars": {"plus_scalars": True},
    "SimTier": {"plus_num_tiers": 20},
    "softmax": {"plus_softmax_temperature": 0.1},
    "query": {"plus_query": True},
    "target vector": {"plus_target_dim": 16},
}
_OF_SEARCH: dict[str, dict[str, Any]] = {
    "search by content": {"sim_search": "content"},
    "MUSE attention": {"attention_mix": True},
}


def extension_models(recipe: Recipe) -> list[CtrModel]:
    """Return MIM+ with one extension each, then with all of the recipe's."""
    wanted = _EXTENSIONS | (_OF_SEARCH if recipe.ubm == "sim" else {})
    single = [
        CtrModel(recipe.ubm, "mim_plus", MIM, label, "", tuple((_NOTHING_MORE | changed).items()))
        for label, changed in wanted.items()
    ]
    return [*single, CtrModel(recipe.ubm, "mim_plus", MIM)]


def interest_models(recipe: Recipe) -> list[CtrModel]:
    """Return Base+MIM without each of the interests of Eq. (9)."""
    interests = ("id", "content", "fusion")
    kept = {name: tuple(other for other in interests if other != name) for name in interests}
    return [
        CtrModel(recipe.ubm, "mim", MIM, "", f"without_{name}", (("interests", kept[name]),))
        for name in interests
    ]
