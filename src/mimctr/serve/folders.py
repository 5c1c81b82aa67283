"""Which folders a request may name."""

from pathlib import Path

from mimctr.errors import DataError


def folder_within(allowed: Path | None, named: str) -> Path:
    """Return the folder that a request names, if it is in the one that it may come from.

    Symbolic links are followed before it is decided. What is elsewhere is refused in the same words whether it exists
    or not, and is not read.

    Args:
        allowed: Where folders may come from; None: nowhere.
        named: Absolute, or from ``allowed``.

    Raises:
        DataError: it is elsewhere, or no path.
    """
    if allowed is None:
        raise DataError("bundle: no folder is set that bundles may come from. Set 'bundles'.")
    try:
        root = allowed.resolve()
        found = (root / named).resolve()
        inside = found.is_relative_to(root) and found != root and (found.is_dir() or not found.exists())
    except (OSError, ValueError, RuntimeError):  # too long, a zero byte, links in a circle, no permission
        inside = False
    if not inside:
        raise DataError(f"bundle: {named[:200]!r} is no folder in {allowed}. Bundles come from there.")
    return found
