"""A trained model as a bundle that can be served.

mimctr export runs/demo/train/sim-mim-csft-seed0 --dataset runs/demo/dataset --out bundle
mimctr push bundle --store redis://localhost:6379/0
"""

from pathlib import Path
from typing import Any

from mimctr.recipes.ctr_model import load_model
from mimctr.serve.bundle import Bundle, BundleManifest, Table
from mimctr.serve.bundle_writer import write_bundle
from mimctr.serve.remote import SCHEME, BundleStore


def main(model: Path, dataset: Path, out: Path, *, onnx: bool = True) -> BundleManifest:
    """Write a bundle.

    Args:
        model: Folder of a trained model.
        dataset: What it was trained on.
        out: Must not exist.
        onnx: Whether to write the dense half for ONNX Runtime, where that can be done.

    Raises:
        RunError: there is no trained model, it was trained on another dataset, or ``out`` exists.
    """
    return write_bundle(model, load_model(model), dataset, out, onnx=onnx)


def push(folder: Path, store: str, *, label: str, name: str) -> dict[str, Any]:
    """Put a bundle on a parameter store.

    Args:
        folder: Of the bundle.
        store: URL.
        label: By which scorers ask for it; none: the folder's name.
        name: Of the center on its stores.

    Raises:
        RunError: there is no bundle, or a damaged one.
        ConfigError: the URL is none.
        StoreUnavailable: the store cannot be reached; call again.
    """
    bundle, label = Bundle(folder), label or folder.resolve().name
    BundleStore(store, name=name).push(bundle, label)
    rows = {f"{table}": len(bundle.open_table(table)) for table in Table}
    return {"label": f"{SCHEME}{label}"} | rows
