"""The package is layered along the data's way; imports only point back up the stream."""

import ast
import subprocess
import sys
from pathlib import Path

import mimctr

BASE = {"errors", "files", "progress", "precision", "weights", "images", "batch", "distributed"}
MAY_IMPORT = {
    "errors": set(),
    "files": {"errors"},
    "progress": {"errors"},
    "precision": set(),
    "weights": {"errors", "files"},
    "images": {"errors"},
    "batch": {"errors"},
    "distributed": {"errors"},
    "data": BASE,
    "sources": BASE | {"data"},
    "encoders": BASE,
    "pretrain": BASE | {"encoders"},
    "csft": BASE | {"encoders"},
    "center": BASE | {"encoders"},
    "ubm": BASE,
    "evaluate": BASE,
    "train": BASE,
    "report": BASE | {"evaluate"},
    "serve": BASE | {"data", "center", "ubm"},
    "explore": BASE | {"data", "center", "ubm", "evaluate", "report", "serve"},
    "recipes": BASE
    | {
        "explore",
        "serve",
        "sources",
        "data",
        "encoders",
        "pretrain",
        "csft",
        "center",
        "ubm",
        "evaluate",
        "train",
        "report",
    },
    "cli": BASE | {"sources", "recipes", "report", "evaluate", "serve"},
}
ROOT = Path(mimctr.__file__).parent


def imported_layers(path: Path) -> set[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write absolute imports"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return {name.split(".")[1] for name in names if name.startswith("mimctr.")} & set(MAY_IMPORT)


def test_imports_point_upstream():
    for path in ROOT.rglob("*.py"):
        layer = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if layer not in ("__init__", "__main__"):
            wrong = imported_layers(path) - MAY_IMPORT[layer] - {layer}
            assert not wrong, (
                f"{path.relative_to(ROOT)} may not import mimctr.{', mimctr.'.join(sorted(wrong))}"
            )


def test_every_layer_is_in_the_map():
    layers = {path.name.removesuffix(".py") for path in ROOT.iterdir() if not path.name.startswith("__")}
    assert layers <= set(MAY_IMPORT)


def test_what_runs_no_network_does_not_load_transformers():
    """Seconds of every start, of a server and of each worker."""
    loaded = "import sys, mimctr.recipes.stages, mimctr.recipes.serve; print('transformers' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", loaded], check=True, capture_output=True, text=True)
    assert ran.stdout == "False\n"


def test_a_server_that_encodes_loads_transformers_before_its_first_request(tmp_path):
    loaded = (
        "import sys; from pathlib import Path; from mimctr.center.query_encoder import QueryEncoder; "
        f"QueryEncoder(Path({str(tmp_path)!r})); print('transformers.modeling_utils' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", loaded], check=True, capture_output=True, text=True)
    assert ran.stdout == "True\n"
