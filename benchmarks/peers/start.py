"""One task of one contestant, in a process and an environment of its own; both benchmarks of peers start it here."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).parent
OURS = "mimctr"
SIZES = {
    "batch_size": 1024,
    "dim": 16,
    "attention_dims": [80, 40],
    "hidden_dims": [256, 128, 64],
    "k": 20,
}


def run_task(library: str, task: str, folder: Path, settings: dict, *, peers: Path) -> dict:
    """Return what ``train`` wrote down; nothing for ``prepare``.

    Args:
        library: Its script is ``run_<library>.py``.
        task: ``prepare`` or ``train``.
        folder: Absolute; holds ``log.npz``, and a folder of each library.
        settings: Of ``contest.Settings``.
        peers: Python of the peers' environment; ours runs in that of the caller.
    """
    if library != OURS and not peers.is_file():
        raise SystemExit(
            f"{peers}: no such Python. Make the peers' environment (make .venv-peers/installed), or name it: --peers."
        )
    command = [sys.executable if library == OURS else str(peers.absolute())]
    command += [
        str(SCRIPTS / f"run_{library}.py"),
        task,
        str(folder / "log.npz"),
        str(folder / library),
        json.dumps(settings),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(
            f"{library} could not {task} {settings['row']} (exit {done.returncode}).\n{done.stderr[-3000:]}"
        )
    return json.loads((folder / library / "outcome.json").read_text()) if task == "train" else {}
