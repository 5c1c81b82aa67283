"""Write a generated marketplace as raw tables (docs/bazaar.md)."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from numpy import ndarray

from mimctr.errors import ConfigError
from mimctr.files import atomic_folder, write_json
from mimctr.progress import track
from mimctr.sources.bazaar.corpus import draw_captions, draw_images
from mimctr.sources.bazaar.items import Items, draw_missing, pictures
from mimctr.sources.bazaar.market import Market, Photos, draw_market
from mimctr.sources.bazaar.render import CHUNK
from mimctr.sources.bazaar.sessions import NUM_SLOTS, simulate
from mimctr.sources.bazaar.tables import (
    PartWriter,
    behaviors_table,
    impressions_table,
    parts_table,
    photo_path,
    searches_table,
    styles_table,
)
from mimctr.sources.bazaar.titles import write_titles
from mimctr.sources.bazaar.world import COLLABORATIVE_DIM, SIZES, START_TIME, SizeName, stream

ITEM_STRENGTH, PHOTO_STRENGTH = 1.0, 1.5
"""Strength of the nuisances in a seller's picture and in a shopper's photo."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BazaarSummary:
    """What was written."""

    folder: Path
    size: str
    seed: int
    random_pages: bool
    num_items: int
    num_users: int
    num_photos: int
    num_impressions: int
    num_clicks: int
    num_behaviors: int
    """Clicks and purchases, those of the warm-up included."""
    num_searches: int
    """Clicks and purchases after an image query."""
    num_corpus_images: int
    num_captions: int


def write_bazaar(
    out: Path, *, size: SizeName = "small", seed: int = 0, random_pages: bool = False
) -> BazaarSummary:
    """Generate a marketplace and write it into the new folder ``out``.

    The folder holds the raw tables of docs/architecture.md (``items.parquet``, ``impressions/``, ``behaviors/``,
    ``searches.parquet``, and ``photos/`` that image queries name), ``corpus/`` for pre-training plain encoders,
    and ``truth/``, which no stage reads. The same size and seed give the same bytes.

    Args:
        out: Folder to make.
        size: ``tiny`` for tests, ``small`` for the demo, ``medium``, ``large`` (10 million impressions).
        seed: Names the world; any whole number from 0.
        random_pages: Every page stands in random order; ``impressions`` say so (``position``, ``propensity``), and the
            log tells what other orders would have been clicked.

    Raises:
        ConfigError: unknown size, or a negative seed.
        RunError: ``out`` exists already.
    """
    if size not in SIZES:
        raise ConfigError(f"size: {size!r} is no size of the bazaar. Choose one of {', '.join(SIZES)}.")
    if seed < 0:
        raise ConfigError(f"seed: {seed} is negative. Choose a whole number from 0.")
    numbers = SIZES[size]
    market = draw_market(seed, numbers)
    with atomic_folder(out) as folder:
        _write_items(folder, seed, market.items)
        _write_photos(folder, seed, market.photos)
        impressions, clicks, behaviors, searches = _write_logs(
            folder, seed, market, numbers.num_sessions, random_pages=random_pages
        )
        _write_corpus(folder, seed, num_images=numbers.num_corpus_images, num_captions=numbers.num_captions)
        _write_truth(folder, market)
        summary = BazaarSummary(
            folder=out,
            size=size,
            seed=seed,
            random_pages=random_pages,
            num_items=numbers.num_items,
            num_users=numbers.num_users,
            num_photos=numbers.num_photos,
            num_impressions=impressions,
            num_clicks=clicks,
            num_behaviors=behaviors,
            num_searches=searches,
            num_corpus_images=numbers.num_corpus_images,
            num_captions=numbers.num_captions,
        )
        write_json(folder / "bazaar.json", {k: v for k, v in asdict(summary).items() if k != "folder"})
    return summary


def _write_photos(folder: Path, seed: int, photos: Photos) -> None:
    (folder / "photos").mkdir()
    files = pictures(stream(seed, "photos", "pixels"), photos.style, strength=PHOTO_STRENGTH)
    for number, file in enumerate(_one_by_one(files, len(photos.category), "rendering image queries")):
        (folder / photo_path(number)).write_bytes(file)


def _write_items(folder: Path, seed: int, items: Items) -> None:
    num_items = len(items.item_id)
    no_image, no_title = draw_missing(seed, num_items)
    files = pictures(stream(seed, "items", "pixels"), items.style, strength=ITEM_STRENGTH)
    images = list(_one_by_one(files, num_items, "rendering items"))
    titles = write_titles(seed, items)
    table = pa.table(
        {
            "item_id": items.item_id,
            "title": pa.array(titles, mask=no_title),
            "image": pa.array(images, mask=no_image, type=pa.large_binary()),
            "category": styles_table(items.category, items.style)["category"],
            "first_seen_time": items.first_seen_time,
            "price": items.price,
            "seller": items.seller,
        }
    )
    pq.write_table(
        table, folder / "items.parquet", row_group_size=10_000, use_dictionary=["category", "seller"]
    )


def _write_logs(
    folder: Path, seed: int, market: Market, num_sessions: int, *, random_pages: bool
) -> tuple[int, int, int, int]:
    """Simulate, write every log, and return the numbers of impressions, clicks, behaviors and searches."""
    impressions, behaviors = PartWriter(folder / "impressions"), PartWriter(folder / "behaviors")
    parts = PartWriter(folder / "truth" / "impressions")
    searches = []
    num_clicks = 0
    slots = simulate(seed, market, num_sessions=num_sessions, random_pages=random_pages)
    for slot in track(slots, total=NUM_SLOTS, description="simulating shoppers", unit="slots"):
        behaviors.add(behaviors_table(slot, market))
        searches.append(searches_table(slot, market))
        if slot.begin >= START_TIME:
            impressions.add(impressions_table(slot, market, random_pages=random_pages))
            parts.add(parts_table(slot))
            num_clicks += int(slot.click.sum())
    for writer in (impressions, behaviors, parts):
        writer.flush()
    pq.write_table(pa.concat_tables(searches), folder / "searches.parquet", compression="zstd")
    return impressions.num_rows, num_clicks, behaviors.num_rows, sum(map(len, searches))


def _write_corpus(folder: Path, seed: int, *, num_images: int, num_captions: int) -> None:
    (folder / "corpus").mkdir()
    label, files = draw_images(seed, num_images)
    images = list(_one_by_one(files, num_images, "rendering the generic corpus"))
    pq.write_table(
        pa.table({"image": pa.array(images, type=pa.large_binary()), "label": label}),
        folder / "corpus" / "images.parquet",
        use_dictionary=["label"],
    )
    captions = pa.table({"caption": draw_captions(seed, num_captions)})
    pq.write_table(captions, folder / "corpus" / "captions.parquet", compression="zstd")


def _write_truth(folder: Path, market: Market) -> None:
    items, users, photos = market
    truth = folder / "truth"
    latent = {f"collaborative_{k}": items.collaborative[:, k] for k in range(COLLABORATIVE_DIM)}
    pq.write_table(
        pa.table(
            {
                "item_id": items.item_id,
                **styles_table(items.category, items.style),
                "quality": items.quality,
                **latent,
            }
        ),
        truth / "items.parquet",
    )
    pq.write_table(
        pa.table(
            {
                "user_id": users.user_id,
                "early_taste": _lists(users.early_taste),
                "late_taste": _lists(users.late_taste),
                "collaborative": _lists(users.collaborative),
                "categories": _lists(users.categories),
                "looks": _lists(users.looks),
            }
        ),
        truth / "users.parquet",
    )
    paths = [photo_path(number) for number in range(len(photos.category))]
    pq.write_table(
        pa.table({"query_image": paths, **styles_table(photos.category, photos.style)}),
        truth / "photos.parquet",
    )


def _lists(rows: ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])


def _one_by_one(chunks: Iterator[list[bytes]], total: int, description: str) -> Iterator[bytes]:
    num_chunks = -(-total // CHUNK)
    for chunk in track(chunks, total=num_chunks, description=description, unit="chunks"):
        yield from chunk
