"""What a sweep searches: ranges and values of settings, checked before anything starts."""

import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mimctr.errors import ConfigError
from mimctr.evaluate.sweeps import Choices, Range, Space
from mimctr.recipes.config import build_config
from mimctr.recipes.ctr_config import Config as TrainConfig

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

WHERE = "sweep.search"
NOT_SEARCHED = ("seed", "encoder", "device", "checkpoint_seconds", "tensorboard")
"""Settings of ``mimctr train`` that make no better model, or only by luck."""
SCALES = ("log", "linear")


def read_spaces(search: Mapping[str, Any], train: TrainConfig) -> dict[str, Space]:
    """Return what is searched, by setting.

    Args:
        search: By setting, a range (``log:1e-4:1e-2``, ``linear:0:0.5``), values separated by commas, or a list.
        train: All other settings.

    Raises:
        ConfigError: nothing is searched, or something that is no setting, has no two values, or does not suit it.
    """
    if not search:
        raise ConfigError(
            f"{WHERE}: nothing to search. Name settings of 'mimctr train' with their values: "
            "--search learning_rate=log:1e-4:1e-2 --search ubm=din,sim."
        )
    wrong = [name for name in search if name in NOT_SEARCHED]
    if wrong:
        raise ConfigError(f"{WHERE}: {wrong[0]}: not for searching. Set it for all trials, with --set.")
    return {name: _read_space(name, given, train) for name, given in search.items()}


def search_assignments(texts: Sequence[str]) -> list[str]:
    """Return ``setting=values`` of the command line as assignments to the settings of a sweep.

    Raises:
        ConfigError: one is not of that form.
    """
    for text in texts:
        name, equals, _ = text.partition("=")
        if not name or not equals:
            raise ConfigError(
                f"--search {text}: must have the form setting=values: learning_rate=log:1e-4:1e-2, or ubm=din,sim."
            )
        if "." in name:
            raise ConfigError(
                f"--search {text}: '{name}' is no setting of 'mimctr train'. Write it without its section; a table is "
                "searched as a whole: dims={item = 8},{item = 16}."
            )
    return [f"search.{text}" for text in texts]


def settings_of(found: Mapping[str, Any], train: TrainConfig) -> TrainConfig:
    """Return ``train`` with what a trial is to use.

    Raises:
        ConfigError: the values do not suit the settings.
    """
    given = train.model_dump(include=train.model_fields_set)
    return build_config(TrainConfig, given | dict(found), where=WHERE)


def distribution(space: Space) -> "BaseDistribution":
    """Return the space in Optuna's words; values stand there as text."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(space, Choices):
        return CategoricalDistribution([label(value) for value in space.values])
    log = space.scale == "log"
    if space.integer:
        return IntDistribution(int(space.low), int(space.high), log=log)
    return FloatDistribution(space.low, space.high, log=log)


def from_optuna(space: Space, found: Any) -> Any:
    """Return the value that Optuna's stands for."""
    if isinstance(space, Choices):
        return next(value for value in space.values if label(value) == found)
    return found


def nearest(space: Space, value: Any) -> Any:
    """Return ``value`` as Optuna knows it; the nearest end, or the first of the values, where the space lacks it."""
    if isinstance(space, Choices):
        labels = [label(value) for value in space.values]
        return label(value) if label(value) in labels else labels[0]
    return min(max(value, space.low), space.high)


def label(value: Any) -> str:
    """Return a value as text, which is how Optuna knows it."""
    return value if isinstance(value, str) else json.dumps(value)


def _read_space(name: str, given: Any, train: TrainConfig) -> Space:
    scale = given.partition(":")[0] if isinstance(given, str) else ""
    space = _range(name, given, train) if scale in SCALES else _choices(name, given)
    for value in (space.low, space.high) if isinstance(space, Range) else space.values:
        settings_of({name: value}, train)
    return space


def _range(name: str, given: str, train: TrainConfig) -> Range:
    scale, *ends = given.split(":")
    try:
        low, high = (float(end) for end in ends)
    except ValueError:
        raise ConfigError(f"{WHERE}: {name}: a range has the form {scale}:low:high, got '{given}'.") from None
    settings_of({name: high}, train)  # an unknown setting is told by its name
    kind = TrainConfig.model_fields[name].annotation
    if kind not in (int, float):
        raise ConfigError(f"{WHERE}: {name}: is not a number, so it has no range. Name its values: a,b.")
    if not -math.inf < low < high < math.inf:
        raise ConfigError(f"{WHERE}: {name}: a range goes from a lower to a higher number, got '{given}'.")
    if scale == "log" and low <= 0:
        raise ConfigError(f"{WHERE}: {name}: a log range starts above 0, got '{given}'. Use linear:low:high.")
    return Range(low=low, high=high, scale="log" if scale == "log" else "linear", integer=kind is int)


def _choices(name: str, given: Any) -> Choices:
    values = _listed(given) if isinstance(given, str) else given
    if not isinstance(values, list) or len({label(value) for value in values}) < 2:
        raise ConfigError(
            f"{WHERE}: {name}: needs two values at least (a,b) or a range (log:low:high, linear:low:high), "
            f"got '{given}'."
        )
    return Choices(values=list({label(value): value for value in values}.values()))


def _listed(text: str) -> list[Any]:
    """Return the values of ``a,b``: read as TOML, else as text."""
    try:
        return tomllib.loads(f"values = [{text}]")["values"]
    except tomllib.TOMLDecodeError:
        return [part.strip() for part in text.split(",")]
