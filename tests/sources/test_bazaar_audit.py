"""The audit's figures against other ways of counting them."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from mimctr.sources.bazaar import write_bazaar
from mimctr.sources.bazaar.audit import area_under_curve, audit_bazaar

START, DAY = 1_704_067_200, 86_400
WEIGHTS = {
    "shape": 0.14,
    "pattern": 0.22,
    "palette": 0.26,
    "texture": 0.06,
    "material": 0.20,
    "occasion": 0.12,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bazaar") / "tiny"
    write_bazaar(folder, size="tiny", seed=1)
    return folder


@pytest.fixture(scope="module")
def figures(folder: Path) -> dict[str, float]:
    return audit_bazaar(folder)


def test_area_under_curve_equals_scikit_learn_with_ties() -> None:
    rng = np.random.default_rng(0)
    score, label = rng.integers(8, size=500).astype(float), rng.random(500) < 0.3
    assert area_under_curve(score, label) == pytest.approx(roc_auc_score(label, score), abs=1e-12)


def test_area_under_curve_of_one_class_is_not_a_number() -> None:
    assert np.isnan(area_under_curve(np.array([0.1, 0.2]), np.array([True, True])))


def test_the_ceiling_is_the_auc_of_the_true_probability_on_the_last_fifth(
    folder: Path, figures: dict[str, float]
) -> None:
    logged = pl.read_parquet(folder / "impressions").filter(pl.col("time") >= START + 0.8 * 28 * DAY)
    assert figures["test_impressions"] == len(logged)
    assert figures["ceiling"] == pytest.approx(
        roc_auc_score(logged["click"], logged["true_probability"]), abs=1e-9
    )


def test_the_history_oracle_equals_a_loop_over_strictly_earlier_clicks(
    folder: Path, figures: dict[str, float]
) -> None:
    style = {row["item_id"]: row for row in pl.read_parquet(folder / "truth" / "items.parquet").to_dicts()}
    clicked: dict[int, list[tuple[int, int]]] = {}
    for user, item, time in pl.read_parquet(folder / "behaviors").select("user_id", "item_id", "time").rows():
        clicked.setdefault(user, []).append((time, item))
    scores, labels = [], []
    logged = pl.read_parquet(folder / "impressions").filter(pl.col("time") >= START + 0.8 * 28 * DAY)
    for user, item, time, click in logged.select("user_id", "item_id", "time", "click").rows():
        earlier = [style[other] for then, other in clicked.get(user, []) if then < time]
        if earlier:
            alike = [sum(w * (style[item][a] == other[a]) for a, w in WEIGHTS.items()) for other in earlier]
            scores.append(sum(alike) / len(alike))
            labels.append(click)
    assert figures["auc_history_all"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-3)


def test_content_of_the_history_says_something_and_less_than_everything(figures: dict[str, float]) -> None:
    assert 0.57 < figures["auc_history_all"] < figures["auc_style"] < figures["ceiling"]
