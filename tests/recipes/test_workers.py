"""Several models trained at a time: the same models, and nothing left behind however they end."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mimctr.errors import ConfigError, RunError
from mimctr.recipes import stages
from mimctr.recipes.prepare import Config as PrepareConfig
from mimctr.recipes.train import Config
from mimctr.recipes.workers import Training, run_trainings
from mimctr.weights import load_tensors
from recipes.test_train import SMALL, write_shop


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workers")
    write_shop(folder / "tables")
    stages.prepare(
        folder / "tables", folder / "dataset", PrepareConfig(test_fraction=0.2, validation_fraction=0.1)
    ).run()
    return folder / "dataset"


def trainings(dataset: Path, out: Path) -> list[Training]:
    return [
        Training(dataset, None, out / ubm, Config(ubm=ubm, variant="base", seed=3, **SMALL))
        for ubm in ("mean", "din")
    ]


class Killed(Training):
    """A training whose process is killed."""

    def run(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Sleeping(Training):
    """A training that says who trains it, and takes longer than any test."""

    def run(self) -> None:
        self.folder.mkdir(parents=True)
        (self.folder / str(os.getpid())).touch()
        time.sleep(600)


def test_models_are_the_same_however_many_are_trained_at_a_time(dataset, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        run_trainings(trainings(dataset, tmp_path / "two"), num_workers=2)
    said = [record.getMessage() for record in caplog.records]
    assert any(line.startswith("train din base: validation AUC") for line in said)  # said by the worker
    assert any("2 of 2 models" in line for line in said)
    run_trainings(trainings(dataset, tmp_path / "one"), num_workers=1)
    for ubm in ("mean", "din"):
        one, two = (
            load_tensors(tmp_path / name / ubm / "predictions.safetensors")[0] for name in ("one", "two")
        )
        assert one["logit"].allclose(two["logit"], atol=1e-4)


def test_what_is_trained_starts_no_process(dataset, tmp_path, caplog, monkeypatch):
    run_trainings(trainings(dataset, tmp_path), num_workers=1)
    monkeypatch.setattr(
        "mimctr.recipes.workers._run_in_pool", lambda *_: pytest.fail("nothing is left to train")
    )
    run_trainings(trainings(dataset, tmp_path), num_workers=2)
    changed = [
        one._replace(config=one.config.model_copy(update={"seed": 4})) for one in trainings(dataset, tmp_path)
    ]
    assert not any(one.is_made() for one in changed)


def test_an_error_is_the_one_of_a_single_process_and_ends_the_others(dataset, tmp_path):
    wrong = Training(dataset, None, tmp_path / "wrong", Config(ubm="mean", variant="mim", **SMALL))
    sleeping = Sleeping(dataset, None, tmp_path / "sleeping", Config(variant="base", **SMALL))
    with pytest.raises(ConfigError, match="the variant 'mim' reads content vectors, and none are given"):
        run_trainings([sleeping, wrong], num_workers=2)


def test_a_process_killed_from_outside_is_told_in_one_line(dataset, tmp_path):
    config = Config(variant="base", **SMALL)
    killed = [Killed(dataset, None, tmp_path / name, config) for name in ("one", "two")]
    with pytest.raises(RunError, match=r"^train: one of its processes was killed.*models\.num_workers"):
        run_trainings(killed, num_workers=2)


@pytest.mark.slow
def test_no_process_outlives_the_one_that_started_it(tmp_path):
    script = (
        "from pathlib import Path\n"
        "from mimctr.recipes.train import Config\n"
        "from mimctr.recipes.workers import run_trainings\n"
        "from recipes.test_workers import Sleeping\n"
        "if __name__ == '__main__':\n"
        "    config = Config(variant='base')\n"
        "    run_trainings([Sleeping(Path('none'), None, Path(n), config) for n in 'ab'], num_workers=2)\n"
    )
    (tmp_path / "script.py").write_text(script)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    parent = subprocess.Popen([sys.executable, "script.py"], cwd=tmp_path, env=environment)
    workers = wait_for(
        lambda: [int(path.name) for name in "ab" for path in (tmp_path / name).glob("*")], count=2
    )
    parent.kill()
    parent.wait()
    wait_for(lambda: [worker for worker in workers if not is_alive(worker)], count=2)


def wait_for(found, *, count: int) -> list[int]:
    """Wait until there are ``count``; the limit only keeps a broken test from hanging."""
    for _ in range(600):
        values = found()
        if len(values) == count:
            return values
        time.sleep(0.2)
    raise AssertionError(f"{len(values)} of {count} after two minutes")


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
