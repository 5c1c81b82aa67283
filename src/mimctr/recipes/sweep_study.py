"""Optuna's side of a sweep: the study in its journal, which trial comes next, and when it is over."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from mimctr.errors import ConfigError, RunError
from mimctr.evaluate.sweeps import Space
from mimctr.recipes.sweep_config import Config
from mimctr.recipes.sweep_space import distribution

if TYPE_CHECKING:
    import optuna

JOURNAL, STUDY = "journal.jsonl", "sweep"
SECONDS, MADE_OF, KILLED = "seconds", "made_of", "killed"
MAX_RESUMED = 3
"""How often a trial is taken up again whose process was killed, without a look at validation between."""
LESS_MEMORY = "Leave such settings out of the search, or choose a smaller batch_size."


def load_optuna() -> ModuleType:
    """Return Optuna, with warnings only.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise ConfigError('sweep: needs Optuna. Install it: pip install "mimctr[sweep]"') from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def open_study(
    folder: Path, config: Config, *, made_of: Mapping[str, Any], first: Mapping[str, Any]
) -> "optuna.Study":
    """Return the study in ``folder``, begun if there is none.

    Args:
        folder: Of the sweep; created if missing.
        config: Settings of the sweep.
        made_of: What must not change between two calls, by name.
        first: Optuna's parameters of the trial that a new study begins with.

    Raises:
        ConfigError: it is one of other data or settings.
        RunError: the folder holds something else.
    """
    optuna = load_optuna()
    if not (folder / JOURNAL).exists() and folder.exists() and any(folder.iterdir()):
        raise RunError(f"{folder}: not empty, and no sweep made it. Choose another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=_storage(folder),
        study_name=STUDY,
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=config.num_random_trials),
    )
    before = study.user_attrs.get(MADE_OF, made_of)
    changed = _differences(made_of, before)
    if changed:
        raise ConfigError(
            f"{folder}: holds a sweep with another {', '.join(changed)}. Choose another folder, or remove it."
        )
    if MADE_OF not in study.user_attrs:
        study.set_user_attr(MADE_OF, dict(made_of))
        study.enqueue_trial(dict(first))
    return study


def next_trial(
    study: "optuna.Study", folder: Path, config: Config, spaces: Mapping[str, Space]
) -> "optuna.Trial":
    """Return the trial that an earlier call left unfinished, else a new one.

    What is tried depends on the seed and the trials before it alone, so an interrupted sweep tries what an undisturbed
    one does.

    Args:
        study: From :func:`open_study`.
        folder: Where it is.
        config: Settings of the sweep.
        spaces: What is searched, by setting.
    """
    optuna = load_optuna()
    for trial in study.trials:
        if trial.state == optuna.trial.TrialState.RUNNING and trial.params.keys() == spaces.keys():
            storage = _storage(folder)
            study_id = storage.get_study_id_from_name(STUDY)
            trial_id = storage.get_trial_id_from_study_id_trial_number(study_id, trial.number)
            return optuna.trial.Trial(study, trial_id)
        if trial.state == optuna.trial.TrialState.RUNNING:
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)  # killed before it was drawn whole
    entropy = [config.seed, len(finished_trials(study))]
    study.sampler = optuna.samplers.TPESampler(
        seed=int(np.random.SeedSequence(entropy).generate_state(1)[0]),
        n_startup_trials=config.num_random_trials,
    )
    return study.ask({name: distribution(space) for name, space in spaces.items()})


@contextlib.contextmanager
def counting_deaths(trial: "optuna.Trial", *, num_looks: int) -> Iterator[None]:
    """Count a process that is killed while it trains: one that lives takes itself out of the count again.

    Args:
        trial: What is trained.
        num_looks: At validation that it has had; deaths before the last one do not count.

    Raises:
        RunError: too many processes were killed.
    """
    counted = trial.user_attrs.get(KILLED, {})
    deaths = counted["deaths"] if counted.get("num_looks") == num_looks else 0
    if deaths > MAX_RESUMED:
        raise RunError(
            f"train: its process was killed {deaths} times before the next look at validation, as the system does "
            f"where memory is short. {LESS_MEMORY}"
        )
    trial.set_user_attr(KILLED, {"num_looks": num_looks, "deaths": deaths + 1})
    try:
        yield
    finally:
        trial.set_user_attr(KILLED, {"num_looks": num_looks, "deaths": deaths})


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


def _differences(made_of: Mapping[str, Any], before: Mapping[str, Any]) -> list[str]:
    """Return the names of what differs; of a table, those of its differing entries."""
    found = []
    for name in {**made_of, **before}:
        here, there = made_of.get(name), before.get(name)
        if isinstance(here, Mapping) and isinstance(there, Mapping):
            found += [f"{name}.{key}" for key in {**here, **there} if here.get(key) != there.get(key)]
        elif here != there:
            found.append(name)
    return found


def _storage(folder: Path) -> "optuna.storages.JournalStorage":
    optuna = load_optuna()
    backend = optuna.storages.journal.JournalFileBackend(str(folder / JOURNAL))
    return optuna.storages.JournalStorage(backend)
