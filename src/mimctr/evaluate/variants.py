"""Names of variants: a model without a part of Eq. (9) is named by what it lacks, as in the paper's Table 5."""

from collections.abc import Sequence

WITHOUT = "_without_"


def ablated(variant: str, missing: Sequence[str]) -> str:
    """Return the name of ``variant`` without some interests, ``mim_without_fusion``; its own where none is missing."""
    return f"{variant}{WITHOUT}{'_'.join(missing)}" if missing else variant


def split_ablated(name: str) -> tuple[str, list[str]]:
    """Return the variant and the missing interests that :func:`ablated` joined."""
    variant, _, missing = name.partition(WITHOUT)
    return variant, missing.split("_") if missing else []
