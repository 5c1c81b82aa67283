"""The embedding half of a CTR model: indices to rows.

Training and offline scoring read the rows from the tables here. A scoring service fetches the same rows from a
parameter store, by the same table names and row numbers, and needs nothing of this half.
"""

import difflib
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mimctr.batch import FIRST_INDEX, PADDING, UNKNOWN, CtrBatch
from mimctr.errors import ConfigError, DataError
from mimctr.ubm.interface import History
from mimctr.ubm.lookup import distinct, spread
from mimctr.ubm.sharded import ShardedTable, is_split

INITIAL_STD = 0.01
"""Of the tables' weights."""
FieldSizes = Mapping[str, Mapping[str, int]]
"""Side (one of ``SIDES``) -> field -> vocabulary size, padding and unknown included."""


class Rows(NamedTuple):
    """Everything the dense half gets for a batch, content apart. A row is an entity's fields, concatenated.

    Of one user's candidates, what does not depend on the candidate stands here once.
    """

    user: Float[Tensor, "#batch user"]
    query: Float[Tensor, "#batch query"]
    context: Float[Tensor, "#batch context"]
    target: Float[Tensor, "batch dim"]
    behaviors: Float[Tensor, "#batch length dim"]
    mask: Bool[Tensor, "#batch length"]
    time_gaps: Int[Tensor, "#batch length"]
    same_category: Bool[Tensor, "batch length"]
    kinds: Int[Tensor, "#batch length"]
    negatives: Float[Tensor, "batch length dim"] | None = None

    @property
    def history(self) -> History:
        """What a user behavior model sees."""
        return History(
            self.behaviors, self.mask, self.time_gaps, self.same_category, self.kinds, self.negatives
        )


class Fetched(NamedTuple):
    """One user, and many candidates: rows from a parameter store, and indices of what is looked up beside them."""

    user: Float[Tensor, "1 user"]
    """Of :meth:`EmbeddingHalf.user_vectors`."""
    candidates: Float[Tensor, "candidates dim"]
    """Of :meth:`EmbeddingHalf.item_vectors`."""
    categories: Int[Tensor, "candidates"]
    behaviors: Float[Tensor, "1 length dim"]
    """Of :meth:`EmbeddingHalf.item_vectors`; zero where ``mask`` is not set."""
    behavior_categories: Int[Tensor, "1 length"]
    kinds: Int[Tensor, "1 length"]
    time_gaps: Int[Tensor, "1 length"]
    mask: Bool[Tensor, "1 length"]
    user_fields: Int[Tensor, "1 user_fields"]
    """All but the user itself."""
    query_fields: Int[Tensor, "1 query_fields"]
    context_fields: Int[Tensor, "1 context_fields"]


def trained_rows(counts: Int[Tensor, "entries"], *, min_count: int) -> Int[Tensor, "entries"]:
    """Return the table row of each index: rows from 2 on in the order of the indices, 1 for what is too rare.

    Args:
        counts: Occurrences in the training part, by index; the first two (padding, unknown) are not looked at.
        min_count: An entry with fewer occurrences shares the *unknown* row. At least 1, so that every row is trained.
    """
    kept = counts >= max(min_count, 1)
    kept[:FIRST_INDEX] = False
    rows = torch.where(kept, kept.cumsum(0) + FIRST_INDEX - 1, UNKNOWN)
    rows[PADDING] = PADDING
    return rows


def bucket_rows(rows: Int[Tensor, "*shape"], *, num_buckets: int) -> Int[Tensor, "*shape"]:
    """Return the rows of a table in which entries share ``num_buckets`` rows; padding and unknown keep their own.

    Entries are numbered without gaps, so the remainder of the number is a hash as even as can be, and a parameter store
    in any language has it too.
    """
    return torch.where(rows < FIRST_INDEX, rows, (rows - FIRST_INDEX) % num_buckets + FIRST_INDEX)


class EmbeddingHalf(nn.Module):
    """Embedding tables, one per field, shared between target and behaviors.

    Index 0 is padding: its row is zero and stays zero. Index 1 is *unknown*. The unknown user, item and query text are
    trained by replacing a small share of those in training, so that the id of a new one is not a random row. No other
    field's is trained but where the dataset's training part has unknown values (``min_count`` of ``mimctr prepare``).

    Args:
        item_rows: Table row of each ``item_index`` (:func:`trained_rows`).
        user_rows: Table row of each user index.
        item_fields: Fields of each ``item_index``; column 0 is the category. Kept here, so that a batch carries
            nothing but item indices.
        fields: Vocabulary sizes. The first user field is the user itself; the first query field the query's text.
        embedding_dim: Width of users, items and query texts. The paper does not give it.
        field_dim: Width of every other field.
        dims: Width by table name, where it is another one. A behavior's fields are as wide as an item.
        hash_buckets: Rows that a table's entries share (:func:`bucket_rows`), by table name. Not for a behavior's.
        unknown_rate: Share of users, targets and query texts replaced by *unknown* in training.
        lazy_above: A table of more rows has sparse gradients: of the rows that a batch names, and no others.
        kinds_apart: Leave out of a behavior's row what was done.
        draws_negatives: In training, draw an item that training knows for each behavior, never the behavior's own.
        shard_above: Of several processes, each holds a part of every table with more rows; 0 = of none.

    Raises:
        ConfigError: ``dims`` or ``hash_buckets`` name a table that is not there.
        DataError: ``draws_negatives``, and training knows fewer than two items.
    """

    item_rows: Tensor
    user_rows: Tensor
    item_fields: Tensor
    known_items: Tensor

    def __init__(
        self,
        *,
        item_rows: Int[Tensor, "items"],
        user_rows: Int[Tensor, "users"],
        item_fields: Int[Tensor, "items item_fields"],
        fields: FieldSizes,
        embedding_dim: int = 16,
        field_dim: int = 8,
        dims: Mapping[str, int] | None = None,
        hash_buckets: Mapping[str, int] | None = None,
        unknown_rate: float = 0.02,
        lazy_above: int = 1_000_000,
        kinds_apart: bool = False,
        draws_negatives: bool = False,
        shard_above: int = 0,
    ) -> None:
        super().__init__()
        self.register_buffer("item_rows", item_rows)
        self.register_buffer("user_rows", user_rows)
        self.register_buffer("item_fields", item_fields)
        self.unknown_rate = unknown_rate
        self.draws_negatives = draws_negatives
        self.hash_buckets = dict(hash_buckets or {})
        known = (item_rows >= FIRST_INDEX).nonzero().squeeze(1)
        if draws_negatives and len(known) < 2:
            raise DataError(
                f"training knows {len(known)} items: this model draws others beside each, and needs two."
            )
        self.register_buffer("known_items", known, persistent=False)
        self.num_kinds = fields.get("behavior", {}).get("kind", 0)
        if kinds_apart:
            fields = {**fields, "behavior": {}}
        self.names = {side: [table_name(side, field) for field in fields.get(side, {})] for side in SIDES}
        sizes = {
            table_name(side, field): size for side in SIDES for field, size in fields.get(side, {}).items()
        }
        sizes["item"] = _num_rows(item_rows)
        sizes["user"] = _num_rows(user_rows)
        own_width = [name for name in sizes if name not in self.names["behavior"]]
        _refuse_unknown_tables("dims", dims or {}, own_width)
        _refuse_unknown_tables("hash_buckets", self.hash_buckets, own_width)
        for name, num_buckets in self.hash_buckets.items():
            sizes[name] = min(sizes[name], FIRST_INDEX + num_buckets)
        widths = dict.fromkeys(sizes, field_dim) | dict.fromkeys(
            ("item", "user", "query_text"), embedding_dim
        )
        widths |= dims or {}
        self.item_dim = widths["item"] + sum(widths[name] for name in self.names["item"])
        self.user_dim = sum(widths[name] for name in self.names["user"])
        self.query_dim = sum(widths[name] for name in self.names["query"])
        self.context_dim = sum(widths[name] for name in self.names["context"])
        widths |= dict.fromkeys(self.names["behavior"], self.item_dim)
        self.tables = nn.ModuleDict(
            {
                name: _table(size, widths[name], lazy_above=lazy_above, shard_above=shard_above)
                for name, size in sizes.items()
            }
        )

    def forward(self, batch: CtrBatch) -> Rows:
        """Return the rows of a batch; ``batch.content`` is not looked at."""
        users = torch.cat([self.user_rows[batch.user_fields[:, :1]], batch.user_fields[:, 1:]], dim=1)
        return Rows(
            user=self._fields("user", self._forget_first(users)),
            query=self._fields("query", self._forget_first(batch.query_fields)),
            context=self._fields("context", batch.context_fields),
            target=self._items(batch.target, self._forget(self.item_rows[batch.target])),
            behaviors=self._behaviors(batch, batch.behaviors),
            mask=batch.mask,
            time_gaps=batch.time_gaps,
            same_category=self._same_category(batch.target, batch.behaviors) & batch.mask,
            kinds=batch.kinds,
            negatives=self._behaviors(batch, self._others(batch.behaviors))
            if self.draws_negatives and self.training
            else None,
        )

    def of_fetched(self, fetched: Fetched) -> Rows:
        """Return the rows of one user's many candidates; what they share stands there once."""
        one = fetched
        behaviors = one.behaviors
        for name in self.names["behavior"]:
            behaviors = behaviors + self.tables[name](one.kinds)
        user = torch.cat([one.user, self._fields("user", one.user_fields, first=1)], dim=-1)
        return Rows(
            user=user,
            query=self._fields("query", one.query_fields),
            context=self._fields("context", one.context_fields),
            target=one.candidates,
            behaviors=behaviors,
            mask=one.mask,
            time_gaps=one.time_gaps,
            same_category=_same_known(one.categories, one.behavior_categories) & one.mask,
            kinds=one.kinds,
        )

    def item_vectors(self, index: Int[Tensor, "items"]) -> Float[Tensor, "items dim"]:
        """Return the rows of items as a parameter store holds them: of each item, and of its fields."""
        return self._items(index, self.item_rows[index])

    def user_vectors(self, index: Int[Tensor, "users"]) -> Float[Tensor, "users dim"]:
        """Return the rows of users as a parameter store holds them: of the user itself, without other fields."""
        return self._look_up("user", self.user_rows[index])

    def named_rows(self, batch: CtrBatch) -> dict[str, Int[Tensor, "batch named"]]:
        """Return the rows of each table that each impression names, repeats included; PADDING where nothing is.

        Rows are those of the batch's own indices: neither what is forgotten in training nor drawn negatives count.
        """
        items = torch.cat([batch.target.unsqueeze(1), batch.behaviors], dim=1)
        users = batch.user_fields.clone()
        users[:, :1] = self.user_rows[users[:, :1]]
        sides = {
            "item": self.item_fields[items],
            "user": users.unsqueeze(1),
            "query": batch.query_fields.unsqueeze(1),
            "context": batch.context_fields.unsqueeze(1),
            "behavior": batch.kinds.unsqueeze(-1),
        }
        named = {"item": self.bucketed("item", self.item_rows[items])}
        for side, rows in sides.items():
            for column, name in enumerate(self.names[side]):
                named[name] = self.bucketed(name, rows[..., column]).long()
        return named

    def _same_category(
        self, targets: Int[Tensor, "batch"], behaviors: Int[Tensor, "batch length"]
    ) -> Bool[Tensor, "batch length"]:
        category = self.item_fields[:, 0]
        return _same_known(category[targets], category[behaviors])

    def bucketed(self, name: str, rows: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
        """Return the rows of table ``name`` that hold those entries."""
        num_buckets = self.hash_buckets.get(name)
        return rows if num_buckets is None else bucket_rows(rows, num_buckets=num_buckets)

    def _others(self, items: Int[Tensor, "batch length"]) -> Int[Tensor, "batch length"]:
        """Return an item that training knows in place of each, never the same."""
        count = len(self.known_items)
        drawn = torch.randint(count, items.shape, device=items.device)
        return torch.where(
            self.known_items[drawn] == items, self.known_items[(drawn + 1) % count], self.known_items[drawn]
        )

    def _behaviors(
        self, batch: CtrBatch, items: Int[Tensor, "batch length"]
    ) -> Float[Tensor, "batch length dim"]:
        """Return the rows of ``items``, as if the batch's behaviors had been about them."""
        named = self.names["behavior"]
        if not named:
            where = distinct(items)
            return spread(self._items(where.values, self.item_rows[where.values]), where)
        where = distinct(items * self.num_kinds + batch.kinds)
        item, kind = where.values // self.num_kinds, where.values % self.num_kinds
        rows = self._items(item, self.item_rows[item])
        for name in named:
            rows = rows + self.tables[name](kind)
        return spread(rows, where)

    def _items(self, index: Int[Tensor, "*shape"], row: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape dim"]:
        fields = self.item_fields[index]
        parts = [self._look_up("item", row)]
        parts += [self._look_up(name, fields[..., column]) for column, name in enumerate(self.names["item"])]
        return torch.cat(parts, dim=-1)

    def _fields(
        self, side: str, index: Int[Tensor, "batch fields"], *, first: int = 0
    ) -> Float[Tensor, "batch dim"]:
        """Return the rows of one side's fields from the ``first`` on."""
        empty = torch.zeros(len(index), 0, device=index.device)
        parts = [
            self._look_up(name, index[:, column]) for column, name in enumerate(self.names[side][first:])
        ]
        return torch.cat([empty, *parts], dim=-1)

    def _look_up(self, name: str, rows: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape dim"]:
        return self.tables[name](self.bucketed(name, rows))

    def _forget_first(self, index: Int[Tensor, "batch fields"]) -> Int[Tensor, "batch fields"]:
        if index.shape[1] == 0:
            return index
        return torch.cat([self._forget(index[:, 0]).unsqueeze(1), index[:, 1:]], dim=1)

    def _forget(self, row: Int[Tensor, "batch"]) -> Int[Tensor, "batch"]:
        if not self.training or self.unknown_rate == 0:
            return row
        forgotten = torch.rand(len(row), device=row.device) < self.unknown_rate
        return torch.where(forgotten & (row != PADDING), UNKNOWN, row)


SIDES = ("item", "user", "query", "context", "behavior")


def table_name(side: str, field: str) -> str:
    """Return the name of a field's table: ``item_category``, ``user``, ``query_text``."""
    return field if field == side or field.startswith(f"{side}_") else f"{side}_{field}"


def _refuse_unknown_tables(setting: str, named: Iterable[str], tables: Collection[str]) -> None:
    for name in named:
        if name not in tables:
            close = difflib.get_close_matches(name, tables, n=1, cutoff=0.5)
            advice = f"Did you mean '{close[0]}'?" if close else f"Tables: {', '.join(tables)}."
            raise ConfigError(f"{setting}: '{name}' is no table of this model. {advice}")


def _num_rows(rows: Int[Tensor, "entries"]) -> int:
    return max(int(rows.max()), UNKNOWN) + 1


def _table(size: int, dim: int, *, lazy_above: int, shard_above: int) -> nn.Embedding | ShardedTable:
    if is_split(size, shard_above=shard_above):
        return ShardedTable(size, dim, std=INITIAL_STD)
    table = nn.Embedding(size, dim, padding_idx=PADDING, sparse=size > lazy_above)
    nn.init.normal_(table.weight, std=INITIAL_STD)
    with torch.no_grad():
        table.weight[PADDING] = 0
    return table


def _same_known(
    one: Int[Tensor, "batch"], many: Int[Tensor, "#batch length"]
) -> Bool[Tensor, "batch length"]:
    return (one.unsqueeze(1) == many) & (many >= FIRST_INDEX)
