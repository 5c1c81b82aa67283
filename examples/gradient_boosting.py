"""Content interest in a model that mimctr does not train: scikit-learn's gradient boosting.

    mimctr features runs/demo/dataset --content runs/demo/embed/csft --out runs/demo/features
    python examples/gradient_boosting.py runs/demo/dataset runs/demo/features/features.parquet

Trains with and without the columns of content, beside the click rates of user, item and category so far; prints the AUC
on the test part. Needs scikit-learn.
"""

import argparse
from pathlib import Path

import polars as pl
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

IDS = ["row", "user_id", "item_id", "category", "time", "click", "part"]
PRIOR_IMPRESSIONS = 20
"""A rate starts at the overall one, as if seen so often."""


def main() -> None:
    """Train, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path)
    parser.add_argument("features", type=Path)
    args = parser.parse_args()
    for path, maker in ((args.dataset / "items.parquet", "prepare"), (args.features, "features")):
        if not path.is_file():
            parser.error(f"{path}: no such file. Run 'mimctr {maker}' first, or correct the path.")
    items = pl.read_parquet(args.dataset / "items.parquet", columns=["item_id", "category"])
    table = pl.read_parquet(args.features).join(items, on="item_id", how="left", maintain_order="left")
    rates = [f"rate_{name}" for name in ("user_id", "item_id", "category")]
    table = with_rates(table).drop("content_interest", strict=False)
    base = [*rates, "num_behaviors"]
    content = [name for name in table.columns if name not in (*IDS, *base) and table[name].count()]
    for name, columns in (("without content", base), ("with content", base + content)):
        print(f"{name:16} test AUC {test_auc(table, columns):.4f}")


def with_rates(table: pl.DataFrame) -> pl.DataFrame:
    """Add the click rate of user, item and category in the rows of the training part that are earlier.

    Not in all others: what all others clicked, taken from what all clicked, is the row's own click.
    """
    train = (pl.col("part") == "train").cast(pl.Int64)
    overall = table.filter(pl.col("part") == "train")["click"].mean()
    for name in ("user_id", "item_id", "category"):
        seen = train.cum_sum().over(name) - train
        clicks = (pl.col("click") * train).cum_sum().over(name) - pl.col("click") * train
        rate = (clicks + overall * PRIOR_IMPRESSIONS) / (seen + PRIOR_IMPRESSIONS)
        table = table.with_columns(rate.alias(f"rate_{name}"))
    return table


def test_auc(table: pl.DataFrame, columns: list[str]) -> float:
    """Train on the training part, score the test part."""
    train, test = (table.filter(pl.col("part") == part) for part in ("train", "test"))
    model = HistGradientBoostingClassifier(random_state=0)
    model.fit(train.select(columns).to_numpy(), train["click"].to_numpy())
    return roc_auc_score(test["click"].to_numpy(), model.predict_proba(test.select(columns).to_numpy())[:, 1])


if __name__ == "__main__":
    main()
