"""Stages: what was made from what, skipped when unchanged, resumed when half made.

A stage is a function that fills a folder. Its key is the hash of its config and of its inputs' keys; ``stage.json``
is written last, so a folder that holds one is complete.
"""

import contextlib
import fcntl
import logging
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict

import mimctr
from mimctr import distributed
from mimctr.errors import RunError, first_of
from mimctr.files import hash_json, hash_path, read_json, write_json
from mimctr.train.memory import explain_out_of_memory, keep_freed_memory, peak_memory, reset_peak_memory

logger = logging.getLogger(__name__)

RECORD = "stage.json"
STARTED = "stage.started.json"
FORMAT = 5
"""Raised when a change of the code makes older stage folders unfit; part of every key."""


class StageRecord(BaseModel):
    """What a finished stage says of itself in ``stage.json``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    key: str
    """SHA-256 of the stage's name, format, config and inputs."""
    config: dict
    inputs: dict[str, str]
    """Key (of a stage's folder) or content hash (of anything else) of each input."""
    versions: dict[str, str]
    seconds: float
    """Wall-clock time of all attempts. Of one that was killed it is what its files say: until the last was written."""
    peak_memory_bytes: int
    """Largest resident set of this process while the stage ran."""


def input_key(path: Path) -> str:
    """Return what stands for an input in a key: a stage folder's own key, else a hash of the content."""
    if (path / RECORD).is_file():
        return read_record(path).key
    if not path.exists():
        raise RunError(f"{path}: no such file or folder. Make it first, or correct the path.")
    if (path / STARTED).is_file():
        raise RunError(f"{path}: the stage that makes it was interrupted. Run that stage again first.")
    return hash_path(path)


def read_record(folder: Path) -> StageRecord:
    """Return the record of a finished stage.

    Raises:
        RunError: there is none, or it is damaged.
    """
    try:
        return StageRecord.model_validate(read_json(folder / RECORD))
    except ValueError as error:
        raise RunError(f"{folder / RECORD}: not a stage record ({error}). Run the stage again.") from None


@dataclass(frozen=True)
class Stage:
    """A function that fills a folder, and everything that decides what it puts there.

    Of several processes the first one looks and keeps the record.
    """

    name: str
    """As in the command line."""
    out: Path
    """The stage's own folder. Nothing that is not a stage's is ever deleted."""
    config: BaseModel = field(kw_only=True)
    """All settings that change the result."""
    inputs: Mapping[str, Path] = field(kw_only=True)
    """Files and folders that the stage reads, by name."""
    work: Callable[[], object] = field(kw_only=True)
    """Fills ``out``; resumes what an interrupted call with the same key left there."""
    together: bool = field(default=False, kw_only=True)
    """All processes share the work; else the first one does it alone, and the others wait."""

    def is_made(self) -> bool:
        """Return whether :meth:`run` has nothing left to do."""
        return (self.out / RECORD).is_file() and read_record(self.out).key == self._key()[0]

    def replaces(self) -> str | None:
        """Return why :meth:`run` would remove what ``out`` holds, in words; None where it would keep it."""
        key, keys = self._key()
        if (self.out / RECORD).is_file():
            record = read_record(self.out)
            other = record.name == self.name and record.key != key
            return _difference(record, self._settings(), keys) if other else None
        half = (self.out / STARTED).is_file() and read_json(self.out / STARTED)["key"] != key
        return "it is half made from other settings" if half else None

    def run(self) -> StageRecord:
        """Fill ``out``, unless it has been filled from the same config and inputs already.

        Raises:
            RunError: ``out`` holds something that no stage made, or another stage's result; another process is filling
                it; memory does not suffice.
        """
        key, keys = distributed.from_main(self._key)
        if distributed.from_main(lambda: _is_kept(self.name, self.out, key)):
            return read_record(self.out)
        with claimed(self.out) if distributed.is_main() else contextlib.nullcontext():
            try:
                return self._fill(key, keys)
            except BaseException:
                if distributed.is_main() and [child.name for child in self.out.iterdir()] == [STARTED]:
                    (self.out / STARTED).unlink()  # nothing was made, so there is nothing to resume
                raise

    def _fill(self, key: str, keys: dict[str, str]) -> StageRecord:
        settings = self._settings()
        earlier = distributed.from_main(lambda: _make_ready(self.name, self.out, key, settings, keys))
        keep_freed_memory()
        reset_peak_memory()
        begun = time.monotonic()
        try:
            with explain_out_of_memory(f"{self.name} {self.out}", _advice(settings)):
                if self.together:
                    self.work()
                elif distributed.is_main():
                    with distributed.alone():
                        self.work()
        except BaseException:
            if distributed.is_main():
                with contextlib.suppress(OSError):  # of a full disk, say: what ended the work is told
                    _write_started(self.out, self.name, key, earlier + time.monotonic() - begun)
            raise
        distributed.barrier()
        if distributed.is_main():
            record = StageRecord(
                name=self.name,
                key=key,
                config=settings,
                inputs=keys,
                versions={"mimctr": mimctr.__version__, "python": platform.python_version()},
                seconds=earlier + time.monotonic() - begun,
                peak_memory_bytes=peak_memory(),
            )
            write_json(self.out / RECORD, record.model_dump(mode="json"))
            (self.out / STARTED).unlink()
        distributed.barrier()
        return read_record(self.out)

    def _settings(self) -> dict:
        return self.config.model_dump(mode="json")

    def _key(self) -> tuple[str, dict[str, str]]:
        """Return the stage's key, and those of its inputs."""
        keys = {label: input_key(path) for label, path in sorted(self.inputs.items())}
        named = {"name": self.name, "format": FORMAT, "config": self._settings(), "inputs": keys}
        return hash_json(named), keys


def _is_kept(name: str, out: Path, key: str) -> bool:
    """Return whether ``out`` holds the result already."""
    if not (out / RECORD).is_file() or read_record(out).key != key:
        return False
    logger.info("%s: unchanged, kept %s", name, out)
    return True


@contextlib.contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Hold the folder ``out`` (made if missing) for this process; however the process ends, it holds it no more.

    Raises:
        RunError: another process holds it.
    """
    out.mkdir(parents=True, exist_ok=True)
    handle = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(
                f"{out}: another process is filling it at this moment. Wait for it, or choose another folder."
            ) from None
        yield
    finally:
        os.close(handle)


def _make_ready(name: str, out: Path, key: str, settings: dict, keys: dict[str, str]) -> float:
    """Make ``out`` ready to be filled, or to be filled further; return how many seconds earlier attempts took."""
    earlier = 0.0
    if (out / RECORD).is_file():
        record = read_record(out)
        if record.name != name:
            raise RunError(
                f"{out}: holds the result of '{record.name}', not of '{name}'. Choose another folder."
            )
        logger.info("%s: %s; making %s anew", name, _difference(record, settings, keys), out)
        _empty(out)
    elif any(out.iterdir()):
        if not (out / STARTED).is_file():
            raise RunError(f"{out}: not empty, and no stage of mimctr made it. Choose another folder.")
        if read_json(out / STARTED)["key"] != key:
            logger.info("%s: half made from other settings; making %s anew", name, out)
            _empty(out)
        else:
            logger.info("%s: resuming %s", name, out)
            earlier = _seconds_so_far(out)
            _remove_scratch(out)
    _write_started(out, name, key, earlier)
    return earlier


def _write_started(out: Path, name: str, key: str, seconds: float) -> None:
    """Say that ``out`` is half made, and how many seconds the attempts took that have ended."""
    write_json(out / STARTED, {"name": name, "key": key, "seconds": seconds})


def _seconds_so_far(out: Path) -> float:
    """Return how many seconds a half made folder took, those of an attempt that was killed up to its last file."""
    started = out / STARTED
    written = max(path.stat().st_mtime for path in out.rglob("*") if path.is_file())
    return read_json(started).get("seconds", 0.0) + written - started.stat().st_mtime


def _remove_scratch(out: Path) -> None:
    """Remove the temporary folders (``tempfile.TemporaryDirectory(dir=out)``) that a killed attempt left."""
    for folder in out.glob(f"{tempfile.gettempprefix()}*/"):
        shutil.rmtree(folder)


def _advice(settings: dict) -> str:
    """Say what would need less memory."""
    size = settings.get("batch_size")
    if size is None or size == 1:
        return "Free some, or give it a machine with more."
    return f"The batch size is {size:,}: try batch_size = {size // 2}."


def fill_folder(out: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` make a new folder, then move what it made into the stage's folder ``out``.

    For work that is written whole and cannot be resumed: what an interrupted attempt left is removed first.
    """
    making = out / "making"
    _empty(out, but=STARTED)
    write(making)
    for child in making.iterdir():
        child.rename(out / child.name)
    making.rmdir()


def _empty(folder: Path, *, but: str = "") -> None:
    """Remove everything in ``folder`` but the file of that name."""
    for child in folder.iterdir():
        if child.name != but:
            shutil.rmtree(child) if child.is_dir() and not child.is_symlink() else child.unlink()


def _difference(record: StageRecord, settings: dict, keys: dict[str, str]) -> str:
    """Say in words why a result is out of date."""
    changed = [label for label in keys if record.inputs.get(label) != keys[label]]
    if changed:
        return f"its input {first_of(changed)} changed"
    fields = [name for name in settings if record.config.get(name) != settings[name]]
    return f"its setting {', '.join(fields)} changed" if fields else "it was made by an older mimctr"
