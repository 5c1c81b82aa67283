"""Metrics as event files, which TensorBoard shows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mimctr.errors import ConfigError


class EventFiles:
    """What ``metrics.jsonl`` says, for TensorBoard.

    Args:
        folder: Of the event files.

    Raises:
        ConfigError: tensorboard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ConfigError(
                'tensorboard: is not installed. Install it: pip install "mimctr[tensorboard]"'
            ) from None
        self._folder = folder
        self._open = SummaryWriter
        self._writer: Any = None

    def start(self, step: int) -> None:
        """Begin a file whose numbers take the place of all that were written of ``step`` and later ones."""
        self.close()
        self._writer = self._open(str(self._folder), purge_step=step)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write the numbers of one step, to the disk; :meth:`start` comes first."""
        assert self._writer is not None, "a run is restored before it logs"
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
