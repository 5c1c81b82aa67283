"""Imports the peers once, where they are installed, and hands their warnings to nobody: they are not ours to mend."""

import warnings
from importlib.util import find_spec

HAS_PEERS = find_spec("fuxictr") is not None

if HAS_PEERS:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import deepctr_torch.models  # noqa: F401
        import fuxictr.pytorch.layers  # noqa: F401
        import model_zoo.LongCTR  # noqa: F401
        import recbole.model.layers  # noqa: F401
        import torch_rechub.models.ranking  # noqa: F401
