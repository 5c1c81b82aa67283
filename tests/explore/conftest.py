"""A small run that went through the real stages: tables, dataset, encoder, vectors, two models, evaluation."""

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from encoders.small import TITLES, item_encoder, picture
from fastapi.testclient import TestClient
from serve.shops import SMALL

from mimctr.data.prepare import prepare_tables
from mimctr.explore.app import create_app
from mimctr.recipes import embed, evaluate
from mimctr.recipes.ctr_config import Config as CtrConfig
from mimctr.recipes.explore import open_run
from mimctr.recipes.train import main as train

NUM_ITEMS, NUM_USERS, NUM_ROWS, DAY, START = 40, 12, 900, 86_400, 1_700_000_000
SCRIPT = "<script>window.broken = 1</script> red hat"
CHROMIUM = Path(os.environ.get("MIMCTR_CHROMIUM", "/usr/bin/chromium"))


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory) -> Path:
    """Item 0 has a title with markup, 1 no picture, 2 no title, 3 neither, so no vector."""
    folder = tmp_path_factory.mktemp("explored")
    (folder / "tables").mkdir()
    rng = np.random.default_rng(0)
    titles = [f"{TITLES[n % 6]} number{n}" for n in range(NUM_ITEMS)]
    titles[:4] = [SCRIPT, titles[1], None, None]
    pl.DataFrame(
        {
            "item_id": [f"item/{n}" for n in range(NUM_ITEMS)],
            "title": titles,
            "image": [None if n in (1, 3) else picture(n) for n in range(NUM_ITEMS)],
            "category": [("bags", "hats", "shoes")[n % 3] for n in range(NUM_ITEMS)],
            "brand": [f"brand{n % 5}" for n in range(NUM_ITEMS)],
        }
    ).write_parquet(folder / "tables" / "items.parquet")
    log = {
        "user_id": rng.integers(0, NUM_USERS, NUM_ROWS),
        "item_id": [f"item/{n}" for n in rng.integers(0, NUM_ITEMS, NUM_ROWS)],
        "time": START + np.sort(rng.choice(60 * DAY, NUM_ROWS, replace=False)),
    }
    pl.DataFrame(
        {
            **log,
            "click": rng.integers(0, 2, NUM_ROWS),
            "query_image": [picture(100 + n % 5) if n % 2 else None for n in range(NUM_ROWS)],
            "query_text": [None if n % 2 else "red & blue" for n in range(NUM_ROWS)],
        }
    ).write_parquet(folder / "tables" / "impressions.parquet")
    run = folder / "run"
    prepare_tables(folder / "tables", run / "dataset")
    item_encoder().save(run / "csft")
    embed.main(
        run / "dataset", run / "csft", run / "embed" / "csft", embed.Config(device="cpu", num_workers=1)
    )
    for variant, content in (("base", None), ("mim", run / "embed" / "csft")):
        config = CtrConfig(
            **(SMALL | {"ubm": "mean", "variant": variant, "encoder": "csft" if content else "none"})
        )
        train(run / "dataset", content, run / "train" / f"mean-{variant}-seed0", config)
    evaluate.main(run, run / "evaluate", evaluate.Config(num_resamples=10, num_pictures=0))
    return run


@pytest.fixture(scope="session")
def opened(run_folder):
    return open_run(run_folder)


@pytest.fixture
def client(opened):
    with TestClient(create_app(opened)) as made:
        yield made
