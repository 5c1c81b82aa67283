"""Impressions and items of a run as sheets: picture, numbers, and behaviors with their weights of Eq. (7)."""

from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from PIL import Image

from mimctr.batch import FIRST_INDEX
from mimctr.evaluate.metrics import sigmoid
from mimctr.evaluate.paper.cases import ItemCase
from mimctr.evaluate.results import PictureSheet
from mimctr.evaluate.written import percent, signed
from mimctr.recipes.neighbors import FOLDER, LIMIT, save_picture
from mimctr.recipes.relevances import Relevances, most_alike, weigh
from mimctr.recipes.scored import Scored
from mimctr.report.cases import MOST_SHOWN, Case, Value, Weighted, draw_case
from mimctr.report.plots import COLORS
from mimctr.report.wording import day, variant_name

UNTITLED = "(no title)"
NUM_NAMED = 3
"""Weights that a caption names."""


class SheetWriter:
    """Draws cases of two models' test impressions.

    Args:
        scored: The impressions.
        out: Files are written into a folder in it.
    """

    def __init__(self, scored: Scored, out: Path) -> None:
        self._scored = scored
        self._dataset = scored.dataset
        self._out = out
        self._titles = scored.dataset.items["title"].to_list()
        self._categories = scored.dataset.items["category"].to_list()
        self._ids = scored.dataset.items["item_id"].to_list()

    def impression(self, position: int, *, name: str, title: str) -> PictureSheet:
        """Write one impression as ``pictures/<name>.jpg``.

        Args:
            position: Among the test impressions.
            name: Of the file.
            title: How it was chosen; the probabilities are put behind it.
        """
        scored, impressions = self._scored, self._dataset.impressions
        row = int(scored.rows[position])
        target = int(impressions.target[row])
        user = self._dataset.users["user_id"][int(impressions.user[row]) - FIRST_INDEX]
        outcome = "clicked" if impressions.click[row] else "not clicked"
        values = self._probabilities(position)
        weights = weigh(self._dataset, scored.table, np.array([row]), max_length=scored.config.max_length)
        items, relevance = weights.items[0][weights.mask[0]], weights.relevance[0][weights.mask[0]]
        shown = f"user {user}, {day(int(impressions.time[row]))} UTC: {outcome}"
        picture = draw_case(
            Case(
                image=self._image(target),
                title=self._title(target),
                facts=[self._name(target), shown],
                values=values,
                label=_strip_label(len(items)),
                behaviors=self._weighted(items[:MOST_SHOWN], relevance[:MOST_SHOWN]),
                all_label=f"All {len(relevance)} weights, newest first; their sum is {_sum(relevance)}",
                relevance=relevance if len(relevance) else None,
            )
        )
        told = ", ".join(f"{value.name} {value.text}" for value in values)
        caption = (
            f"{self._sentence(target)} {self._name(target)}; {shown}. {told}. {_told_weights(relevance)}"
        )
        short = f"{title}: {values[0].text} → {values[1].text}"
        return self._write(picture, name=name, title=short, caption=caption)

    def item(self, case: ItemCase, *, name: str, title: str) -> PictureSheet:
        """Write one item as ``pictures/<name>.jpg``; the behaviors are those of its clickers that are most like it."""
        scored, impressions = self._scored, self._dataset.impressions
        own = scored.rows[impressions.target[scored.rows] == case.item]
        clicked = impressions.click[own] == 1
        length = scored.config.max_length
        clickers = weigh(self._dataset, scored.table, own[clicked], max_length=length)
        others = weigh(self._dataset, scored.table, own[~clicked], max_length=length)
        alike = most_alike(clickers, case.item, num=MOST_SHOWN)
        counts = f"{case.num_impressions} test impressions, {int(clicked.sum())} clicked; 0 in training"
        means = f"mean weight of behaviors: clickers {_mean(clickers)}, others {_mean(others)}"
        values = [
            Value(name=label, value=value, text=percent(value), color=COLORS[variant])
            for label, value, variant in (
                ("Base", case.base, "base"),
                (self._with_content, case.mim, scored.variant),
            )
        ]
        picture = draw_case(
            Case(
                image=self._image(case.item),
                title=self._title(case.item),
                facts=[self._name(case.item), counts, means, "non-clicks of its category below its clicks:"],
                values=values,
                label="Behaviors of its clickers that are most like it, with weights of Eq. (7)"
                if len(alike.items)
                else "No behavior of its clickers has a weight",
                behaviors=self._weighted(alike.items, alike.relevance),
            )
        )
        caption = (
            f"{self._sentence(case.item)} {self._name(case.item)}; {counts}. On average {percent(case.base)} of its "
            f"category's impressions without a click stand below its clicks by Base, {percent(case.mim)} by "
            f"{self._with_content}; log loss {case.base_loss:.4f} and {case.mim_loss:.4f}. {means.capitalize()}."
        )
        short = f"{title}: {percent(case.base)} → {percent(case.mim)}"
        return self._write(picture, name=name, title=short, caption=caption)

    @property
    def _with_content(self) -> str:
        return variant_name(self._scored.variant)

    def _probabilities(self, position: int) -> list[Value]:
        """Return the probabilities of both models, and the true one where it is known."""
        scored, truth = self._scored, self._dataset.impressions.true_probability
        said = [
            ("Base", float(sigmoid(scored.base[[position]])[0]), COLORS["base"]),
            (self._with_content, float(sigmoid(scored.mim[[position]])[0]), COLORS[scored.variant]),
        ]
        if truth is not None:
            said.append(("true probability", float(truth[scored.rows[position]]), COLORS["ceiling"]))
        return [
            Value(name=name, value=value, text=percent(value), color=color) for name, value, color in said
        ]

    def _weighted(self, items: ndarray, relevance: ndarray) -> list[Weighted]:
        return [
            Weighted(image=self._image(item), relevance=weight)
            for item, weight in zip(items.tolist(), relevance.tolist(), strict=True)
        ]

    def _image(self, item: int) -> bytes | None:
        return self._dataset.item_images.get(item - FIRST_INDEX) if item >= FIRST_INDEX else None

    def _title(self, item: int) -> str:
        return self._titles[item - FIRST_INDEX] or UNTITLED

    def _sentence(self, item: int) -> str:
        """Return an item's title with one full stop behind it."""
        return f"{self._title(item).rstrip('. ')}."

    def _name(self, item: int) -> str:
        """Return an item's id and category in words."""
        category = self._categories[item - FIRST_INDEX]
        return f"item {self._ids[item - FIRST_INDEX]}, " + (
            "no category" if category is None else f"{category}"
        )

    def _write(self, picture: Image.Image, *, name: str, title: str, caption: str) -> PictureSheet:
        file = f"{FOLDER}/{name}.jpg"
        save_picture(picture, self._out / file, limit=LIMIT)
        return PictureSheet(file=file, title=title, caption=caption)


def _strip_label(length: int) -> str:
    if not length:
        return "No behavior before this impression"
    shown = "Behaviors" if length <= MOST_SHOWN else f"The {MOST_SHOWN} newest of {length} behaviors"
    return f"{shown}, newest first, with weights of Eq. (7)"


def _told_weights(relevance: Float[ndarray, "behaviors"]) -> str:
    """Return in words how much the behaviors weigh."""
    known = np.sort(relevance[~np.isnan(relevance)])[::-1]
    told = f"{len(relevance)} behaviors"
    if len(known):
        named = ", ".join(signed(weight, 2) for weight in known[:NUM_NAMED].tolist())
        told += f", the largest weights are {named}, their sum is {_sum(relevance)}"
    missing = len(relevance) - len(known)
    return f"{told}; {missing} without a weight, as a vector is missing." if missing else f"{told}."


def _sum(relevance: Float[ndarray, "behaviors"]) -> str:
    return signed(float(np.nansum(relevance)), 2)


def _mean(weights: Relevances) -> str:
    """Return the mean weight over all behaviors that have one."""
    known = ~np.isnan(weights.relevance)
    return signed(float(weights.relevance[known].mean()), 3) if known.any() else "none"
