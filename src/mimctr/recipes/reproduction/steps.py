"""What each experiment needs, as steps of one plan: encoders, their vectors, CTR models, seed by seed."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mimctr.data.dataset import CtrDataset
from mimctr.data.split import PARTS
from mimctr.errors import DataError, RunError
from mimctr.evaluate.compare import BASE
from mimctr.recipes import off_policy, sources, stages
from mimctr.recipes.ctr_plan import CtrModel, CtrPlan
from mimctr.recipes.encoder_plan import EncoderPlan
from mimctr.recipes.encoder_recipe import Entry, entries, made_with
from mimctr.recipes.encoder_rows import AFTER_DMA, MIM
from mimctr.recipes.encoder_tables import reason_not_to_run
from mimctr.recipes.online_models import Trained
from mimctr.recipes.plan import Plan, Step
from mimctr.recipes.reproduction.recipe import (
    Recipe,
    extension_models,
    interest_models,
    rows_of,
    share_row,
)

EMBED, COST, ONLINE = "embed", "cost", "online"
OF_SLICES = ("table 2", "figure 6", "table 7")
"""Experiments that are views of the models of Table 2."""
OF_ENCODERS = ("table 3", "table 4", "table 5", "figure 5", "pairs")


class Planned(NamedTuple):
    """A training that a group of tables looks at."""

    model: CtrModel
    seed: int
    folder: Path
    content: Path | None


class Groups(NamedTuple):
    """Trainings by what is evaluated together."""

    ubms: list[Planned]
    encoders: list[Planned]
    extensions: list[Planned]
    online: list[Planned]
    """Base and Base+MIM of the main user behavior model; none in a log that says nothing of other rankings."""


class Reproduction:
    """The plan of a reproduction.

    Args:
        recipe: Settings.
        out: Run folder, with the dataset and the raw tables in it.
        tables: Raw tables; made already.
        wanted: Experiments, of :data:`~mimctr.recipes.reproduction.recipe.EXPERIMENTS`.
        num_workers: CTR models trained at a time.

    Raises:
        RunError: C-SFT has nothing to train on, or search nothing to look for.
        DataError: a part is too small to be learned from or evaluated.
        ConfigError: a context field tells where an item stood in a log with propensities.
    """

    def __init__(
        self, recipe: Recipe, out: Path, *, tables: Path, wanted: Sequence[str], num_workers: int
    ) -> None:
        dataset = out / "dataset"
        data = CtrDataset.open(dataset)
        self.recipe, self.out, self.wanted = recipe, out, wanted
        self.plan = Plan(num_workers=num_workers)
        self.groups = Groups([], [], [], [])
        self.not_ranked = None
        if ONLINE in wanted and not self.is_bazaar:
            self.not_ranked = off_policy.reason_not_to_run(data, recipe.off_policy)
        self.entries = {entry.name: entry for entry in self._all_entries()}
        needed = self._needed_rows()
        self.not_run = {
            name: reason
            for name in needed
            if (reason := reason_not_to_run(self.entries[name], recipe, dataset)) is not None
        }
        if MIM in self.not_run:
            raise RunError(f"{dataset}: {self.not_run[MIM]}, so there is no C-SFT and no Base+MIM.")
        self._dataset, self._num_items = dataset, data.num_items
        self._num_test = len(data.rows("test"))
        self._encoders = EncoderPlan(
            self.plan, recipe, dataset=dataset, tables=tables, num_items=data.num_items
        )
        self._models = CtrPlan(
            self.plan,
            out,
            dataset=dataset,
            train=recipe.train,
            grid=recipe.models_grid,
            first=recipe.seeds[0],
            num_impressions=len(data.rows("train")),
        )
        for seed in recipe.seeds:
            self._add_seed(
                seed, {name: serves for name, serves in needed.items() if name not in self.not_run}
            )
        if serves := self._asked(("table 6",)):
            self._add_cost(serves)
        if self.groups.online:
            self._add_online(tables)
        if any(self.groups):
            _refuse_one_class(data)
            _refuse_few_items(data, recipe.evaluate.num_age_sets)

    @property
    def is_bazaar(self) -> bool:
        """Whether the market is a generated one, in which policies can be tried."""
        return isinstance(self.recipe.source, sources.Bazaar)

    def num_scores(self, folder: Path) -> int:
        """Return how many impressions are scored when what a step made is evaluated, for every group that it is in."""
        return self._num_test * sum(any(one.folder == folder for one in group) for group in self.groups)

    def searched(self) -> list[Entry]:
        """Return the encoders whose searches the tables show, those too that cannot be made."""
        return [entry for name, entry in self.entries.items() if name in self._needed_rows()]

    def _all_entries(self) -> list[Entry]:
        shares = [share_row(share) for share in self.recipe.pair_shares]
        return [
            *entries(self.recipe, self.out),
            *(Entry(row.name, row.labels, row, self.recipe.foundation, self.out) for row in shares),
        ]

    def _needed_rows(self) -> dict[str, list[str]]:
        """Return the encoder rows that are needed, in the order of the tables, each with what needs it."""
        by_experiment = rows_of(self.recipe)
        if self.not_ranked is not None:
            del by_experiment[ONLINE]
        serves: dict[str, list[str]] = {}
        for experiment in self.wanted:
            for name in by_experiment.get(experiment, []):
                serves.setdefault(name, []).append(experiment)
        return {name: serves[name] for name in self.entries if name in serves}

    def _add_seed(self, seed: int, needed: dict[str, list[str]]) -> None:
        content = {name: self._embed(self.entries[name], seed, serves) for name, serves in needed.items()}
        for name, serves in needed.items():
            self._encoders.search(self.entries[name], seed, serves)
        if serves := self._asked(OF_SLICES):
            if seed == self.recipe.seeds[0]:  # the pictures show what was near before C-SFT
                self._embed(self.entries[AFTER_DMA], seed, serves)
            for ubm in self.recipe.ubms:
                self._train(self.groups.ubms, CtrModel(ubm, "base"), seed, None, serves)
                self._train(self.groups.ubms, CtrModel(ubm, "mim", MIM), seed, content[MIM], serves)
        if serves := self._asked(OF_ENCODERS):
            ubm = self.recipe.ubm
            self._train(self.groups.encoders, CtrModel(ubm, "base"), seed, None, serves)
            for name, folder in content.items():
                of_row = [one for one in needed[name] if one in OF_ENCODERS]
                if of_row:
                    self._train(self.groups.encoders, CtrModel(ubm, "mim", name), seed, folder, of_row)
        if serves := self._asked(("table 5",)):
            for model in interest_models(self.recipe):
                self._train(self.groups.encoders, model, seed, content[MIM], serves)
        if (serves := self._asked((ONLINE,))) and self.not_ranked is None:
            ubm = self.recipe.ubm
            self._train(self.groups.online, CtrModel(ubm, "base"), seed, None, serves)
            self._train(self.groups.online, CtrModel(ubm, "mim", MIM), seed, content[MIM], serves)
        if serves := self._asked(("extensions",)):
            plain = [CtrModel(self.recipe.ubm, "base"), CtrModel(self.recipe.ubm, "mim", MIM)]
            for model in [*plain, *extension_models(self.recipe)]:
                vectors = None if model.variant == "base" else content[MIM]
                self._train(self.groups.extensions, model, seed, vectors, serves)

    def _add_cost(self, serves: Collection[str]) -> None:
        entry, first, out = self.entries[MIM], self.recipe.seeds[0], self.out / COST
        content, encoder = self._embed(entry, first, serves), self._encoders.encoder(entry, first, serves)
        config = self.recipe.cost.model_copy(update={"ubm": self.recipe.ubm})
        make = lambda: stages.cost(self._dataset, content, encoder, out, config)  # noqa: E731
        self.plan.add(Step(out, "cost", 1, (content, encoder), make), serves)

    def _add_online(self, tables: Path) -> None:
        models: dict[str, list[Trained]] = {BASE: [], MIM: []}
        for one in self.groups.online:
            models[one.model.variant].append(Trained(one.folder, one.content))
        out, needs = self.out / ONLINE, tuple(one.folder for one in self.groups.online)
        named = self.recipe.off_policy.model_copy(update={"dataset_name": self.recipe.name})
        if self.is_bazaar:
            make = lambda: stages.online(tables, self._dataset, models, out, self.recipe.online)  # noqa: E731
        else:
            make = lambda: stages.off_policy(self._dataset, models, out, named)  # noqa: E731
        online = self.recipe.online
        pages = min(-(-self._num_test // online.num_shown), online.max_sessions)
        self.plan.add(Step(out, "online", len(needs) * pages, needs, make), (ONLINE,))

    def _asked(self, experiments: Collection[str]) -> list[str]:
        return [name for name in self.wanted if name in experiments]

    def _embed(self, entry: Entry, seed: int, serves: Collection[str]) -> Path:
        """Plan the vectors of an encoder; return their folder."""
        encoder = self._encoders.encoder(entry, seed, serves)
        name = entry.name if entry.row.fixed else f"{entry.name}-seed{made_with(entry, seed, self.recipe)}"
        out, config = self.out / EMBED / name, self.recipe.embed
        make = lambda: stages.embed(self._dataset, encoder, out, config)  # noqa: E731
        return self.plan.add(Step(out, "embed", self._num_items, (encoder,), make), serves)

    def _train(
        self,
        group: list[Planned],
        model: CtrModel,
        seed: int,
        content: Path | None,
        serves: Collection[str],
    ) -> None:
        folder = self._models.training(model, seed, content, serves)
        group.append(Planned(model, seed, folder, content))


def _refuse_one_class(data: CtrDataset) -> None:
    """See to it that what takes hours has clicks to learn from, to stop by and to be evaluated on.

    Raises:
        DataError: a part has one class only.
    """
    for part in PARTS:
        rows = data.rows(part)
        if len(np.unique(data.impressions.click[rows.start : rows.stop])) < 2:
            raise DataError(
                f"{data.folder}: its {part} part has no clicks, or nothing else: nothing can be ranked there. Make it "
                "longer."
            )


def _refuse_few_items(data: CtrDataset, num_age_sets: int) -> None:
    """See to it that the items of the test part can be divided by age.

    Raises:
        DataError: they are too few.
    """
    rows = data.rows("test")
    items = np.unique(data.impressions.target[rows.start : rows.stop])
    if len(items) < num_age_sets:
        raise DataError(
            f"{data.folder}: its test part has {len(items)} items, too few for {num_age_sets} sets by age. Make it "
            "longer, or set a smaller evaluate.num_age_sets."
        )
