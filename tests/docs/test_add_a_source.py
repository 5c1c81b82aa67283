"""The example of a source passes the door, and what comes out is what went in."""

import numpy as np
import polars as pl

from mimctr.data.dataset import CtrDataset
from mimctr.data.pairs import PairRule
from mimctr.data.prepare import prepare_tables

from .examples import example


def write_ratings(folder):
    """Twelve movies, eight users, some two hundred ratings."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    pl.DataFrame(
        {
            "movieId": range(1, 13),
            "title": [f"Movie {number} (1999)" for number in range(1, 13)],
            "genres": ["Comedy|Drama", "Action"] * 6,
        }
    ).write_csv(folder / "movies.csv")
    pairs = rng.permutation(96)[:80]
    ratings = pl.DataFrame(
        {
            "userId": pairs // 12 + 1,
            "movieId": pairs % 12 + 1,
            "rating": rng.choice([2.0, 3.5, 4.0, 5.0], 80),
            "timestamp": 1_000_000_000 + np.arange(80) * 3_600,
        }
    )
    ratings.write_csv(folder / "ratings.csv")
    return ratings


def test_its_tables_pass_the_door(tmp_path):
    ratings = write_ratings(tmp_path / "ml")
    example("ratings_source").write_tables(tmp_path / "ml", tmp_path / "tables")
    rule = PairRule(kinds=("like",), query_kinds=("like",))
    summary = prepare_tables(tmp_path / "tables", tmp_path / "dataset", pairs=rule)
    assert [problem for problem in summary.problems if problem.severity == "error"] == []
    liked = ratings.filter(pl.col("rating") >= 4)
    assert summary.counts["impressions"] == 80
    assert summary.counts["behaviors"] == len(liked)
    data = CtrDataset.open(tmp_path / "dataset")
    assert data.items["title"][0] == "Movie 1 (1999): Comedy, Drama"
    assert data.items["category"][0] == "Comedy"
