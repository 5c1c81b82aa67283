"""The examples of examples/extending as modules."""

import importlib.util
import sys
from types import ModuleType

from .pages import DOCS

EXTENDING = DOCS.parent / "examples" / "extending"


def example(name: str) -> ModuleType:
    """Return the example of that name, executed once."""
    known = f"extending_{name}"
    if known not in sys.modules:
        spec = importlib.util.spec_from_file_location(known, EXTENDING / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[known] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[known])
    return sys.modules[known]
