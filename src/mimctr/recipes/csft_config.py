"""Settings of ``mimctr csft``."""

from typing import Literal

from pydantic import Field, model_validator

from mimctr.recipes.item_config import ItemConfig
from mimctr.recipes.tuning import TuningConfig


class Config(TuningConfig, ItemConfig):
    """Settings of ``mimctr csft``."""

    trainable: Literal["all", "heads"] = Field(
        "all", description="'heads' runs the towers once and trains heads and fusion on their vectors."
    )
    objective: Literal["contrastive", "pair_cross_entropy", "category_cross_entropy"] = Field(
        "contrastive",
        description="Paper: contrastive. The others are Table 4's: query against item, or the item's category.",
    )
    query: Literal["image", "item"] = Field(
        "image",
        description="'item': where pairs come from behaviors, the earlier item's h^MM asks in place of its picture.",
    )
    user_balance: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Pairs are drawn with weight (pairs of their user) to the power of -user_balance; 0: each in turn.",
    )
    pair_share: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Of the training pairs, drawn at random: how much is lost with fewer. mask_bought knows all.",
    )
    batch_size: int = Field(
        128,
        ge=2,
        description="Pairs per step, over all processes: their number changes no result. Paper: 1024 on each.",
    )
    tower_batch_size: int = Field(
        0,
        ge=0,
        description="Pictures, or titles, whose activations are held at one time; 0 for all. In pieces a step takes as "
        "little memory as one piece and about a third more time: each is run again for its gradient.",
    )
    num_memory_batches: int = Field(
        0,
        ge=0,
        description="Batches of the negative memory, k. Paper: 10; it wants towers that hardly move any more.",
    )
    memory_warmup_steps: int = Field(150, ge=0, description="Steps before the negative memory is used.")
    hard_negatives: bool = Field(True, description="Same-category negative for each pair, as in the paper.")
    mask_bought: bool = Field(
        True,
        description="What the query's user bought, or asked with, in any pair of the training part is no negative of "
        "it; false leaves out its own positive only. The paper is silent.",
    )
    temperature: float = Field(0.07, gt=0, description="Divides the cosine of Eq. (5), which prints none.")
    learn_temperature: bool = Field(False, description="Train the temperature too.")
    text_weight: float = Field(0.5, ge=0, description="alpha of Eq. (6). Paper: 0.5.")
    image_weight: float = Field(0.5, ge=0, description="beta of Eq. (6). Paper: 0.5.")
    drop_modality: float = Field(
        0.05, ge=0, lt=1, description="Share of items that lose picture or title in a step."
    )
    augment: float = Field(
        1.0,
        ge=0,
        description="Strength of random mirroring, moving, zooming and light while the towers train; 0 for none.",
    )
    num_steps: int = Field(250, ge=1, description="Most training steps.")
    evaluate_every: int = Field(50, ge=1, description="Steps between two evaluations on held-out pairs.")
    patience: int = Field(4, ge=1, description="Evaluations without a better one before training stops.")
    metric: Literal["recall@10", "recall@100", "mrr", "cosine_auc"] = Field(
        "recall@10",
        description="Held-out metric that early stopping watches; cosine_auc is that of the mean cosine of target and "
        "behaviors on validation impressions.",
    )
    tower_learning_rate: float = Field(1e-3, ge=0, description="Peak learning rate of the towers, AdamW.")
    head_learning_rate: float = Field(
        3e-3, gt=0, description="Peak learning rate of heads and fusion, AdamW."
    )
    weight_decay: float = Field(0.01, ge=0, description="Decoupled weight decay.")
    adapt_batch_norm: bool = Field(
        True, description="Let batch norm's statistics follow the trained towers; false for small batches."
    )
    start_pull: float = Field(
        0.0, ge=0, description="Weight of the squared distance of heads and fusion from the plain geometry."
    )
    num_pictures: int = Field(
        8,
        ge=0,
        description="Held-out pairs on neighbors.jpg, chosen at random by the seed; 0 for no picture.",
    )

    @property
    def drawn_negatives(self) -> tuple[Literal["category", "any"], ...]:
        """From where each pair's own negatives are drawn."""
        if self.objective == "pair_cross_entropy":
            return ("category", "any")
        return ("category",) if self.objective == "contrastive" and self.hard_negatives else ()

    @model_validator(mode="after")
    def _memory_is_read(self) -> "Config":
        if self.num_memory_batches and self.objective != "contrastive":
            raise ValueError(
                f"num_memory_batches: the objective {self.objective} reads no memory. Set it to 0"
            )
        return self

    @model_validator(mode="after")
    def _kept_vectors_stay_true(self) -> "Config":
        if self.keep_vectors and self.trainable != "heads":
            raise ValueError(
                "keep_vectors needs trainable = 'heads': trained towers say something new at every step"
            )
        return self

    @model_validator(mode="after")
    def _untrained_towers_are_not_tuned(self) -> "Config":
        fields = TuningConfig.model_fields
        tuned = [name for name, field in fields.items() if getattr(self, name) != field.default]
        if tuned and self.trainable == "heads":
            raise ValueError(f"{', '.join(tuned)}: trainable = 'heads' trains no towers. Set it to 'all'")
        return self
