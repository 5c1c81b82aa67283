"""Names of variants: a model without a part of Eq. (9) is named by what it lacks, as in the paper's Table 5."""

from collections.abc import Sequence

WITHOUT = "_without_"
LABEL = ":"


def ablated(variant: str, missing: Sequence[str]) -> str:
    """Return the name of ``variant`` without some interests, ``mim_without_fusion``; its own where none is missing."""
    return f"{variant}{WITHOUT}{'_'.join(missing)}" if missing else variant


def split_ablated(name: str) -> tuple[str, list[str]]:
    """Return the variant and the missing interests that :func:`ablated` joined."""
    variant, _, missing = split_labeled(name)[0].partition(WITHOUT)
    return variant, missing.split("_") if missing else []


def labeled(variant: str, label: str) -> str:
    """Return the name of one of several models of a variant, ``mim_plus:SimTier``; its own without a label."""
    return f"{variant}{LABEL}{label}" if label else variant


def split_labeled(name: str) -> tuple[str, str]:
    """Return the variant, ablated or not, and the label that :func:`labeled` joined; empty without one."""
    variant, _, label = name.partition(LABEL)
    return variant, label
