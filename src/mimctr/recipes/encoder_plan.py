"""The steps that make the rows of the encoder tables: towers, plain geometry or C-SFT with its grid, search."""

from collections.abc import Callable, Collection
from functools import cache
from pathlib import Path

from mimctr.recipes import csft as csft_recipe
from mimctr.recipes import plain as plain_recipe
from mimctr.recipes import random_towers, stages
from mimctr.recipes.encoder_recipe import Entry, Recipe, csft_points, made_with
from mimctr.recipes.encoder_rows import AFTER_DMA, ROWS
from mimctr.recipes.grid import best_of
from mimctr.recipes.item_config import ItemConfig
from mimctr.recipes.plan import Plan, Step
from mimctr.train.run import Run


class EncoderPlan:
    """Adds to a plan what makes the encoders of the tables, each from what it starts from.

    Args:
        plan: Gets the steps.
        recipe: Settings.
        dataset: Written by ``mimctr prepare``; made already.
        tables: Raw tables; made already.
        num_items: Of the catalogue.
    """

    def __init__(self, plan: Plan, recipe: Recipe, *, dataset: Path, tables: Path, num_items: int) -> None:
        self._plan, self._recipe = plan, recipe
        self._dataset, self._tables, self._num_items = dataset, tables, num_items

    def encoder(self, entry: Entry, seed: int, serves: Collection[str] = ()) -> Path:
        """Plan a row's item encoder with one seed; return its folder."""
        seed = made_with(entry, seed, self._recipe)
        if entry.row.csft is not None:
            return self._tuned_csft(entry, seed, serves)
        towers, out = self.towers(entry, seed, serves), entry.encoder(seed)
        config = plain_config(self._recipe.csft, seed)
        make = lambda: stages.plain(self._dataset, towers, out, config)  # noqa: E731
        return self._plan.add(Step(out, "plain", self._num_items, (towers,), make), serves)

    def search(self, entry: Entry, seed: int, serves: Collection[str] = ()) -> Path:
        """Plan a row's held-out search with one seed; return its folder."""
        encoder, out = self.encoder(entry, seed, serves), entry.search(made_with(entry, seed, self._recipe))
        make = lambda: stages.search(self._dataset, encoder, out, self._recipe.search)  # noqa: E731
        return self._plan.add(Step(out, "search", self._num_items, (encoder,), make), serves)

    def towers(self, entry: Entry, seed: int, serves: Collection[str] = ()) -> Path:
        """Plan the towers that a row starts from; return their folder. DMA goes on from DDA's result."""
        plain = self.foundation(entry, serves)
        at = entry.folder / f"seed{seed}" / "towers"
        if entry.row.towers == "random":
            config = random_towers.Config(seed=seed)
            make = lambda: stages.random_towers(plain, at / "random", config)  # noqa: E731
            return self._plan.add(Step(at / "random", "random towers", 1, (plain,), make), serves)
        if entry.row.towers == "foundation":
            return plain
        dda = self._pretrain(plain, at / "dda", seed, {"alignment": False}, serves)
        if entry.row.towers == "dda":
            return dda
        return self._pretrain(dda, at / "dma", seed, {"masked_image": False, "language": False}, serves)

    def foundation(self, entry: Entry, serves: Collection[str] = ()) -> Path:
        """Plan the foundation models of a row; return their folder."""
        config, out = entry.foundation, entry.folder / "foundation"
        corpus = self._tables / "corpus" if config.needs_corpus else None
        kind, size = ("foundation", config.image_steps + config.text_steps) if corpus else ("weights", 1)
        make = lambda: stages.foundation(corpus, out, config)  # noqa: E731
        return self._plan.add(Step(out, kind, size, (), make), serves)

    def _pretrain(
        self, start: Path, out: Path, seed: int, off: dict[str, bool], serves: Collection[str]
    ) -> Path:
        config = self._recipe.pretrain.model_copy(update={**off, "seed": seed})
        steps = {
            "masked_image": config.masked_image_steps,
            "language": config.language_steps,
            "alignment": config.alignment_steps,
        }
        size = config.batch_size * sum(steps[part] for part in steps if getattr(config, part))
        make = lambda: stages.pretrain(self._dataset, start, out, config)  # noqa: E731
        return self._plan.add(Step(out, out.name, size, (start,), make), serves)

    def _tuned_csft(self, entry: Entry, seed: int, serves: Collection[str]) -> Path:
        """Plan a C-SFT with what is best on validation with the first seed, and what is tried for that."""
        first, recipe = self._recipe.seeds[0], self._recipe
        points = [point.model_copy(update={"seed": first}) for point in csft_points(recipe, entry.row)]
        tune = entry.folder / "tune" / entry.row.name
        tried = tuple(
            self._csft(entry, first, tune / str(number), point.model_copy, (), serves)
            for number, point in enumerate(points)
            if len(points) > 1
        )

        @cache
        def best() -> int:
            return best_of(
                points,
                recipe.grid,
                judge=lambda made: best_evaluation(made, recipe.csft.metric)[1],
                tune=tune,
            )

        tuned = lambda: points[best()].model_copy(update={"seed": seed})  # noqa: E731
        copied = (lambda: tune / str(best())) if tried and seed == first else None
        return self._csft(entry, seed, entry.encoder(seed), tuned, tried, serves, copied_from=copied)

    def _csft(
        self,
        entry: Entry,
        seed: int,
        out: Path,
        config: Callable[[], csft_recipe.Config],
        tried: tuple[Path, ...],
        serves: Collection[str],
        *,
        copied_from: Callable[[], Path] | None = None,
    ) -> Path:
        start = self.csft_start(entry, seed, serves)
        example = csft_points(self._recipe, entry.row)[0]
        pictures = 2 + len(example.drawn_negatives)  # of a pair: query, item, drawn items
        size = example.num_steps * example.batch_size * pictures
        make = lambda: stages.csft(self._dataset, start, out, config())  # noqa: E731
        return self._plan.add(Step(out, "csft", size, (start, *tried), make, copied_from), serves)

    def csft_start(self, entry: Entry, seed: int, serves: Collection[str] = ()) -> Path:
        """Plan what C-SFT starts from: the towers, or the plain encoder that kept what they say; return its folder."""
        if not self._recipe.csft.keep_vectors:
            return self.towers(entry, seed, serves)
        aligned = next(row for row in ROWS if row.name == AFTER_DMA)
        return self.encoder(entry._replace(row=aligned), seed, serves)


def plain_config(csft: csft_recipe.Config, seed: int) -> plain_recipe.Config:
    """Return the settings of the plain geometry that C-SFT starts from."""
    shared = {name: getattr(csft, name) for name in ItemConfig.model_fields}
    return plain_recipe.Config.model_validate(shared | {"seed": seed})


def best_evaluation(made: Path, metric: str) -> tuple[int, float]:
    """Return the step and the metric of the best evaluation of a C-SFT, whose weights it kept."""
    evaluations = [line for line in Run(made).metrics() if metric in line]
    best = max(evaluations, key=lambda line: line[metric])
    return int(best["step"]), best[metric]
