"""A source of one's own: ratings with times, as MovieLens has them, into raw tables (docs/how-to/add-a-source.md).

python examples/extending/ratings_source.py ml-latest-small --out tables
mimctr prepare tables --out dataset --set 'pair_kinds=["like"]' --set 'pair_query_kinds=["like"]'
"""

import argparse
from pathlib import Path

import polars as pl

LIKED = 4.0
"""Stars from which on a rating is a click."""


def items_of(movies: pl.DataFrame) -> pl.DataFrame:
    """Return the items: the title with its genres, and the first genre as category."""
    genres = pl.col("genres").str.replace_all(r"\|", ", ")
    return movies.select(
        item_id="movieId",
        title=pl.concat_str("title", pl.lit(": "), genres),
        category=pl.col("genres").str.split("|").list.first(),
    )


def write_tables(source: Path, out: Path) -> None:
    """Write items, impressions and behaviors from ``movies.csv`` and ``ratings.csv``.

    A rating is an impression: it was seen. What nobody rated is no impression, and is not made one.
    """
    movies = pl.read_csv(source / "movies.csv")
    ratings = pl.read_csv(source / "ratings.csv").select(
        user_id="userId", item_id="movieId", time="timestamp", liked=pl.col("rating") >= LIKED
    )
    tables = {
        "items": items_of(movies),
        "impressions": ratings.select("user_id", "item_id", "time", click=pl.col("liked").cast(pl.Int8)),
        "behaviors": ratings.filter("liked").select("user_id", "item_id", "time", kind=pl.lit("like")),
    }
    out.mkdir(parents=True)
    for name, table in tables.items():
        table.write_parquet(out / f"{name}.parquet")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="folder with movies.csv and ratings.csv")
    parser.add_argument("--out", type=Path, required=True, help="folder for the raw tables; must not exist")
    args = parser.parse_args()
    write_tables(args.source, args.out)


if __name__ == "__main__":
    main()
