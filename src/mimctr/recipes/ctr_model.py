"""Build a CTR model from a config and a dataset, and load a trained one."""

from pathlib import Path

import torch
from jaxtyping import Int
from pydantic import ValidationError
from torch import Tensor

from mimctr.batch import FIRST_INDEX
from mimctr.data.dataset import CtrDataset
from mimctr.errors import RunError
from mimctr.files import read_json
from mimctr.recipes.ctr_config import Config, Ubm
from mimctr.serve.bundle import MANIFEST
from mimctr.ubm.bst import BST
from mimctr.ubm.ciubm import CiUBM, DenseHalf
from mimctr.ubm.content_module import ContentAwareInterest
from mimctr.ubm.dien import DIEN
from mimctr.ubm.din import DIN
from mimctr.ubm.embeddings import EmbeddingHalf, FieldSizes, trained_rows
from mimctr.ubm.extensions import Extensions
from mimctr.ubm.interface import UserBehaviorModel
from mimctr.ubm.mean import AvgPooling
from mimctr.ubm.sim import SIM
from mimctr.ubm.twin import TWIN
from mimctr.weights import load_tensors

UBMS: dict[Ubm, type[UserBehaviorModel]] = {
    "mean": AvgPooling,
    "din": DIN,
    "dien": DIEN,
    "bst": BST,
    "sim": SIM,
    "twin": TWIN,
}
RECORD = "model.json"
WEIGHTS = "model.safetensors"
BEFORE = {"content_width": 0}
"""Settings of models that were trained before there was a choice, where that is not today's default."""


def field_sizes(dataset: CtrDataset) -> FieldSizes:
    """Return the vocabulary sizes of every field of a dataset, by side."""
    fields = dataset.fields
    kinds = len(dataset.manifest.kinds)
    return {
        "item": fields.item,
        "user": fields.user,
        "query": fields.query,
        "context": fields.context,
        "behavior": {"kind": kinds + FIRST_INDEX} if kinds > 1 else {},
    }


def build_model(dataset: CtrDataset, config: Config, *, content_dim: int | None) -> CiUBM:
    """Return an untrained model for ``dataset``, initialized from ``config.seed``.

    Args:
        dataset: Whose vocabularies and training counts decide the tables.
        config: Settings.
        content_dim: Width of the content vectors; None = Base.
    """
    torch.manual_seed(config.seed)
    embedding = build_embedding(
        config,
        item_rows=trained_rows(_tensor(dataset.item_train_counts), min_count=config.min_count),
        user_rows=trained_rows(_tensor(dataset.user_train_counts), min_count=config.min_count),
        item_fields=_tensor(dataset.item_fields),
        fields=field_sizes(dataset),
        shard_above=config.shard_tables_above,
    )
    return CiUBM(embedding, build_dense(embedding, config, content_dim=content_dim))


def build_embedding(
    config: Config,
    *,
    item_rows: Int[Tensor, "items"],
    user_rows: Int[Tensor, "users"],
    item_fields: Int[Tensor, "items item_fields"],
    fields: FieldSizes,
    shard_above: int = 0,
) -> EmbeddingHalf:
    """Return fresh tables, as the config's user behavior model wants its rows."""
    ubm = UBMS[config.ubm]
    return EmbeddingHalf(
        item_rows=item_rows,
        user_rows=user_rows,
        item_fields=item_fields,
        fields=fields,
        embedding_dim=config.embedding_dim,
        field_dim=config.field_dim,
        dims=config.dims,
        hash_buckets=config.hash_buckets,
        unknown_rate=config.unknown_rate,
        lazy_above=config.lazy_rows_above,
        kinds_apart=ubm.takes_kinds_apart,
        draws_negatives=ubm.needs_negatives and config.auxiliary_weight > 0,
        shard_above=shard_above,
    )


def build_dense(embedding: EmbeddingHalf, config: Config, *, content_dim: int | None) -> DenseHalf:
    """Return the dense half that fits ``embedding``."""
    ubm = build_ubm(config, embedding.item_dim, num_kinds=embedding.num_kinds)
    content = None
    if content_dim is not None:
        content = ContentAwareInterest(
            id_width=ubm.width,
            dim=embedding.item_dim,
            content_dim=content_dim,
            interests=config.interests,
            scope=config.resolved_scope,
            missing_target=config.missing_target,
            drop_rate=config.content_drop_rate,
            content_width=config.content_width or None,
            extensions=build_extensions(config, content_dim=content_dim, dim=embedding.item_dim),
        )
    return DenseHalf(
        side_dim=embedding.user_dim + embedding.query_dim + embedding.context_dim,
        dim=embedding.item_dim,
        ubm=ubm,
        content=content,
        hidden_dims=config.hidden_dims,
        activation=config.activation,
        dropout=config.dropout,
        interest_norm=config.interest_norm,
        cross_layers=config.cross_layers,
        cross_rank=config.cross_rank or None,
        cross_structure=config.cross_structure,
    )


def build_ubm(config: Config, dim: int, *, num_kinds: int) -> UserBehaviorModel:
    """Return the user behavior model that ``config`` names, for rows of width ``dim`` and a vocabulary of kinds."""
    if config.ubm == "mean":
        return AvgPooling(dim)
    if config.ubm == "din":
        return DIN(dim, activation=config.din_activation, softmax=config.din_softmax, scale=config.din_scale)
    if config.ubm == "dien":
        return DIEN(
            dim,
            cell=config.dien_cell,
            attention=config.dien_attention,
            auxiliary=config.dien_auxiliary,
        )
    if config.ubm == "bst":
        return BST(
            dim,
            length=config.bst_length,
            num_heads=config.bst_num_heads,
            dropout=config.bst_dropout,
            pooling=config.bst_pooling,
        )
    if config.ubm == "sim":
        return SIM(
            dim,
            search=config.sim_search,
            k=config.sim_k,
            num_heads=config.sim_num_heads,
            attention_mix=config.attention_mix,
        )
    return TWIN(
        dim,
        num_kinds=num_kinds,
        k=config.twin_k,
        num_heads=config.twin_num_heads,
        attention_mix=config.attention_mix,
    )


def build_extensions(config: Config, *, content_dim: int, dim: int) -> Extensions | None:
    """Return the extensions of MIM+; None for every other variant."""
    if config.variant != "mim_plus":
        return None
    return Extensions(
        content_dim=content_dim,
        dim=dim,
        scalars=config.plus_scalars,
        num_tiers=config.plus_num_tiers,
        tier_dim=config.plus_tier_dim,
        softmax_temperature=config.plus_softmax_temperature or None,
        query=config.plus_query,
        target_dim=config.plus_target_dim,
    )


def load_model(folder: Path) -> CiUBM:
    """Return the trained model in ``folder``, in evaluation mode; the dataset is not needed.

    Raises:
        RunError: the folder holds no trained model, or a damaged one, or another version's.
    """
    record = read_json(folder / RECORD)
    tensors, _ = load_tensors(folder / WEIGHTS)
    try:
        config = Config.model_validate(BEFORE | record["config"])
        embedding = build_embedding(
            config,
            item_rows=tensors["embedding.item_rows"],
            user_rows=tensors["embedding.user_rows"],
            item_fields=tensors["embedding.item_fields"],
            fields=record["fields"],
        )
        model = CiUBM(embedding, build_dense(embedding, config, content_dim=record["content_dim"]))
        model.load_state_dict(tensors)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, ("config", *first["loc"])))
        again = "Run 'mimctr export' again." if (folder / MANIFEST).is_file() else "Train it again."
        raise RunError(
            f"{folder / RECORD}: {where}: {first['msg']}; it was made by another version of mimctr. {again}"
        ) from None
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise RunError(f"{folder}: its weights do not fit its {RECORD} ({reason}). Train it again.") from None
    return model.eval()


def _tensor(values: object) -> torch.Tensor:
    return torch.tensor(values)  # a copy: the dataset's arrays are memory-mapped and read-only
