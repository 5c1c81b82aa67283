"""Settings of ``mimctr train``."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator

from mimctr.errors import ConfigError
from mimctr.ubm.activations import ActivationName
from mimctr.ubm.bst import TokenPooling
from mimctr.ubm.ciubm import NormName
from mimctr.ubm.content_interest import ContentScope, InterestName
from mimctr.ubm.content_module import MissingTarget
from mimctr.ubm.cross import CrossStructure
from mimctr.ubm.dien import AttentionName, AuxiliaryName, CellName
from mimctr.ubm.sim import SearchName

Ubm = Literal["mean", "din", "dien", "bst", "sim", "twin"]
Variant = Literal["base", "mim", "mim_plus", "mim_permuted", "untrained_cosine"]
TWO_STAGE: tuple[Ubm, ...] = ("sim", "twin")
"""User behavior models that search before they attend."""
LONGEST_SCOPE_ALL = 100
"""Behaviors up to which the content scope ``auto`` means ``all`` (paper.md, 2b)."""


class Config(BaseModel):
    """Settings of ``mimctr train``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ubm: Ubm = Field("sim", description="User behavior model. Paper's default: SIM.")
    variant: Variant = Field(
        "mim",
        description="base: ID interest only; mim: Eq. (7) to (9); mim_plus: and the extensions; mim_permuted: mim on "
        "vectors permuted within category (leak control); untrained_cosine: mean cosine of target and history.",
    )
    encoder: str = Field(
        "none", description="Label of the encoder that made the vectors; goes into the results."
    )
    label: str = Field(
        "",
        pattern=r"^[^:]*$",
        description="Behind the variant in the results, where several models of one variant differ in a setting.",
    )
    seed: int = Field(
        0, ge=0, description="Of initial weights, data order, dropout and everything else drawn."
    )

    max_length: int = Field(50, ge=1, description="Newest behaviors that a model sees.")
    batch_size: int = Field(1024, ge=1, description="Impressions per step. Paper: 1024.")
    learning_rate: float = Field(0.005, gt=0, description="Of Adam. Paper: 0.005.")
    schedule: Literal["constant", "cosine"] = Field(
        "cosine",
        description="Of the learning rate: warm-up and half a cosine to zero, or constant. The paper is silent.",
    )
    warmup_share: float = Field(
        0.05, ge=0, lt=1, description="Steps of the warm-up, where there is a schedule."
    )
    epochs: int = Field(1, ge=1, description="Passes over the training part at most.")
    evaluations_per_epoch: int = Field(4, ge=1, description="Looks at the validation part per epoch.")
    patience: int = Field(4, ge=1, description="Looks without a better validation AUC before training stops.")
    embedding_l2: float = Field(
        1e-5, ge=0, description="L2 penalty of the embedding tables, part of Adam's gradient."
    )
    embedding_l2_scope: Literal["all", "batch"] = Field(
        "all",
        description="Rows that embedding_l2 is for: all, or those of the batch, each divided by the number of training "
        "impressions that it appears in (DIN's mini-batch aware regularization; its paper: 0.01).",
    )
    dense_l2: float = Field(0.0, ge=0, description="L2 penalty of all other weights.")
    max_gradient_norm: float = Field(
        0.0,
        ge=0,
        description="Longest gradient of the loss, over all weights; a longer one is scaled down to it. 0 = any.",
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of hidden units left out in training.")
    unknown_rate: float = Field(
        0.02, ge=0, lt=1, description="Users, targets, texts made unknown in training."
    )
    auxiliary_weight: float = Field(
        1.0,
        ge=0,
        description="Of the user behavior model's own loss (soft SIM, DIEN: alpha); at 0 DIEN draws no negatives.",
    )
    device: str = Field("auto", description="'auto' takes CUDA where there is a GPU, else the CPU.")
    bf16: bool = Field(
        False,
        description="Matrix products of training in bfloat16, where the processor has them; scores are float32.",
    )
    checkpoint_seconds: float = Field(60.0, ge=0, description="Least time between two checkpoints.")
    tensorboard: bool = Field(
        False, description="Write metrics.jsonl as event files too (needs mimctr[tensorboard])."
    )

    embedding_dim: int = Field(
        16, ge=1, description="Width of user, item and query text. The paper gives none."
    )
    field_dim: int = Field(8, ge=1, description="Width of every other field.")
    shard_tables_above: int = Field(
        0,
        ge=0,
        description="Of several processes, each holds a part of every table with more rows than these; 0 = of none. "
        "Needs PyTorch 2.5.",
    )
    lazy_rows_above: int = Field(
        1_000_000,
        ge=0,
        description="Larger tables are updated by row: only what a batch names moves, and is penalized.",
    )
    dims: dict[str, PositiveInt] = Field({}, description="Width by table name, where it is another one.")
    min_count: int = Field(1, ge=1, description="Rarer users and items share the unknown row.")
    hash_buckets: dict[str, PositiveInt] = Field(
        {},
        description="Rows that the entries of a table share, by table name, in place of a row each. What is rarer than "
        "min_count, or not in the training part, is not hashed: it stays unknown, and takes no known entry's row.",
    )
    hidden_dims: tuple[PositiveInt, ...] = Field(
        (256, 128, 64), min_length=1, description="Of the deep network."
    )
    activation: ActivationName = Field("relu", description="Of the deep network.")
    interest_norm: NormName = Field("none", description="How h_B is normalized before the deep network.")
    cross_layers: int = Field(0, ge=0, description="Cross layers of DCN-v2 in the deep network; 0 = none.")
    cross_rank: int = Field(0, ge=0, description="Rank of the cross layers' matrices; 0 = full.")
    cross_structure: CrossStructure = Field(
        "stacked", description="Cross layers before the hidden layers, or beside them (parallel)."
    )

    din_activation: ActivationName = Field(
        "sigmoid", description="Of DIN's activation unit. DIN's paper: dice."
    )
    din_softmax: bool = Field(
        False, description="Normalize DIN's weights, as its authors' code does; its paper does not."
    )
    din_scale: bool = Field(
        False, description="Divide DIN's relevance by sqrt(dim), as its authors' code does."
    )
    dien_cell: CellName = Field(
        "paper", description="DIEN's AUGRU, as in its paper or as in its authors' code."
    )
    dien_attention: AttentionName = Field(
        "bilinear", description="DIEN's attention. Paper: bilinear; authors' code: activation_unit."
    )
    dien_auxiliary: AuxiliaryName = Field(
        "inner_product",
        description="Logit of DIEN's auxiliary loss. Paper: inner_product; authors' code: mlp.",
    )
    bst_length: int = Field(20, ge=1, description="Newest behaviors that BST sees. Paper: 20.")
    bst_num_heads: int = Field(8, ge=1, description="Attention heads of BST. Paper: 8.")
    bst_dropout: float = Field(0.0, ge=0, lt=1, description="Of BST's block. Paper: 0.2.")
    bst_pooling: TokenPooling = Field(
        "concatenation", description="What the deep network reads of BST's tokens. Paper: concatenation."
    )
    sim_search: SearchName = Field(
        "soft",
        description="SIM's GSU: same category, inner product, or (MIM+ only) content's cosine, as in MUSE.",
    )
    sim_k: int = Field(20, ge=1, description="Behaviors that SIM's GSU keeps.")
    sim_num_heads: int = Field(2, ge=1, description="Attention heads of SIM's ESU.")
    twin_k: int = Field(20, ge=1, description="Behaviors that TWIN's GSU keeps. Paper: 100.")
    twin_num_heads: int = Field(4, ge=1, description="Attention heads of TWIN. Paper: 4.")
    attention_mix: bool = Field(
        False,
        description="MIM+ only: content's cosine takes part in the attention of SIM's ESU and of TWIN (MUSE).",
    )

    interests: tuple[InterestName, ...] = Field(
        ("id", "content", "fusion"),
        min_length=1,
        description="Parts of Eq. (9); fewer for an ablation (Table 5).",
    )
    content_scope: Literal["auto", "all", "retrieved"] = Field(
        "auto",
        description="Behaviors in Eq. (7) and (8): all, or those that the user behavior model kept; auto: all, but "
        "what the GSU of SIM or TWIN kept where max_length is above 100.",
    )
    content_width: int = Field(
        24,
        ge=0,
        description="Width that a learned matrix brings a wider content interest to, before Eq. (9). Paper: 0, none.",
    )
    missing_target: MissingTarget = Field("learned", description="Vector of a target that has none.")
    content_drop_rate: float = Field(
        0.03, ge=0, lt=1, description="Targets that lose their vector in training."
    )

    plus_scalars: bool = Field(True, description="MIM+: mean and largest relevance, log of the count.")
    plus_num_tiers: int = Field(20, ge=0, description="MIM+: tiers of the histogram of relevances; 0 = none.")
    plus_tier_dim: int = Field(
        0, ge=0, description="MIM+: width of a tier's embedding; 0 = log of its count."
    )
    plus_softmax_temperature: float = Field(
        0.1, ge=0, description="MIM+: softmax-weighted interests; 0 = none."
    )
    plus_query: bool = Field(
        True, description="MIM+: cosines of the query's vector with target and behaviors."
    )
    plus_target_dim: int = Field(
        16, ge=0, description="MIM+: width of the target's projected vector; 0 = none."
    )

    @field_validator("interests")
    @classmethod
    def _each_once(cls, interests: tuple[InterestName, ...]) -> tuple[InterestName, ...]:
        if len(set(interests)) < len(interests):
            raise ValueError("Input should name each interest once")
        return interests

    @property
    def resolved_scope(self) -> ContentScope:
        """``content_scope`` with ``auto`` decided by ``ubm`` and ``max_length``."""
        if self.content_scope != "auto":
            return self.content_scope
        searches = self.ubm in TWO_STAGE and self.max_length > LONGEST_SCOPE_ALL
        return "retrieved" if searches else "all"


def check_settings(config: Config) -> None:
    """Refuse settings that do not go together, each of which is right by itself.

    Raises:
        ConfigError: ``sim_search`` or ``attention_mix`` lets a user behavior model look at content in a variant other
            than MIM+, whose row would say too little; something is set for cross layers, and there are none.
    """
    if not config.cross_layers and (config.cross_rank or config.cross_structure != "stacked"):
        idle = f"cross_rank = {config.cross_rank}" if config.cross_rank else "cross_structure = 'parallel'"
        raise ConfigError(f"{idle}: there are no cross layers. Set cross_layers, too, or leave it out.")
    asked = []
    if config.ubm == "sim" and config.sim_search == "content":
        asked.append("sim_search = 'content'")
    if config.ubm in TWO_STAGE and config.attention_mix:
        asked.append("attention_mix = true")
    if asked and config.variant not in ("mim_plus", "untrained_cosine"):
        raise ConfigError(
            f"{', '.join(asked)}: an extension, which '{config.ubm}' has in the variant 'mim_plus' alone, not in "
            f"'{config.variant}'. Train 'mim_plus', or leave the setting as it is by default."
        )
