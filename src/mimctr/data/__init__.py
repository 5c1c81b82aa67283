"""Raw tables to a checked, compact dataset; batches and interest pairs from it."""

from mimctr.data.dataset import CtrDataset
from mimctr.data.pairs import HardNegatives, PairRule
from mimctr.data.prepare import prepare_tables
from mimctr.data.problems import Problem, Summary
from mimctr.data.split import SplitRule

__all__ = ["CtrDataset", "HardNegatives", "PairRule", "Problem", "SplitRule", "Summary", "prepare_tables"]
