"""A trained model as a bundle that can be served.

mimctr export runs/demo/train/sim-mim-csft-seed0 --dataset runs/demo/dataset --out bundle
"""

from pathlib import Path

from mimctr.recipes.ctr_model import load_model
from mimctr.serve.bundle import BundleManifest
from mimctr.serve.bundle_writer import write_bundle


def main(model: Path, dataset: Path, out: Path) -> BundleManifest:
    """Write a bundle.

    Args:
        model: Folder of a trained model.
        dataset: What it was trained on.
        out: Must not exist.

    Raises:
        RunError: there is no trained model, it was trained on another dataset, or ``out`` exists.
    """
    return write_bundle(model, load_model(model), dataset, out)
