"""Reproductions of parts of the paper, made on several machines, as one."""

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from mimctr.errors import DataError, first_of
from mimctr.evaluate.paper.encoders import EXCHANGE, exchange_figure
from mimctr.evaluate.paper.schema import Figure, Finding, Gallery, Part, Point, Reproduction, Step, Table

Shown = TypeVar("Shown", Table, Figure)
Value = TypeVar("Value")
ORDER = (
    "table 1",
    "age profile",
    "table 2",
    "table 2, by category",
    "calibration",
    "figure 6",
    "gain by support",
    "data efficiency",
    "table 7",
    "table 3",
    "table 4",
    "table 5",
    "figure 5",
    "pairs",
    EXCHANGE,
    "table 6",
    "table 6, inference",
    "online",
    "extensions",
    "peers",
)
"""Keys of tables and figures as a reproduction shows them."""


def join(parts: Mapping[str, Reproduction], *, command: str) -> Reproduction:
    """Return reproductions of different experiments, of the same data, settings and seeds, as one.

    A table or figure is in one of them, or the same in all that have it. The figure that compares all encoders gets the
    points of all; an encoder that parts made each for itself, with another recall or gain, is a point of each. Pictures
    are those of the first part that has them.

    Args:
        parts: By what they are called in errors.
        command: That joins them.

    Raises:
        DataError: there is one only, they are of other data, settings or seeds, or two say something else of the same.
    """
    if len(parts) < 2:
        raise DataError("join: one part alone is nothing to join. Name two at least.")
    (first, model), *others = parts.items()
    _refuse_unknown(parts)
    for name, other in others:
        changed = _changed(model, other)
        if changed:
            raise DataError(
                f"{name}: made with {first_of(changed)} in {first}. Parts of one reproduction share recipe and data "
                "(docs/reproduction.md)."
            )
    all_parts = list(parts.values())
    tables = _once({name: part.tables for name, part in parts.items()})
    figures = _once({name: _plain_figures(part) for name, part in parts.items()})
    points = _exchange_points(all_parts)
    if points:
        figures.append(exchange_figure(points))
    lacking = dict.fromkeys(name for part in all_parts for name in part.lacking)
    keys = {table.key for table in tables} | {figure.key for figure in figures}
    return Reproduction(
        dataset=model.dataset,
        seeds=model.seeds,
        tables=_ordered(tables),
        figures=_ordered(figures),
        findings=sorted(_findings(all_parts), key=_place_of_finding),
        galleries=_galleries(all_parts),
        lacking=[name for name in lacking if name not in keys],
        steps=_steps(all_parts),
        command=command,
        versions=model.versions,
        machine=model.machine,
        data=model.data,
        settings=model.settings,
        parts=_distinct(one for part in all_parts for one in (part.parts or [_described(part)])),
    )


def _refuse_unknown(parts: Mapping[str, Reproduction]) -> None:
    """Raise where a part does not say what it was made from."""
    for name, part in parts.items():
        if not part.data or part.settings is None:
            raise DataError(
                f"{name}: does not say what it was made from, as files of before did not. Run 'mimctr reproduce' on "
                "its folder again: what is made is kept."
            )


def _changed(one: Reproduction, other: Reproduction) -> list[str]:
    """Return in words what ``other`` was made with, and what ``one`` has in place of it."""
    if one.data != other.data:
        return ["other data than what is"]
    if one.seeds != other.seeds:
        return [f"seeds {_listed(other.seeds)}, which are {_listed(one.seeds)}"]
    settings, others = one.settings or {}, other.settings or {}
    values = {name: (_written(others, name), _written(settings, name)) for name in {**settings, **others}}
    return [f"{name} = {its}, which is {first}" for name, (its, first) in values.items() if its != first]


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


def _written(settings: Mapping[str, Any], name: str) -> str:
    return json.dumps(settings[name]) if name in settings else "the default"


def _once(parts: Mapping[str, Sequence[Shown]]) -> list[Shown]:
    """Return everything that is shown, once.

    Raises:
        DataError: two parts say something else of the same.
    """
    found: dict[str, tuple[str, Shown]] = {}
    for name, shown in parts.items():
        for one in shown:
            where, same = found.setdefault(one.key, (name, one))
            if same != one:
                raise DataError(
                    f"{name}: {one.key} is in {where} too, with other numbers. Make each experiment in one part only "
                    "(--table, --figure, --also)."
                )
    return [one for _, one in found.values()]


def _plain_figures(part: Reproduction) -> list[Figure]:
    return [figure for figure in part.figures if figure.key != EXCHANGE]


def _exchange_points(parts: Sequence[Reproduction]) -> list[Point]:
    """Return the points of all encoders; what parts have alike, once, with the interval of the first."""
    points: dict[tuple[str, float | str, float], Point] = {}
    for part in parts:
        for figure in part.figures:
            if figure.key == EXCHANGE:
                for point in itertools.chain.from_iterable(series.points for series in figure.series):
                    points.setdefault((point.label, point.x, point.y), point)
    return list(points.values())


def _findings(parts: Sequence[Reproduction]) -> list[Finding]:
    """Return every finding once; one that was run rather than one that was not."""
    found: dict[str, Finding] = {}
    for part in parts:
        for one in part.findings:
            if found.setdefault(one.key, one).verdict == "not run":
                found[one.key] = one
    return list(found.values())


def _distinct(values: Iterable[Value]) -> list[Value]:
    """Return ``values`` without what was there before."""
    found: list[Value] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found


def _ordered(shown: Sequence[Shown]) -> list[Shown]:
    return sorted(shown, key=lambda one: _place(one.key))


def _place(key: str) -> int:
    return ORDER.index(key) if key in ORDER else len(ORDER)


def _place_of_finding(finding: Finding) -> int:
    return _place("online" if finding.key.startswith("online:") else finding.source.lower())


def _galleries(parts: Sequence[Reproduction]) -> list[Gallery]:
    return next((part.galleries for part in parts if part.galleries), [])


def _steps(parts: Sequence[Reproduction]) -> list[Step]:
    """Return every step once, with all that it serves; one that was made rather than one that was not."""
    found: dict[str, Step] = {}
    for part in parts:
        for step in part.steps:
            known = found.setdefault(step.name, step)
            better = step if known.seconds is None else known
            serves = list(dict.fromkeys([*known.serves, *step.serves]))
            found[step.name] = better.model_copy(update={"serves": serves})
    return list(found.values())


def _described(part: Reproduction) -> Part:
    return Part(
        shows=list(
            dict.fromkeys([table.key for table in part.tables] + [figure.key for figure in part.figures])
        ),
        seconds=sum(step.seconds or 0.0 for step in part.steps),
        command=part.command,
        versions=part.versions,
        machine=part.machine,
    )
