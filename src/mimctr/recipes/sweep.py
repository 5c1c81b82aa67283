"""Search settings of ``mimctr train`` with Optuna, by validation AUC alone; the test part is not looked at.

mimctr sweep dataset --content embed --search learning_rate=log:1e-4:1e-2 --search ubm=din,sim --minutes 60 --out sweep
"""

import logging
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimctr import distributed
from mimctr.data.dataset import CtrDataset
from mimctr.errors import ConfigError, MimctrError, RunError
from mimctr.evaluate.sweeps import Choices, Space, State, Sweep, Trial
from mimctr.files import atomic_path, write_json
from mimctr.recipes.config import to_toml
from mimctr.recipes.ctr_config import Config as TrainConfig
from mimctr.recipes.ctr_config import check_settings
from mimctr.recipes.ctr_fitting import Task, Watch, fit
from mimctr.recipes.ctr_model import build_model
from mimctr.recipes.device import pick_device
from mimctr.recipes.embed import content_folder
from mimctr.recipes.sweep_config import Config
from mimctr.recipes.sweep_space import from_optuna, nearest, read_spaces, settings_of
from mimctr.recipes.sweep_study import (
    LESS_MEMORY,
    SECONDS,
    counting_deaths,
    is_over,
    load_optuna,
    next_trial,
    open_study,
)
from mimctr.recipes.train import make_run, open_dataset, open_vectors
from mimctr.report.sweep import sweep_figure
from mimctr.train.memory import explain_out_of_memory
from mimctr.train.run import Run
from mimctr.train.stage import claimed, input_key

if TYPE_CHECKING:
    import optuna

logger = logging.getLogger(__name__)

__all__ = ["Config", "main"]

RESULTS, BEST, PICTURE = "sweep.json", "best.toml", "sweep.png"
REASON = "reason"


class _TimeIsOver(Exception):
    """The running trial has had its last look."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a sweep is made of."""

    dataset: CtrDataset
    content: Path | None
    out: Path
    config: Config
    train: TrainConfig
    spaces: Mapping[str, Space]

    @property
    def first(self) -> dict[str, Any]:
        """What Optuna is given to try first."""
        values = self.train.model_dump(mode="json")
        return {name: nearest(space, values[name]) for name, space in self.spaces.items()}

    def values(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that Optuna's parameters stand for."""
        return {name: from_optuna(space, found[name]) for name, space in self.spaces.items()}

    def run(self, number: int) -> Run:
        """Return the run of a trial."""
        return make_run(self.out / "trials" / str(number), self.train)


def main(dataset: Path, content: Path | None, out: Path, config: Config, train: TrainConfig) -> Sweep:
    """Try settings until time or trials are used up; a call after an interruption goes on from there.

    Written to ``out`` after every trial: ``sweep.json``, ``best.toml`` (for ``mimctr train --config``), ``sweep.png``.
    Optuna keeps its trials in ``journal.jsonl``; a trial's looks at validation are in its folder below ``trials``.

    Args:
        dataset: Written by ``mimctr prepare``.
        content: Written by ``mimctr embed``; None where only Base is tried.
        out: Created if missing.
        config: What is searched, and for how long.
        train: All other settings of the trials. The first trial is these settings, or the nearest that are searched.

    Raises:
        ConfigError: what is searched does not suit the settings, or ``out`` holds another sweep.
        DataError: the training part is empty, or it or the validation part has one class only.
        CenterError: the vectors are missing or damaged.
        RunError: every trial failed, a file of the dataset is damaged, another process works in ``out``, or the first
            trial's model does not fit into memory.
    """
    if distributed.size() > 1:
        raise ConfigError("sweep: runs in one process. Start it without torchrun.")
    load_optuna()
    spaces = read_spaces(config.search, train)
    data = open_dataset(dataset)
    pinned = content and content_folder(content)
    job = Job(dataset=data, content=pinned, out=out, config=config, train=train, spaces=spaces)
    refuse_unfit_settings(job)
    made_of = describe(job)
    with claimed(out):
        study = open_study(out, config, made_of=made_of, first=job.first)
        while not is_over(study, config):
            try:
                run_trial(study, job, next_trial(study, out, config, spaces))
            finally:
                sweep = write_sweep(study, job)
            tell_progress(sweep, config)
        sweep = write_sweep(study, job)
    if sweep.best is None:
        raise RunError(
            f"{out}: all {len(sweep.trials)} trials failed. The first one: {sweep.trials[0].reason}"
        )
    return sweep


def refuse_unfit_settings(job: Job) -> None:
    """Open what the trials read, before any of them starts.

    Raises:
        ConfigError: a variant reads content and none is given, a variant is not trained, or the settings do not go
            together.
    """
    searched = job.spaces.get("variant")
    for variant in searched.values if isinstance(searched, Choices) else [job.train.variant]:
        if variant == "untrained_cosine":
            raise ConfigError("sweep: the variant 'untrained_cosine' is not trained. Leave it out.")
        open_vectors(job.dataset, job.content, settings_of({"variant": variant}, job.train))
    config = settings_of(job.values(job.first), job.train)
    check_settings(config)
    content = open_vectors(job.dataset, job.content, config)
    with explain_out_of_memory("train", LESS_MEMORY):
        build_model(job.dataset, config, content_dim=None if content is None else content.dim)


def describe(job: Job) -> dict[str, Any]:
    """Return what must not change between two calls of a sweep, by name."""
    inputs = {"dataset": job.dataset.folder} | ({} if job.content is None else {"content": job.content})
    return {
        "search": {name: space.model_dump(mode="json") for name, space in job.spaces.items()},
        "settings": job.train.model_dump(mode="json"),
        "sweep": job.config.model_dump(include={"num_random_trials", "pruning", "seed"}),
        **{name: input_key(path) for name, path in inputs.items()},
    }


def run_trial(study: "optuna.Study", job: Job, trial: "optuna.Trial") -> None:
    """Train with the settings of one trial, from its checkpoint where there is one, and tell Optuna its AUC."""
    optuna = load_optuna()
    run = job.run(trial.number)
    settings = job.values(trial.params)
    known = study.trials[trial.number].intermediate_values
    begun = time.monotonic() - trial.user_attrs.get(SECONDS, 0.0)

    def watch(look: int, validation_auc: float) -> None:
        trial.set_user_attr(SECONDS, time.monotonic() - begun)
        if look not in known:
            trial.report(validation_auc, look)
        if job.config.pruning and trial.should_prune():
            raise optuna.TrialPruned
        if is_over(study, job.config):
            raise _TimeIsOver

    try:
        with closing(run), counting_deaths(trial, num_looks=len(known)):
            found = train_one(job, run, settings_of(settings, job.train), watch)
        study.tell(trial, found)
    except _TimeIsOver:
        return
    except optuna.TrialPruned:
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    except MimctrError as error:  # settings that do not go together, too large a model, scores that are NaN
        trial.set_user_attr(REASON, str(error))
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        logger.warning("sweep: trial %d failed: %s", trial.number, error)
    run.checkpoint_path.unlink(missing_ok=True)


def train_one(job: Job, run: Run, config: TrainConfig, watch: Watch) -> float:
    """Return the best validation AUC of a training: that of the weights that ``mimctr train`` would keep."""
    check_settings(config)
    content = open_vectors(job.dataset, job.content, config)
    task = Task(dataset=job.dataset, content=content, config=config, device=pick_device(config.device))
    with explain_out_of_memory("train", LESS_MEMORY):
        model = build_model(job.dataset, config, content_dim=None if content is None else content.dim)
        return fit(model.to(task.device), run, task, watch=watch).best_auc


def tell_progress(sweep: Sweep, config: Config) -> None:
    """Log how far the sweep is, the best trial and the time left."""
    over = [trial for trial in sweep.trials if trial.state != "unfinished"]
    spent = sum(trial.seconds for trial in sweep.trials)
    left = min(60 * config.minutes - spent, spent / max(len(over), 1) * (config.num_trials - len(over)))
    best = (
        "none yet" if sweep.best is None else f"{sweep.best.validation_auc:.4f} (trial {sweep.best.number})"
    )
    logger.info(
        "sweep: %d of %d trials, best validation AUC %s, %.1f of %.1f minutes, at most %.1f left",
        *(len(over), config.num_trials, best, spent / 60, config.minutes, max(left, 0.0) / 60),
    )


def write_sweep(study: "optuna.Study", job: Job) -> Sweep:
    """Write everything that the trials so far have shown, and return it."""
    fixed = {
        name: value for name, value in job.train.model_dump(mode="json").items() if name not in job.spaces
    }
    sweep = Sweep(
        search=dict(job.spaces),
        settings=fixed,
        dataset=job.dataset.folder.resolve().name,
        dataset_hash=job.dataset.manifest.source_hash,
        trials=[_trial(trial, job) for trial in study.trials if trial.params.keys() == job.spaces.keys()],
    )
    write_json(job.out / RESULTS, sweep.model_dump(mode="json"))
    with atomic_path(job.out / PICTURE) as temporary:
        sweep_figure(sweep).savefig(temporary, dpi=120)
    if sweep.best is not None:
        write_best(sweep.best, len(sweep.ranked), job)
    return sweep


def write_best(best: Trial, num_finished: int, job: Job) -> None:
    """Write the settings of the best trial as ``mimctr train`` takes them."""
    config = settings_of(best.settings, job.train)
    content = "" if job.content is None else f" --content {job.content}"
    text = (
        f"# Best of {num_finished} finished trials of 'mimctr sweep': validation AUC {best.validation_auc:.4f}.\n"
        f"#   mimctr train {job.dataset.folder}{content} --config {job.out / BEST} --out model\n"
        f"{to_toml('train', config.model_dump(mode='json', include=config.model_fields_set))}"
    )
    with atomic_path(job.out / BEST) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _trial(trial: "optuna.trial.FrozenTrial", job: Job) -> Trial:
    states: dict[str, State] = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed"}
    looks = trial.intermediate_values
    return Trial(
        number=trial.number,
        state=states.get(trial.state.name, "unfinished"),
        settings=job.values(trial.params),
        validation_auc=trial.value if trial.value is not None else looks[max(looks)] if looks else None,
        seconds=trial.user_attrs.get(SECONDS, 0.0),
        reason=trial.user_attrs.get(REASON),
    )
