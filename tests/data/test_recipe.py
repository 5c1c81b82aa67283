"""The recipe translates its settings, every one of them."""

from mimctr.data import CtrDataset
from mimctr.recipes.prepare import Config, main, read_summary

from .conftest import START


def test_every_setting_reaches_the_dataset(tables, write, tmp_path):
    """Mutant: a setting is read and not passed on."""
    tables["impressions"][0, "click"] = 9
    config = Config(
        test_days=0.02,
        validation_days=0.03,
        warmup_days=0.04,
        min_count=10_000,
        lenient=True,
        pair_kinds=("click", "purchase"),
        pair_query_kinds=("click",),
        pair_window_days=0.1,
        pair_same_field="brand",
        max_pairs_per_positive=2,
    )
    summary = main(write(tables), tmp_path / "out", config)
    manifest = CtrDataset.open(tmp_path / "out").manifest
    assert read_summary(tmp_path / "out") == summary
    assert [problem.rule for problem in summary.problems] == ["label"]
    last = tables["impressions"]["time"].max() + 1
    assert (manifest.test_start, manifest.validation_start) == (last - 1728, last - 1728 - 2592)
    assert manifest.train_start - START in range(3456, 3600)
    assert manifest.fields.context == {"context_hour": 2}
    assert manifest.pair_rule == (
        "behaviors: query = image of an earlier click of the same user, at most 0.1 days before; positive = "
        "another item with the same brand, a later click or purchase; at most 2 pairs per positive, "
        "newest queries first"
    )


def test_fractions_are_the_default(tables, write, tmp_path):
    main(write(tables), tmp_path / "out", Config(test_fraction=0.25, validation_fraction=0.5))
    manifest = CtrDataset.open(tmp_path / "out").manifest
    times = tables["impressions"]["time"]
    length = times.max() - times.min()
    assert manifest.test_start == times.max() + 1 - round(length / 4)
    assert manifest.validation_start == manifest.test_start - round(length / 2)
