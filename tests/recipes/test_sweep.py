"""A sweep tries what it was asked to, judges by validation alone, and goes on where it was stopped."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from numpy import ndarray
from typer.testing import CliRunner

from mimctr.cli import app
from mimctr.errors import ConfigError, RunError
from mimctr.evaluate.sweeps import Choices, Range, Sweep
from mimctr.recipes import ctr_fitting, sweep, sweep_study
from mimctr.recipes.config import load_config
from mimctr.recipes.ctr_config import Config as TrainConfig
from mimctr.recipes.sweep_space import read_spaces
from mimctr.recipes.train import main as train_main
from mimctr.train.stage import claimed
from recipes.test_train import SMALL, shop, turn_test_clicks  # noqa: F401

SEARCH = {"learning_rate": "log:1e-4:1e-1", "hidden_dims": "[8],[16,8]", "sim_k": "linear:2:9"}
BASE = SMALL | {"variant": "base", "ubm": "sim", "checkpoint_seconds": 0.0}


def run(folder: Path, out: Path, *, train: dict[str, Any] | None = None, **settings: Any) -> Sweep:
    config = sweep.Config(**({"search": SEARCH, "num_trials": 5, "num_random_trials": 3} | settings))
    return sweep.main(
        folder / "dataset", folder / "content", out, config, TrainConfig(**(BASE | (train or {})))
    )


def without_seconds(found: Sweep) -> list[dict[str, Any]]:
    return [trial.model_dump(exclude={"seconds"}) for trial in found.trials]


def measured(aucs: dict[int, list[float]]) -> Callable[..., dict[str, float]]:
    """A validation part whose AUC is known beforehand, by trial and look."""
    order = [auc for number in sorted(aucs) for auc in aucs[number]]
    return lambda *_: {"auc": order.pop(0)}


def end_at(
    fatal: int, folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch, *, killed: bool = False
) -> None:
    """Run a sweep of two trials that ends at a step: by Ctrl-C, or killed, after which it writes nothing more."""
    real, kept = ctr_fitting.take_step, out.with_suffix(".jsonl")

    def ended(*arguments: object, step: int, **named: object) -> float:
        if step == fatal:
            shutil.copy(out / sweep_study.JOURNAL, kept)
            raise KeyboardInterrupt
        return real(*arguments, step=step, **named)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ctr_fitting, "take_step", ended)
        run(folder, out, num_trials=2)
    if killed:
        shutil.copy(kept, out / sweep_study.JOURNAL)


@pytest.fixture(scope="module")
def undisturbed(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Sweep]:  # noqa: F811
    out = tmp_path_factory.mktemp("sweep") / "out"
    return out, run(shop, out)


class TestSpaces:
    TRAIN = TrainConfig(ubm="din")

    def test_ranges_and_values_are_read(self):
        spaces = read_spaces(
            {
                "learning_rate": "log:1e-4:1e-2",
                "epochs": "linear:1:4",
                "ubm": "din, sim",
                "bf16": "true,false",
                "hidden_dims": [[64], [128, 64]],
                "dims": "{item = 8},{item = 16}",
            },
            self.TRAIN,
        )
        assert spaces == {
            "learning_rate": Range(low=1e-4, high=1e-2, scale="log", integer=False),
            "epochs": Range(low=1, high=4, scale="linear", integer=True),
            "ubm": Choices(values=["din", "sim"]),
            "bf16": Choices(values=[True, False]),
            "hidden_dims": Choices(values=[[64], [128, 64]]),
            "dims": Choices(values=[{"item": 8}, {"item": 16}]),
        }

    @pytest.mark.parametrize(
        ("search", "line"),
        [
            ({}, "nothing to search. Name settings of 'mimctr train'"),
            ({"learning_rat": "log:1e-4:1"}, "learning_rat: unknown key. Did you mean 'learning_rate'?"),
            ({"learning_rat": "1,2"}, "learning_rat: unknown key. Did you mean 'learning_rate'?"),
            ({"seed": "1,2"}, "seed: not for searching. Set it for all trials, with --set."),
            (
                {"ubm": "din,sin"},
                "ubm: Input should be 'mean', 'din', 'dien', 'bst', 'sim' or 'twin', got 'sin'.",
            ),
            ({"ubm": "log:1:2"}, "ubm: Input should be"),
            ({"bf16": "linear:0:1"}, "bf16: is not a number, so it has no range. Name its values: a,b."),
            ({"dropout": "linear:0.5:1"}, "dropout: Input should be less than 1, got 1.0."),
            ({"epochs": "linear:1:2.5"}, "epochs: Input should be a valid integer"),
            (
                {"dropout": "log:0:0.5"},
                "dropout: a log range starts above 0, got 'log:0:0.5'. Use linear:low:high.",
            ),
            (
                {"dropout": "linear:0.5:0.1"},
                "a range goes from a lower to a higher number, got 'linear:0.5:0.1'.",
            ),
            (
                {"learning_rate": "log:1:inf"},
                "learning_rate: Input should be a finite number, got inf.",
            ),
            ({"dropout": "linear:0.5"}, "dropout: a range has the form linear:low:high, got 'linear:0.5'."),
            ({"dropout": "linear:a:b"}, "dropout: a range has the form linear:low:high, got 'linear:a:b'."),
            ({"dropout": "uniform:0:0.5"}, "dropout: needs two values at least (a,b) or a range"),
            ({"dropout": 0.5}, "dropout: needs two values at least (a,b) or a range"),
            ({"dropout": [0.5, 0.5]}, "dropout: needs two values at least (a,b) or a range"),
        ],
    )
    def test_what_cannot_be_searched_is_one_line(self, search: dict[str, Any], line: str):
        with pytest.raises(ConfigError) as caught:
            read_spaces(search, self.TRAIN)
        assert line in str(caught.value)
        assert str(caught.value).startswith("sweep.search: ")
        assert "\n" not in str(caught.value)


class TestTrials:
    def test_the_first_trial_is_the_settings_as_they_are(self, shop: Path, tmp_path: Path):  # noqa: F811
        settings = {"learning_rate": 0.02, "hidden_dims": (16, 8), "sim_k": 50}
        first = run(shop, tmp_path / "out", num_trials=1, train=settings).trials[0]
        assert first.settings == {"learning_rate": 0.02, "hidden_dims": [16, 8], "sim_k": 9}

    def test_every_trial_lies_within_the_search(self, undisturbed: tuple[Path, Sweep]):
        found = undisturbed[1]
        assert [trial.number for trial in found.trials] == list(range(5))
        for trial in found.trials:
            assert 1e-4 <= trial.settings["learning_rate"] <= 1e-1
            assert trial.settings["hidden_dims"] in ([8], [16, 8])
            assert trial.settings["sim_k"] in range(2, 10)
        assert len({trial.settings["learning_rate"] for trial in found.trials}) == 5

    def test_the_best_settings_train_the_model_that_the_trial_had(
        self,
        undisturbed: tuple[Path, Sweep],
        shop: Path,  # noqa: F811
        tmp_path: Path,
    ):
        # Mutants: the trial's own settings lost; the AUC of the last look in place of the best one.
        out, found = undisturbed
        config = load_config(TrainConfig, out / "best.toml", section="train")
        assert config.model_dump(mode="json") == found.settings | found.best.settings
        validation = train_main(shop / "dataset", None, tmp_path, config)
        assert validation["auc"] == found.best.validation_auc
        assert found.best.validation_auc == max(t.validation_auc for t in found.ranked)

    def test_everything_is_on_disk(self, undisturbed: tuple[Path, Sweep]):
        out, found = undisturbed
        assert Sweep.model_validate_json((out / "sweep.json").read_text()) == found
        assert (out / "sweep.png").read_bytes()[:4] == b"\x89PNG"
        for trial in found.trials:
            lines = (out / "trials" / str(trial.number) / "metrics.jsonl").read_text().splitlines()
            aucs = [json.loads(line)["validation_auc"] for line in lines]
            assert trial.validation_auc == (max(aucs) if trial.state == "finished" else aucs[-1])
            assert trial.seconds > 0
        assert not list(out.rglob("checkpoint.safetensors"))

    def test_the_test_part_has_no_say(
        self,
        undisturbed: tuple[Path, Sweep],
        shop: Path,  # noqa: F811
        tmp_path: Path,
    ):
        # Mutant: trials judged by the test part. Its clicks turned round must not change a single trial.
        turn_test_clicks(shop, tmp_path)
        found = sweep.main(
            tmp_path / "dataset",
            None,
            tmp_path / "out",
            sweep.Config(search=SEARCH, num_trials=5, num_random_trials=3),
            TrainConfig(**BASE),
        )
        assert without_seconds(found) == without_seconds(undisturbed[1])

    def test_a_pruned_trial_is_not_the_best(
        self,
        shop: Path,  # noqa: F811
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ):
        # Below the median at the first look, however good it might have become.
        aucs = {0: [0.6, 0.61, 0.6, 0.6], 1: [0.6, 0.62, 0.6, 0.6], 2: [0.5]}
        monkeypatch.setattr(ctr_fitting, "measure", measured(aucs))
        found = run(shop, tmp_path / "out", num_trials=3, num_random_trials=2)
        assert [(trial.state, trial.validation_auc) for trial in found.trials] == [
            ("finished", 0.61),
            ("finished", 0.62),
            ("pruned", 0.5),
        ]
        assert found.best.number == 1
        monkeypatch.setattr(ctr_fitting, "measure", measured(aucs | {2: [0.5, 0.6, 0.7, 0.6]}))
        found = run(shop, tmp_path / "all", num_trials=3, num_random_trials=2, pruning=False)
        assert (found.best.number, found.best.validation_auc) == (2, 0.7)

    def test_a_training_that_diverges_is_a_failed_trial(self, shop: Path, tmp_path: Path):  # noqa: F811
        search = {"learning_rate": "1e30,0.01"}
        found = run(shop, tmp_path / "out", search=search, num_trials=4, train={"learning_rate": 1e30})
        assert found.trials[0].state == "failed"
        assert "training has diverged" in found.trials[0].reason
        assert found.best.settings == {"learning_rate": 0.01}

    def test_a_look_that_finds_no_numbers_is_a_failed_trial(
        self,
        shop: Path,  # noqa: F811
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ):
        # Mutant: the sweep ends with it, and begins with the same trial whenever it is called again.
        real, looks = ctr_fitting.predict, []

        def diverged(*arguments: object) -> ndarray:
            looks.append(real(*arguments))
            return looks[-1] * (float("nan") if len(looks) == 1 else 1)

        monkeypatch.setattr(ctr_fitting, "predict", diverged)
        found = run(shop, tmp_path / "out", num_trials=2)
        assert [trial.state for trial in found.trials] == ["failed", "finished"]
        assert "scores are NaN" in found.trials[0].reason

    def test_a_model_that_is_too_large_is_a_failed_trial(self, shop: Path, tmp_path: Path):  # noqa: F811
        search = {"hidden_dims": [[1, 4 * 10**14], [8]]}
        found = run(shop, tmp_path / "out", search=search, num_trials=4, train={"hidden_dims": (8,)})
        by_dims = {str(trial.settings["hidden_dims"]): trial for trial in found.trials}
        assert by_dims["[8]"].state == "finished"
        assert by_dims["[1, 400000000000000]"].reason == (
            "train: out of memory; 1,490,116.12 GiB more were asked for. Leave such settings out of the search, or "
            "choose a smaller batch_size."
        )
        with pytest.raises(
            RunError, match=r"^train: out of memory; .* Leave such settings out of the search"
        ):
            run(shop, tmp_path / "none", search=search, train={"hidden_dims": (1, 4 * 10**14)})
        assert not (tmp_path / "none").exists()

    def test_a_sweep_without_a_result_says_why(self, shop: Path, tmp_path: Path):  # noqa: F811
        search = {"learning_rate": "1e30,1e31"}
        with pytest.raises(RunError, match=r"all 2 trials failed\. The first one: train: the loss is"):
            run(shop, tmp_path / "out", search=search, num_trials=2)
        assert not (tmp_path / "out" / "best.toml").exists()


class TestGoingOn:
    def test_an_interrupted_sweep_ends_where_an_undisturbed_one_ends(
        self,
        undisturbed: tuple[Path, Sweep],
        shop: Path,  # noqa: F811
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ):
        # Killed within the third trial and between trials. Mutants: the sampler's state lost; the trial begun anew.
        real, steps = ctr_fitting.take_step, []

        def killed(*arguments: object, step: int, **named: object) -> float:
            steps.append(step)
            if len(steps) == 41:
                raise KeyboardInterrupt
            return real(*arguments, step=step, **named)

        out = tmp_path / "out"
        monkeypatch.setattr(ctr_fitting, "take_step", killed)
        with pytest.raises(KeyboardInterrupt):
            run(shop, out)
        kept = Sweep.model_validate_json((out / "sweep.json").read_text())
        assert [trial.state for trial in kept.trials] == ["finished", "finished", "unfinished"]
        assert (out / "best.toml").exists()
        monkeypatch.undo()
        fatal = steps[-1]
        steps.clear()

        def noted(*arguments: object, step: int, **named: object) -> float:
            steps.append(step)
            return real(*arguments, step=step, **named)

        monkeypatch.setattr(ctr_fitting, "take_step", noted)
        run(shop, out, num_trials=4)
        assert steps[0] == fatal
        assert without_seconds(run(shop, out)) == without_seconds(undisturbed[1])
        for number in range(5):
            name = Path("trials") / str(number) / "metrics.jsonl"
            assert (out / name).read_text() == (undisturbed[0] / name).read_text()

    def test_a_trial_that_kills_its_process_is_given_up(
        self,
        shop: Path,  # noqa: F811
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ):
        # As the system's killer does where memory is short. Mutants: every call begins with it again; Ctrl-C counts.
        out = tmp_path / "out"
        for _ in range(5):
            end_at(0, shop, out, monkeypatch)
        for _ in range(4):
            end_at(0, shop, out, monkeypatch, killed=True)
        found = run(shop, out, num_trials=2)
        assert [trial.state for trial in found.trials] == ["failed", "finished"]
        assert found.trials[0].reason == (
            "train: its process was killed 4 times before the next look at validation, as the system does where memory "
            "is short. Leave such settings out of the search, or choose a smaller batch_size."
        )

    def test_a_trial_that_gets_on_is_not_given_up(
        self,
        shop: Path,  # noqa: F811
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ):
        # Mutant: deaths before the last look count.
        for step in (0, 0, 0, 7, 7, 7, 7):
            end_at(step, shop, tmp_path / "out", monkeypatch, killed=True)
        assert [trial.state for trial in run(shop, tmp_path / "out", num_trials=1).trials] == ["finished"]

    def test_a_finished_sweep_trains_nothing(
        self,
        undisturbed: tuple[Path, Sweep],
        shop: Path,  # noqa: F811
        monkeypatch: pytest.MonkeyPatch,
    ):
        monkeypatch.setattr(sweep, "train_one", None)
        assert run(shop, undisturbed[0]) == undisturbed[1]

    def test_time_stops_the_running_trial_once_there_is_a_result(
        self,
        shop: Path,  # noqa: F811
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ):
        out = tmp_path / "out"
        alone = run(shop, out, minutes=1e-9)
        assert [trial.state for trial in alone.trials] == ["finished"]
        looks = []
        real = sweep_study.seconds_of

        def hurried(study: Any) -> float:
            looks.append(study)
            return real(study) if len(looks) < 3 else 1e9

        monkeypatch.setattr(sweep_study, "seconds_of", hurried)
        stopped = run(shop, out, minutes=60)
        assert [trial.state for trial in stopped.trials] == ["finished", "unfinished"]
        monkeypatch.undo()
        assert [trial.state for trial in run(shop, out, num_trials=2).trials] == ["finished", "finished"]

    @pytest.mark.parametrize(
        ("changed", "what"),
        [
            ({"search": SEARCH | {"dropout": "0.1,0.2"}}, "search.dropout"),
            ({"train": {"epochs": 2}}, "settings.epochs"),
            ({"seed": 1}, "sweep.seed"),
        ],
    )
    def test_another_sweep_is_not_mixed_in(
        self,
        changed: dict[str, Any],
        what: str,
        undisturbed: tuple[Path, Sweep],
        shop: Path,  # noqa: F811
    ):
        with pytest.raises(
            ConfigError, match=f"holds a sweep with another {what}. Choose another folder, or"
        ):
            run(shop, undisturbed[0], **changed)

    def test_a_folder_of_something_else_is_left_alone(self, shop: Path, tmp_path: Path):  # noqa: F811
        (tmp_path / "notes.txt").write_text("mine")
        with pytest.raises(RunError, match="not empty, and no sweep made it"):
            run(shop, tmp_path)


class TestBadInput:
    def test_settings_that_no_trial_can_train_with_are_refused_at_once(
        self,
        shop: Path,  # noqa: F811
        tmp_path: Path,
    ):
        for settings, line in (
            ({"dims": {"itm": 3}}, "'itm' is no table of this model. Did you mean 'item'?"),
            ({"variant": "untrained_cosine"}, "the variant 'untrained_cosine' is not trained"),
        ):
            with pytest.raises(ConfigError, match=line):
                run(shop, tmp_path / "out", train=settings)
        assert not (tmp_path / "out").exists()

    def test_settings_that_do_not_go_together_are_a_failed_trial(self, shop: Path, tmp_path: Path):  # noqa: F811
        # Mutant: Base+MIM with MIM+'s search is tried, and may be the best.
        search = {"sim_search": ["soft", "content"]}
        found = run(shop, tmp_path / "out", search=search, num_trials=4, train={"variant": "mim"})
        by_search = {trial.settings["sim_search"]: (trial.state, trial.reason) for trial in found.trials}
        assert by_search["soft"] == ("finished", None)
        assert by_search["content"][0] == "failed"
        assert "which 'sim' has in the variant 'mim_plus' alone" in by_search["content"][1]

    def test_a_sweep_that_another_process_is_at_is_left_to_it(self, shop: Path, tmp_path: Path):  # noqa: F811
        with claimed(tmp_path / "out"), pytest.raises(RunError, match="another process is filling it"):
            run(shop, tmp_path / "out")

    def test_content_is_asked_for_where_a_variant_reads_it(self, shop: Path, tmp_path: Path):  # noqa: F811
        config = sweep.Config(search={"variant": "base,mim"})
        with pytest.raises(ConfigError, match="'mim' reads content vectors, and none are given"):
            sweep.main(shop / "dataset", None, tmp_path / "out", config, TrainConfig(**BASE))

    def test_a_missing_optuna_is_one_line(
        self,
        shop: Path,  # noqa: F811
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ):
        monkeypatch.setitem(sys.modules, "optuna", None)
        with pytest.raises(ConfigError, match=r'needs Optuna. Install it: pip install "mimctr\[sweep\]"'):
            run(shop, tmp_path / "out")


def test_the_command_prints_the_best_trials(shop: Path, tmp_path: Path):  # noqa: F811
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        '[train]\nvariant = "base"\nhidden_dims = [16]\n[sweep.search]\nubm = ["mean", "din"]\n'
    )
    words = ["sweep", shop / "dataset", "--config", recipe, "--search", "batch_size=512,1024"]
    words += ["--num-trials", 2, "--out", tmp_path / "out", "--set", "max_length=5"]
    shown = CliRunner().invoke(app, [str(word) for word in words])
    assert shown.exit_code == 0, shown.stderr
    assert "2 finished" in shown.stdout
    assert f"best settings  {tmp_path / 'out' / 'best.toml'}" in shown.stdout
    found = json.loads(CliRunner().invoke(app, [str(word) for word in [*words, "--json"]]).stdout)
    assert set(found["search"]) == {"ubm", "batch_size"}
    assert found["settings"]["max_length"] == 5
