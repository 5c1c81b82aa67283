"""A sweep's table and picture show the trials that there were, where they were."""

import pytest

from mimctr.evaluate.sweeps import Choices, Range, Sweep, Trial
from mimctr.report.sweep import sweep_figure, sweep_table

SEARCH = {
    "learning_rate": Range(low=1e-4, high=1e-1, scale="log", integer=False),
    "sim_k": Range(low=2, high=9, scale="linear", integer=True),
    "ubm": Choices(values=["din", "sim"]),
    "hidden_dims": Choices(values=[[8], [16, 8]]),
}


def trial(number: int, state: str, auc: float | None) -> Trial:
    settings = {
        "learning_rate": 1e-4 * 10**number,
        "sim_k": 2 + number,
        "ubm": ["din", "sim"][number % 2],
        "hidden_dims": [[8], [16, 8]][number // 2],
    }
    return Trial(
        number=number, state=state, settings=settings, validation_auc=auc, seconds=60.0 * number, reason=None
    )


@pytest.fixture
def sweep() -> Sweep:
    trials = [
        trial(0, "finished", 0.6),
        trial(1, "failed", None),
        trial(2, "pruned", 0.55),
        trial(3, "finished", 0.7),
    ]
    return Sweep(search=SEARCH, settings={}, dataset="shop", dataset_hash="x", trials=trials)


def test_the_best_is_a_finished_trial_and_of_equals_the_first(sweep: Sweep):
    assert [t.number for t in sweep.ranked] == [3, 0]
    equals = [trial(0, "pruned", 0.9), trial(1, "finished", 0.7), trial(2, "finished", 0.7)]
    assert sweep.model_copy(update={"trials": equals}).best.number == 1
    assert sweep.model_copy(update={"trials": equals[:1]}).best is None


def test_the_table_ranks_the_finished_trials_and_counts_the_others(sweep: Sweep):
    lines = sweep_table(sweep).splitlines()
    rows = [line.split() for line in lines if line.strip()[:1].isdigit() and "0." in line]
    assert rows == [
        ["3", "0.7000", "180", "0.1", "5", "sim", "[16,", "8]"],
        ["0", "0.6000", "0", "0.0001", "2", "din", "[8]"],
    ]
    assert lines[-1] == "2 finished, 1 pruned, 1 failed"


def test_every_trial_with_an_auc_stands_at_its_value_in_every_panel(sweep: Sweep):
    # Mutants: values paired with the AUC of another trial; failed trials shown at 0.
    panels = sweep_figure(sweep).axes
    assert [axes.get_title("left") for axes in panels] == ["By trial", *SEARCH]
    expected = {"finished": [(0.6, 0), (0.7, 3)], "pruned": [(0.55, 2)]}
    places = [
        lambda t: t.number,
        lambda t: t.settings["learning_rate"],
        lambda t: t.settings["sim_k"],
        lambda t: ["din", "sim"].index(t.settings["ubm"]),
        lambda t: [[8], [16, 8]].index(t.settings["hidden_dims"]),
    ]
    for axes, place in zip(panels, places, strict=True):
        shown = {line.get_label(): line for line in axes.lines if line.get_label() in expected}
        assert shown.keys() == expected.keys()
        for state, points in expected.items():
            assert list(shown[state].get_ydata()) == [auc for auc, _ in points]
            assert list(shown[state].get_xdata()) == [place(sweep.trials[number]) for _, number in points]
    best = next(line for line in panels[0].lines if line.get_label() == "best so far")
    assert (list(best.get_xdata()), list(best.get_ydata())) == ([0, 3], [0.6, 0.7])
    assert panels[1].get_xscale() == "log"
    assert [text.get_text() for text in panels[3].get_xticklabels()] == ["din", "sim"]


def test_a_sweep_without_results_has_a_picture_too(sweep: Sweep, tmp_path):
    sweep_figure(sweep.model_copy(update={"trials": []})).savefig(tmp_path / "sweep.png")
    assert "finished" not in sweep_table(sweep.model_copy(update={"trials": []}))
