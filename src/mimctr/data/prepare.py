"""Raw tables in, a checked and compact dataset out: what ``mimctr prepare`` does."""

import logging
import time
from pathlib import Path

import polars as pl

from mimctr.data import contract
from mimctr.data.blobs import BlobWriter
from mimctr.data.checks import CheckedTable
from mimctr.data.images import ImageReader
from mimctr.data.ingest import Raw, read_behaviors, read_impressions, read_items, read_searches
from mimctr.data.logs import Table, find_tables
from mimctr.data.pairs import PairRule
from mimctr.data.problems import Problems, Summary
from mimctr.data.split import SplitRule
from mimctr.data.write import write_dataset
from mimctr.errors import DataError
from mimctr.files import atomic_folder, hash_json, hash_path, write_json

logger = logging.getLogger(__name__)


def prepare_tables(
    tables: Path,
    out: Path,
    *,
    split: SplitRule | None = None,
    pairs: PairRule | None = None,
    min_count: int = 1,
    lenient: bool = False,
) -> Summary:
    """Check raw tables and write them as a dataset that ``CtrDataset.open`` opens.

    Args:
        tables: Folder with the tables of docs/data.md.
        out: New folder for the dataset; it appears only when it is complete.
        split: Lengths of the parts; by default the last tenth of the time tests, the tenth before it validates.
        pairs: How interest pairs come from behaviors where there is no table of searches.
        min_count: User, query and context values that are rarer in the training part are unknown.
        lenient: Leave bad rows out, and bad images away, instead of refusing the tables.

    Raises:
        DataError: the tables break their contract; the message lists every problem, a line each.
        RunError: ``out`` exists already.
    """
    begun = time.monotonic()
    problems = Problems(lenient=lenient)
    with atomic_folder(out) as folder:
        found = find_tables(tables)
        raw = read_tables(found, tables, folder, problems)
        manifest = write_dataset(
            raw,
            folder,
            split_rule=split or SplitRule(),
            pair_rule=pairs or PairRule(),
            min_count=min_count,
            problems=problems,
            source_hash=_hash_source(found, folder),
        )
        summary = Summary(
            tables=str(tables),
            counts=manifest.counts,
            problems=list(problems),
            seconds=round(time.monotonic() - begun, 3),
        )
        write_json(folder / "summary.json", summary.model_dump())
    return summary


def read_tables(found: dict[str, Table], tables: Path, folder: Path, problems: Problems) -> Raw:
    """Read and check every raw table; write the images to ``folder``.

    Raises:
        DataError: the tables break their contract.
    """
    for table in contract.CONTRACT:
        if table.required and table.name not in found:
            problems.add(
                "missing-table",
                f"no such table in {tables}. Put {table.name}.parquet, a folder {table.name} of Parquet files, or "
                f"{table.name}.csv there; it needs {', '.join(table.required_columns)}.",
                table=table.name,
            )
    checked = {
        table.name: CheckedTable(found[table.name], table, problems)
        for table in contract.CONTRACT
        if table.name in found
    }
    with (
        BlobWriter(folder / "items" / "images") as item_images,
        BlobWriter(folder / "queries" / "images") as queries,
    ):
        raw = _read_checked(checked, tables, item_images, queries, problems)
    problems.raise_errors(str(tables))
    assert raw is not None, "a required table is missing without a problem"
    for name in (contract.ITEMS.name, contract.IMPRESSIONS.name):
        if not checked[name].keep.any():
            raise DataError(
                f"{tables}: no row of {name} is left after dropping the bad ones. Correct the table."
            )
    return raw


def _read_checked(
    checked: dict[str, CheckedTable],
    tables: Path,
    item_images: BlobWriter,
    query_images: BlobWriter,
    problems: Problems,
) -> Raw | None:
    for table in checked.values():
        logger.info("%s: %s rows, %s", table.table.name, f"{table.table.num_rows:,}", table.table.where)
    items = None
    if contract.ITEMS.name in checked:
        items = read_items(checked[contract.ITEMS.name], ImageReader(tables, item_images))
        if not checked[contract.ITEMS.name].usable("item_id"):
            items = None  # every other item would count as unknown
    reader = ImageReader(tables, query_images)
    impressions = behaviors = searches = None
    users_like: pl.DataType | None = None
    if contract.IMPRESSIONS.name in checked:
        impressions = read_impressions(checked[contract.IMPRESSIONS.name], items, reader)
        if checked[contract.IMPRESSIONS.name].usable("user_id"):
            users_like = impressions.user_ids.dtype
    if contract.BEHAVIORS.name in checked:
        behaviors = read_behaviors(checked[contract.BEHAVIORS.name], items, users_like=users_like)
    if contract.SEARCHES.name in checked:
        searches = read_searches(checked[contract.SEARCHES.name], items, reader, users_like=users_like)
    if items is None or impressions is None:
        return None
    return Raw(
        items=items,
        impressions=impressions,
        impression_table=checked[contract.IMPRESSIONS.name],
        behaviors=behaviors,
        searches=searches,
        item_images=item_images,
        query_images=query_images,
    )


def _hash_source(found: dict[str, Table], folder: Path) -> str:
    """Return the hash of the tables' bytes and of the images that they name."""
    tables = {name: [hash_path(part) for part in table.parts] for name, table in found.items()}
    images = [hash_path(folder / owner / "images" / "blobs.bin") for owner in ("items", "queries")]
    return hash_json({"tables": tables, "images": images})
