"""results.json: written, read back, refused when it is not what it should be; stage records and curves gathered."""

import itertools
import json

import numpy as np
import pytest

from mimctr.errors import DataError, RunError
from mimctr.evaluate.gather import gather_curves, gather_searches, gather_stages
from mimctr.evaluate.machine import describe_machine, describe_versions
from mimctr.evaluate.results import DatasetFacts, Results, read_results, write_results


def make_results():
    return Results(
        dataset=DatasetFacts(
            name="Größe",
            num_items=1,
            num_users=2,
            num_behaviors=3,
            num_queries=0,
            num_pairs=0,
            pair_rule="none",
            parts=[],
        ),
        rows=[],
        comparisons=[],
        skipped_slices=[],
        coverage=[],
        models=[],
        stages=[],
        curves=[],
        searches=[],
        pictures=[],
        settings={"num_resamples": 10},
        versions=describe_versions(),
        machine=describe_machine(),
    )


def test_results_come_back_as_they_were_written(tmp_path):
    write_results(tmp_path / "results.json", make_results())
    assert read_results(tmp_path / "results.json") == make_results()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"format": 2},
            "1 values do not follow the schema of results.json. First: format: Input should be 1",
        ),
        ({"extra": 1}, "First: extra: Extra inputs are not permitted"),
        ({"rows": [{}]}, "First: rows.0.dataset: Field required"),
    ],
)
def test_another_schema_is_refused_with_the_first_wrong_value(tmp_path, change, message):
    path = tmp_path / "results.json"
    write_results(path, make_results())
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(DataError, match=message):
        read_results(path)


def test_the_machine_is_described_by_its_own_numbers():
    machine = describe_machine()
    assert machine.num_cores >= 1
    assert machine.memory_bytes is None or machine.memory_bytes > 1 << 26
    assert describe_versions()["numpy"] == np.__version__


def write_record(folder, **changes):
    record = {
        "name": "train",
        "key": "ab",
        "config": {"seed": 0},
        "inputs": {},
        "versions": {},
        "seconds": 1.5,
        "peak_memory_bytes": 10,
    }
    folder.mkdir(parents=True)
    (folder / "stage.json").write_text(json.dumps({**record, **changes}))


def test_every_stage_record_of_a_run_is_gathered_with_its_folder(tmp_path):
    write_record(tmp_path / "dataset", name="prepare")
    write_record(tmp_path / "train" / "din-base-seed0")
    found = gather_stages(tmp_path)
    assert {(stage.folder, stage.name, stage.seconds) for stage in found} == {
        ("dataset", "prepare", 1.5),
        ("train/din-base-seed0", "train", 1.5),
    }


def test_a_damaged_stage_record_is_named(tmp_path):
    write_record(tmp_path / "dataset", seconds="long")
    with pytest.raises(RunError, match=r"stage\.json: not a stage record"):
        gather_stages(tmp_path)


def test_curves_are_gathered_by_folder_and_metric(tmp_path):
    folder = tmp_path / "csft"
    folder.mkdir()
    lines = [{"step": 0, "loss": 3.0}, {"step": 5, "recall@10": 0.25}, {"step": 10, "loss": 2.0}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = {curve.metric: (curve.folder, curve.steps, curve.values) for curve in gather_curves(tmp_path)}
    assert found == {"loss": ("csft", [0, 10], [3.0, 2.0]), "recall@10": ("csft", [5], [0.25])}


@pytest.mark.parametrize("num", [150, 151, 1000])
def test_a_long_curve_is_thinned_to_means_and_keeps_its_last_point(tmp_path, num):
    values = np.random.default_rng(0).normal(size=num)
    lines = [json.dumps({"step": step, "loss": value}) for step, value in enumerate(values)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (curve,) = gather_curves(tmp_path, max_points=150)
    assert len(curve.steps) == len(curve.values) == min(num, 150)
    assert (curve.steps[-1], curve.values[-1]) == (num - 1, values[-1])
    assert curve.steps == sorted(set(curve.steps))
    starts = [number * (num - 1) // 149 for number in range(150)]
    groups = [values[first:last] for first, last in itertools.pairwise(starts)]
    np.testing.assert_allclose(curve.values[:-1], [group.mean() for group in groups])


def test_a_damaged_line_of_metrics_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "loss": 1.0}\n{"loss": 2.0}\n')
    with pytest.raises(
        RunError, match=r"metrics.jsonl: line 2: not a line of metrics \(KeyError\('step'\)\)"
    ):
        gather_curves(tmp_path)


def test_visual_search_is_gathered_by_encoder_and_part(tmp_path):
    (tmp_path / "csft").mkdir()
    (tmp_path / "csft" / "search.json").write_text(
        '{"test": {"all": {"mrr": 0.5}, "item:unseen": {"mrr": 0.1}}, "test_before": {"all": {"mrr": 0.25}}}'
    )
    found = [(item.encoder, item.part, item.slice, item.metrics) for item in gather_searches(tmp_path)]
    assert found == [
        ("csft", "test", "all", {"mrr": 0.5}),
        ("csft", "test", "item:unseen", {"mrr": 0.1}),
        ("csft", "test_before", "all", {"mrr": 0.25}),
    ]


@pytest.mark.parametrize("text", ["[]", '{"test": {"all": {"mrr": "high"}}}'])
def test_a_damaged_record_of_visual_search_is_named(tmp_path, text):
    (tmp_path / "search.json").write_text(text)
    with pytest.raises(RunError, match="not a record of visual search"):
        gather_searches(tmp_path)
