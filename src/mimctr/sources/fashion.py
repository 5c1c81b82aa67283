"""Fashion purchases with photos and titles (H&M Personalized Fashion Recommendations) as raw tables.

The log holds purchases only, so what was shown and not bought is sampled. The protocol is fixed, so that
figures can be compared: the log counts a customer, article and day once; every purchase is a positive; its 4
negatives are drawn uniformly from the purchases (so by popularity) of other customers within 3 days before and
after, never an article that this customer bought that day. Purchases are known to the day, so a behavior is
earlier only if its day is.

The data is not ours to pass on: ``docs/fashion.md`` says where it is obtained and on which terms.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from jaxtyping import Int
from numpy import ndarray
from pydantic import BaseModel, ConfigDict

from mimctr.errors import DataError
from mimctr.files import atomic_folder, write_json, write_table

Negatives = Literal["popularity", "category"]

NUM_NEGATIVES = 4
"""Negatives of each positive."""
WINDOW_DAYS = 3
"""A negative was bought at most this many days before or after its positive."""
NUM_ROUNDS = 200
"""A negative that so many draws do not find is taken not to exist."""
SECONDS_PER_DAY = 86_400

ORIGIN = (
    "The original is Kaggle's 'H&M Personalized Fashion Recommendations' (for non-commercial research); "
    "docs/fashion.md describes the folder to make of it"
)
ARTICLE_FIELDS = {
    "product_group_name": "product_group",
    "graphical_appearance_name": "pattern",
    "colour_group_name": "color",
    "department_name": "department",
    "index_group_name": "index_group",
    "section_name": "section",
}
"""Catalogue columns that become item fields, and the names they get."""
ARTICLE_COLUMNS = ("article_id", "prod_name", "product_type_name", "detail_desc", *ARTICLE_FIELDS)
PURCHASE_COLUMNS = ("t_dat", "customer_id", "article_id", "price")
IMAGE_COLUMNS = ("article_id", "image")


class FashionSummary(BaseModel):
    """What :func:`write_fashion` wrote; it is ``summary.json`` beside the tables."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    negatives: Negatives
    attributes: bool
    """Whether items carry more fields than the category."""
    seed: int
    num_items: int
    num_items_without_image: int
    num_users: int
    num_purchases: int
    """Distinct purchases: rows of ``behaviors``."""
    num_repeated_purchases: int
    """Left out: the same customer, article and day again."""
    num_positives: int
    num_negatives: int
    num_positives_left_out: int
    """Purchases with fewer than 4 different articles to draw from; behaviors, but not impressions."""


def write_fashion(
    data: Path,
    out: Path,
    *,
    negatives: Negatives = "popularity",
    attributes: bool = False,
    seed: int = 0,
) -> FashionSummary:
    """Write the raw tables ``items``, ``impressions`` and ``behaviors`` of the fashion log to a folder.

    There is no ``searches`` table: the pairs of C-SFT come from behaviors by a rule (``mimctr.data``).

    Args:
        data: Folder with ``articles.parquet``, ``purchases_two_years.parquet`` and ``images-*.parquet``.
        out: New folder; wholly there or, after a failure, not there at all.
        negatives: ``popularity`` draws a negative from all purchases of its window, ``category`` from those of
            the positive's product type.
        attributes: Whether items carry the merchandiser's six attributes (color, section ...) as fields beside
            the category. They are content, made by hand, and help a model without vectors, too.
        seed: Of the negatives. The same data and seed give the same tables.

    Raises:
        DataError: a file or column is missing, a day cannot be read, or a purchased article is not in the
            catalogue.
        RunError: ``out`` exists already.
    """
    log = _read_columns(data / "purchases_two_years.parquet", PURCHASE_COLUMNS)
    purchases = _read_purchases(data / "purchases_two_years.parquet", log)
    items = _make_items(data, purchases, attributes=attributes)
    item_codes = _codes(purchases["item_id"])
    types = _codes(items["category"].fill_null(""))[item_codes]  # items stand in the order of their codes
    sampled = sample_negatives(
        users=_codes(purchases["user_id"]),
        items=item_codes,
        days=purchases["time"].to_numpy() // SECONDS_PER_DAY,
        groups=types if negatives == "category" else np.zeros_like(types),
        seed=seed,
    )
    complete = (sampled >= 0).all(axis=1)
    impressions = _make_impressions(purchases, np.flatnonzero(complete), sampled[complete])
    behaviors = purchases.select("user_id", "item_id", "time", kind=pl.lit("purchase"))
    items = _add_first_seen(items, purchases, impressions)
    summary = FashionSummary(
        negatives=negatives,
        attributes=attributes,
        seed=seed,
        num_items=len(items),
        num_items_without_image=items["image"].null_count(),
        num_users=purchases["user_id"].n_unique(),
        num_purchases=len(purchases),
        num_repeated_purchases=len(log) - len(purchases),
        num_positives=int(complete.sum()),
        num_negatives=int(complete.sum()) * NUM_NEGATIVES,
        num_positives_left_out=int((~complete).sum()),
    )
    with atomic_folder(out) as folder:
        write_table(folder / "items.parquet", items)
        write_table(folder / "impressions.parquet", impressions)
        write_table(folder / "behaviors.parquet", behaviors)
        write_json(folder / "summary.json", summary.model_dump(mode="json"))
    return summary


def sample_negatives(
    *,
    users: Int[ndarray, "purchases"],
    items: Int[ndarray, "purchases"],
    days: Int[ndarray, "purchases"],
    groups: Int[ndarray, "purchases"],
    seed: int,
) -> Int[ndarray, "purchases negatives"]:
    """Draw for each purchase 4 purchases of other users, the same group and nearly the same day.

    A draw is uniform over the purchases of the window, and is drawn again if it is the user's own, of an article
    that the user bought that day, or of one that was drawn for the same user and day before: a user is shown an
    article once a day.

    Args:
        users: User of each purchase, numbered from 0.
        items: Item of each purchase, numbered from 0.
        days: Day of each purchase, as a whole number.
        groups: Purchases are drawn within their group only; not negative.
        seed: Of the draws.

    Returns:
        Rows of purchases; -1 where the window holds no further article.
    """
    days = days - days.min()
    span = int(days.max()) + 2 * WINDOW_DAYS + 1  # so wide that no window reaches into another group
    keys = groups * span + days
    order = np.argsort(keys, kind="stable")
    low = np.searchsorted(keys[order], keys - WINDOW_DAYS, side="left")
    high = np.searchsorted(keys[order], keys + WINDOW_DAYS, side="right")
    num_items = int(items.max()) + 1
    visits = users * (int(days.max()) + 1) + days  # a user's day
    shown = visits * num_items + items

    rng = np.random.default_rng(seed)
    sampled = np.full((len(users), NUM_NEGATIVES), -1, np.int64)
    open_slots = np.arange(sampled.size)
    for _ in range(NUM_ROUNDS):
        positive = open_slots // NUM_NEGATIVES
        width = high[positive] - low[positive]
        drawn = order[low[positive] + (rng.random(len(positive)) * width).astype(np.int64)]
        offered = visits[positive] * num_items + items[drawn]
        fresh = np.zeros(len(positive), bool)
        fresh[np.unique(offered, return_index=True)[1]] = True  # the first of equal draws
        fresh &= (users[drawn] != users[positive]) & ~np.isin(offered, shown)
        sampled.flat[open_slots[fresh]] = drawn[fresh]
        shown = np.concatenate([shown, offered[fresh]])
        open_slots = open_slots[~fresh]
        if not len(open_slots):
            break
    return sampled


def _read_columns(path: Path, columns: tuple[str, ...]) -> pl.DataFrame:
    if not path.is_file():
        raise DataError(f"{path}: no such file. {ORIGIN}.")
    try:
        names = pl.read_parquet_schema(path)
        missing = [name for name in columns if name not in names]
        if missing:
            raise DataError(
                f"{path}: {len(missing)} column(s) missing: {', '.join(missing)} (it has {', '.join(names)}). {ORIGIN}."
            )
        return pl.read_parquet(path, columns=list(columns))
    except (pl.exceptions.ComputeError, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error}). {ORIGIN}.") from None


def _read_purchases(path: Path, log: pl.DataFrame) -> pl.DataFrame:
    """Return the purchases, one per user, item and day, in the order of time, user and item."""
    day = pl.col("t_dat").cast(pl.String).str.to_date("%Y-%m-%d", strict=False)
    bad = log.filter(day.is_null())
    if len(bad):
        raise DataError(
            f"{path}: t_dat is not a day such as 2020-09-22 in {len(bad)} row(s), first {bad['t_dat'][0]!r}. "
            "Correct or remove them."
        )
    if not len(log):
        raise DataError(f"{path}: holds no purchases. {ORIGIN}.")
    purchases = log.select(
        user_id=pl.col("customer_id"),
        item_id=pl.col("article_id").cast(pl.String),
        time=day.dt.epoch("s"),
        price=pl.col("price").cast(pl.Float64),
    )
    keys = ["time", "user_id", "item_id"]
    return purchases.unique(keys, keep="first", maintain_order=True).sort(keys)


def _make_items(data: Path, purchases: pl.DataFrame, *, attributes: bool) -> pl.DataFrame:
    """Return one row per purchased article, in the order of the ids; its price is that of its first purchase."""
    path = data / "articles.parquet"
    articles = _read_columns(path, ARTICLE_COLUMNS).with_columns(item_id=pl.col("article_id").cast(pl.String))
    first = purchases.group_by("item_id", maintain_order=True).agg(pl.col("price").first())
    unknown = first.join(articles, on="item_id", how="anti")
    if len(unknown):
        raise DataError(
            f"{path}: {len(unknown)} purchased article(s) are not in the catalogue, first {unknown['item_id'][0]!r}. "
            "Use the catalogue and the purchases of one release."
        )
    title = pl.concat_str(
        "prod_name",
        pl.col("product_type_name").str.to_lowercase(),
        pl.col("colour_group_name").str.to_lowercase(),
        separator=", ",
    )
    chosen = ARTICLE_FIELDS if attributes else {}
    items = first.join(articles, on="item_id", how="left").join(_read_images(data), on="item_id", how="left")
    return items.sort("item_id").select(
        "item_id",
        "price",
        "image",
        title=pl.concat_str(
            title, pl.col("detail_desc").str.strip_chars(), separator=". ", ignore_nulls=True
        ),
        category=pl.col("product_type_name"),
        **{field: pl.col(column) for column, field in chosen.items()},
    )


def _read_images(data: Path) -> pl.DataFrame:
    paths = sorted(data.glob("images-*.parquet"))
    if not paths:
        raise DataError(f"{data}: no photos: no file is named images-*.parquet. {ORIGIN}.")
    images = pl.concat([_read_columns(path, IMAGE_COLUMNS) for path in paths])
    return images.unique("article_id", keep="first", maintain_order=True).select(
        pl.col("article_id").cast(pl.String).alias("item_id"), "image"
    )


def _make_impressions(
    purchases: pl.DataFrame,
    positives: Int[ndarray, "positives"],
    sampled: Int[ndarray, "positives negatives"],
) -> pl.DataFrame:
    """Return the positives and, at their user and time, the items of the sampled purchases."""
    shown = np.repeat(positives, NUM_NEGATIVES)
    clicked = purchases[positives].select("user_id", "item_id", "time", click=pl.lit(1, pl.Int8))
    passed = purchases[shown].select(
        "user_id", purchases["item_id"].gather(sampled.reshape(-1)), "time", click=pl.lit(0, pl.Int8)
    )
    return pl.concat([clicked, passed]).sort("time", "user_id", "item_id")


def _add_first_seen(items: pl.DataFrame, purchases: pl.DataFrame, impressions: pl.DataFrame) -> pl.DataFrame:
    """Add when each item was first bought or, as a negative up to 3 days before that, shown."""
    seen = pl.concat([purchases.select("item_id", "time"), impressions.select("item_id", "time")])
    first = seen.group_by("item_id").agg(first_seen_time=pl.col("time").min())
    return items.join(first, on="item_id", how="left").sort("item_id")


def _codes(ids: pl.Series) -> Int[ndarray, "rows"]:
    """Number equal ids alike, from 0."""
    return ids.rank("dense").to_numpy().astype(np.int64) - 1
