"""Search settings of ``mimctr train`` with Optuna, by validation AUC alone; the test part is not looked at.

mimctr sweep dataset --content embed --search learning_rate=log:1e-4:1e-2 --search ubm=din,sim --minutes 60 --out sweep
"""

import logging
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from mimctr import distributed
from mimctr.data.dataset import CtrDataset
from mimctr.errors import ConfigError, RunError
from mimctr.evaluate.sweeps import Choices, Space, State, Sweep, Trial
from mimctr.files import atomic_path, write_json
from mimctr.recipes.config import to_toml
from mimctr.recipes.ctr_config import Config as TrainConfig
from mimctr.recipes.ctr_fitting import Task, Watch, fit
from mimctr.recipes.ctr_model import build_model
from mimctr.recipes.device import pick_device
from mimctr.recipes.sweep_space import distribution, from_optuna, nearest, read_spaces, settings_of
from mimctr.recipes.train import make_run, open_dataset, open_vectors
from mimctr.report.sweep import sweep_figure
from mimctr.train.run import Run
from mimctr.train.stage import input_key

if TYPE_CHECKING:
    import optuna

logger = logging.getLogger(__name__)

JOURNAL, RESULTS, BEST, PICTURE = "journal.jsonl", "sweep.json", "best.toml", "sweep.png"
STUDY = "sweep"
SECONDS, REASON, MADE_OF = "seconds", "reason", "made_of"


class Config(BaseModel):
    """Settings of ``mimctr sweep``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    search: dict[str, Any] = Field(
        {},
        description="Settings of [train] to search, each with a range ('log:1e-4:1e-2', 'linear:0:0.5') or values "
        "('din,sim', or a list).",
    )
    minutes: float = Field(
        60.0,
        gt=0,
        description="Training time, that of earlier calls included. The trial that is then running stops at its next "
        "look at validation, unless none has finished.",
    )
    num_trials: int = Field(100, ge=1, description="Trials at most, those of earlier calls included.")
    num_random_trials: int = Field(
        10, ge=1, description="Trials drawn at random and never pruned; Optuna's TPE learns from them."
    )
    pruning: bool = Field(
        True,
        description="Stop a trial that a look finds below the median of earlier trials at the same look.",
    )
    seed: int = Field(0, ge=0, description="Of what is tried. Trials train with the seed of [train].")


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
        RunError: every trial failed, or a file of the dataset is damaged.
    """
    if distributed.size() > 1:
        raise ConfigError("sweep: runs in one process. Start it without torchrun.")
    optuna = _optuna()
    spaces = read_spaces(config.search, train)
    data = open_dataset(dataset)
    job = Job(dataset=data, content=content, out=out, config=config, train=train, spaces=spaces)
    refuse_unfit_settings(job)
    keys = {"dataset": input_key(dataset)} | ({} if content is None else {"content": input_key(content)})
    study = open_study(optuna, job, keys)
    while not is_over(study, config):
        try:
            run_trial(study, job, next_trial(study, job))
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
    content = open_vectors(job.dataset, job.content, config)
    build_model(job.dataset, config, content_dim=None if content is None else content.dim)


def open_study(optuna: ModuleType, job: Job, keys: Mapping[str, str]) -> "optuna.Study":
    """Return the study in the job's folder, begun if there is none.

    Raises:
        ConfigError: it is one of other data or settings.
        RunError: the folder holds something else.
    """
    journal = job.out / JOURNAL
    if not journal.exists() and job.out.exists() and any(job.out.iterdir()):
        raise RunError(f"{job.out}: not empty, and no sweep made it. Choose another folder.")
    job.out.mkdir(parents=True, exist_ok=True)
    backend = optuna.storages.journal.JournalFileBackend(str(journal))
    study = optuna.create_study(
        storage=optuna.storages.JournalStorage(backend),
        study_name=STUDY,
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=job.config.num_random_trials),
    )
    made_of = {
        "search": {name: space.model_dump(mode="json") for name, space in job.spaces.items()},
        "settings": job.train.model_dump(mode="json"),
        "sweep": job.config.model_dump(include={"num_random_trials", "pruning", "seed"}),
        **keys,
    }
    before = study.user_attrs.get(MADE_OF, made_of)
    changed = [name for name in made_of | before if made_of.get(name) != before.get(name)]
    if changed:
        raise ConfigError(
            f"{job.out}: holds a sweep with another {', '.join(changed)}. Choose another folder, or remove it."
        )
    if MADE_OF not in study.user_attrs:
        study.set_user_attr(MADE_OF, made_of)
        study.enqueue_trial(job.first)
    return study


def next_trial(study: "optuna.Study", job: Job) -> "optuna.Trial":
    """Return the trial that an earlier call left unfinished, else a new one.

    What is tried depends on the seed and the trials before it alone, so an interrupted sweep tries what an undisturbed
    one does.
    """
    optuna = _optuna()
    for trial in study.trials:
        if trial.state == optuna.trial.TrialState.RUNNING and trial.params.keys() == job.spaces.keys():
            return optuna.trial.Trial(study, trial._trial_id)
        if trial.state == optuna.trial.TrialState.RUNNING:
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)  # killed before it was drawn whole
    entropy = [job.config.seed, len(finished_trials(study))]
    study.sampler = optuna.samplers.TPESampler(
        seed=int(np.random.SeedSequence(entropy).generate_state(1)[0]),
        n_startup_trials=job.config.num_random_trials,
    )
    return study.ask({name: distribution(space) for name, space in job.spaces.items()})


def run_trial(study: "optuna.Study", job: Job, trial: "optuna.Trial") -> None:
    """Train with the settings of one trial, from its checkpoint where there is one, and tell Optuna its AUC."""
    optuna = _optuna()
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
        with closing(run):
            found = train_one(job, run, settings_of(settings, job.train), watch)
        study.tell(trial, found)
    except _TimeIsOver:
        return
    except optuna.TrialPruned:
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    except (ConfigError, RunError) as error:  # settings that do not go together, or a training that diverged
        trial.set_user_attr(REASON, str(error))
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        logger.warning("sweep: trial %d failed: %s", trial.number, error)
    run.checkpoint_path.unlink(missing_ok=True)


def train_one(job: Job, run: Run, config: TrainConfig, watch: Watch) -> float:
    """Return the best validation AUC of a training: that of the weights that ``mimctr train`` would keep."""
    content = open_vectors(job.dataset, job.content, config)
    task = Task(dataset=job.dataset, content=content, config=config, device=pick_device(config.device))
    model = build_model(job.dataset, config, content_dim=None if content is None else content.dim)
    return fit(model.to(task.device), run, task, watch=watch).best_auc


def finished_trials(study: "optuna.Study") -> list["optuna.trial.FrozenTrial"]:
    """Return the trials that are over, however they ended."""
    return [trial for trial in study.trials if trial.state.is_finished()]


def seconds_of(study: "optuna.Study") -> float:
    """Return how long all trials have trained."""
    return sum(trial.user_attrs.get(SECONDS, 0.0) for trial in study.trials)


def is_over(study: "optuna.Study", config: Config) -> bool:
    """Return whether the trials are used up, or the time, once there is a result."""
    over = finished_trials(study)
    has_result = any(trial.state.name == "COMPLETE" for trial in over)
    return len(over) >= config.num_trials or (has_result and seconds_of(study) >= 60 * config.minutes)


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


def _optuna() -> ModuleType:
    try:
        import optuna
    except ImportError:
        raise ConfigError('sweep: needs Optuna. Install it: pip install "mimctr[sweep]"') from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
