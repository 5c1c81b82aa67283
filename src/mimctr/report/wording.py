"""How the report names and writes things: one place, so that table, plots and sentences agree."""

from collections.abc import Iterable
from datetime import UTC, datetime

from mimctr.evaluate.results import Machine
from mimctr.evaluate.variants import split_ablated, split_labeled
from mimctr.evaluate.written import memory

UBM_NAMES = {
    "mean": "Avg Pooling",
    "din": "DIN",
    "dien": "DIEN",
    "bst": "BST",
    "sim": "SIM",
    "twin": "TWIN",
    "pooled": "mean over UBMs",
}
VARIANT_NAMES = {
    "base": "Base",
    "mim": "Base+MIM",
    "mim_plus": "MIM+",
    "mim_permuted": "Leak control",
    "untrained_cosine": "Untrained cosine",
}
SLICE_NAMES = {
    "all": "All items",
    "age:S1": "Newest items (S1)",
    "item:unseen": "Items unseen in training",
    "item:seen": "Items seen in training",
    "arrival:new": "Items first seen in the test part",
    "arrival:known": "Items known before the test part",
    "history:none": "No history",
    "query:none": "No query",
    "query:text": "Text query",
    "query:image": "Image query",
    "query:both": "Text and image query",
    "image:yes": "Items with an image",
    "image:no": "Items without an image",
    "title:yes": "Items with a title",
    "title:no": "Items without a title",
}
SHORT_NAMES = {"all": "All items", "age:S1": "Newest (S1)", "item:unseen": "Unseen items"}
"""Columns of the main table."""


def ubm_name(ubm: str) -> str:
    """Return a UBM as the paper writes it."""
    return UBM_NAMES.get(ubm, ubm)


def machine_words(machine: Machine) -> str:
    """Return what decides the speed of a machine: processor, cores, memory, and whether it lacks bfloat16."""
    size = [] if machine.memory_bytes is None else [memory(machine.memory_bytes)]
    lacking = ["without products in bfloat16"] if machine.has_bfloat16 is False else []
    return ", ".join([machine.processor, f"{machine.num_cores} cores", *size, *lacking])


def variant_name(variant: str) -> str:
    """Return a variant as the report writes it; an ablation as in the paper's Table 5; a label behind a comma."""
    variant, label = split_labeled(variant)
    if label:
        return f"{variant_name(variant)}, {label}"
    whole, missing = split_ablated(variant)
    name = VARIANT_NAMES.get(whole, whole)
    if not missing:
        return name
    words = listing(["ID" if interest == "id" else interest for interest in missing])
    return f"{name} w/o {words} interest{'s' if len(missing) > 1 else ''}"


def variants_in_order(variants: Iterable[str]) -> list[str]:
    """Return each variant once, in the order of the table; behind each its ablations."""
    by_missing = sorted(dict.fromkeys(variants), key=lambda variant: len(split_ablated(variant)[1]))
    known = [
        variant for whole in VARIANT_NAMES for variant in by_missing if split_ablated(variant)[0] == whole
    ]
    return in_order(by_missing, known)


def slice_name(name: str) -> str:
    """Return a slice in words."""
    if name in SLICE_NAMES:
        return SLICE_NAMES[name]
    kind, _, value = name.partition(":")
    return {
        "age": f"Age set {value}",
        "category": value,
        "history": f"{value} earlier behaviors",
        "support": f"{value} times in training",
    }.get(kind, name)


def metric_words(metric: str) -> str:
    """Return a logged metric's name in words."""
    words = metric.removeprefix("num_").replace("_", " ")
    return " ".join({"auc": "AUC", "gauc": "GAUC", "mrr": "MRR"}.get(word, word) for word in words.split())


def in_order(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return each name once: those of ``known`` in its order, then the others as they come."""
    found = list(dict.fromkeys(names))
    return [name for name in known if name in found] + [name for name in found if name not in set(known)]


def day(seconds: int) -> str:
    """Return a time as a UTC date and minute."""
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%d %H:%M")


def listing(names: list[str]) -> str:
    """Return ``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def capitalized(text: str) -> str:
    """Return a text that begins with a capital; the rest stays as it is (``str.capitalize`` lowers it)."""
    return text[:1].upper() + text[1:]


def counted(number: int, noun: str) -> str:
    """Return ``1 seed``, ``2 seeds``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
