"""A minuscule shop with pictures, titles and visual searches, as a prepared dataset and as a generic corpus."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import polars as pl
from encoders.small import TITLES, image_encoder, picture, text_encoder

from mimctr.data.dataset import CtrDataset
from mimctr.data.prepare import prepare_tables
from mimctr.encoders.item import ItemEncoder
from mimctr.recipes.catalogue import Catalogue, load_towers
from mimctr.recipes.item_config import ItemConfig
from mimctr.recipes.visual_search import Pairs, pair_table, usable_pairs

START = 1_600_000_000
NUM_ITEMS, NUM_USERS, NUM_IMPRESSIONS, NUM_SEARCHES = 24, 6, 200, 120


def write_shop(
    folder: Path,
    *,
    searches: bool = True,
    columns: Mapping[str, pl.Expr] = MappingProxyType({}),
    edit: Callable[[pl.DataFrame], pl.DataFrame] = lambda searched: searched,
) -> Path:
    """Write and prepare the shop, with or without its visual searches; return the dataset's folder.

    Without them clicks and purchases stand in the behaviors. ``columns`` replaces columns of the items, ``edit``
    changes the searches.

    Item 100 has no picture, 101 no title, 102 neither; the last two items arrive in the test part.
    """
    rng = np.random.default_rng(0)
    titles = [f"{TITLES[number % 6]} {TITLES[number % 5]}" for number in range(NUM_ITEMS)]
    pictures = [picture(number) for number in range(NUM_ITEMS)]
    items = pl.DataFrame(
        {
            "item_id": np.arange(100, 100 + NUM_ITEMS),
            "title": [titles[0], None, None, *titles[3:]],
            "image": [None, pictures[1], None, *pictures[3:]],
            "category": [f"c{number % 3}" for number in range(NUM_ITEMS)],
            "first_seen_time": [START] * (NUM_ITEMS - 2) + [START + 9500] * 2,
        }
    )

    def events(count: int) -> dict[str, np.ndarray]:
        return {
            "user_id": rng.integers(1, NUM_USERS + 1, count),
            "item_id": rng.integers(100, 98 + NUM_ITEMS, count),
            "time": START + np.sort(rng.integers(0, 10_000, count)),
        }

    items = items.with_columns(**columns)
    impressions = pl.DataFrame({**events(NUM_IMPRESSIONS), "click": rng.integers(0, 2, NUM_IMPRESSIONS)})
    events_of_kind = pl.DataFrame(
        {**events(NUM_SEARCHES), "kind": rng.choice(["click", "purchase"], NUM_SEARCHES)}
    )
    searched = events_of_kind.with_columns(
        query_image=pl.Series([picture(1000 + number % 40) for number in range(NUM_SEARCHES)])
    )
    tables = folder / "tables"
    tables.mkdir(parents=True)
    interest = {"searches": edit(searched)} if searches else {"behaviors": events_of_kind}
    for name, table in {"items": items, "impressions": impressions, **interest}.items():
        table.unique(maintain_order=True).write_parquet(tables / f"{name}.parquet")
    prepare_tables(tables, folder / "dataset")
    return folder / "dataset"


class Opened(NamedTuple):
    """A dataset ready for C-SFT, and its training pairs."""

    data: CtrDataset
    encoder: ItemEncoder
    catalogue: Catalogue
    pairs: Pairs


def open_shop(
    dataset: Path,
    encoders: Path,
    folder: Path,
    *,
    kinds: tuple[str, ...] = ("purchase",),
    text_queries: bool = False,
) -> Opened:
    """Open a dataset with small heads on the encoders; decode its pictures into ``folder``."""
    data = CtrDataset.open(dataset)
    config = ItemConfig(dim=4, hidden=3, dropout=0.0, bf16=False, text_queries=text_queries)
    encoder = load_towers(encoders, data, config)
    table = pair_table(data, "train", kinds)
    queries = table["query"].unique().to_numpy()
    catalogue = Catalogue(data, encoder, queries[queries > 0], folder / "pixels.npy")
    return Opened(
        data,
        encoder,
        catalogue,
        usable_pairs(table, catalogue.pictures, catalogue.titles, catalogue.has_content),
    )


def write_encoders(folder: Path) -> Path:
    """Write untrained encoders; return their folder."""
    image_encoder().save(folder / "image")
    text_encoder().save(folder / "text")
    return folder


def write_corpus(folder: Path) -> Path:
    """Write a generic corpus: two labels, few captions."""
    folder.mkdir(parents=True)
    images = pl.DataFrame({"image": [picture(number) for number in range(30)], "label": ["a", "b", "b"] * 10})
    images.write_parquet(folder / "images.parquet")
    pl.DataFrame({"caption": TITLES * 6}).write_parquet(folder / "captions.parquet")
    return folder
