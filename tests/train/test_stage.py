"""A stage is made once per key, resumed when half made, and never deletes what is not its own."""

import fcntl
import json
import os
import subprocess
import sys
import tempfile
from types import SimpleNamespace

import pytest
from pydantic import BaseModel

from mimctr.errors import RunError
from mimctr.train.stage import Stage, read_record


class Config(BaseModel):
    size: int = 1


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source.txt"
    path.write_text("a")
    return path


@pytest.fixture
def make(tmp_path, source):
    calls = []

    def call(size=1, work=None):
        def write():
            calls.append(size)
            (tmp_path / "out" / "result").write_text(f"{source.read_text()}{size}")

        Stage(
            "demo", tmp_path / "out", config=Config(size=size), inputs={"source": source}, work=work or write
        ).run()
        return calls

    return call


def test_an_unchanged_stage_is_not_made_again(make):
    make()
    assert make() == [1]


def test_a_changed_setting_or_input_makes_it_anew(make, source, tmp_path):
    make()
    assert make(size=2) == [1, 2]
    source.write_text("b")
    assert make(size=2) == [1, 2, 2]
    assert (tmp_path / "out" / "result").read_text() == "b2"


def test_a_half_made_stage_is_resumed_and_another_ones_remains_are_removed(make, tmp_path):
    def dies():
        (tmp_path / "out" / "half").write_text("x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(work=dies)
    make()
    assert (tmp_path / "out" / "half").exists()

    with pytest.raises(KeyboardInterrupt):
        make(size=2, work=dies)
    make(size=3)
    assert not (tmp_path / "out" / "half").exists()


@pytest.fixture
def clock(monkeypatch):
    """Seconds that only the work moves."""
    moved = SimpleNamespace(now=0.0)
    monkeypatch.setattr("mimctr.train.stage.time", SimpleNamespace(monotonic=lambda: moved.now))
    return moved


def test_the_seconds_of_a_stage_are_those_of_all_its_attempts(make, tmp_path, clock):
    """Mutant: the record knows the attempt that finished only."""

    def works(seconds, *, ends=True):
        def work():
            (tmp_path / "out" / f"part{clock.now}").write_text("x")
            clock.now += seconds
            if not ends:
                raise KeyboardInterrupt

        return work

    for seconds in (10.0, 5.0):
        with pytest.raises(KeyboardInterrupt):
            make(work=works(seconds, ends=False))
    make(work=works(2.0))
    assert read_record(tmp_path / "out").seconds == pytest.approx(17, abs=1e-3)
    make(size=2, work=works(3.0))  # anew
    assert read_record(tmp_path / "out").seconds == 3.0


@pytest.mark.parametrize("said", [{"seconds": 4.0}, {}])
def test_an_attempt_that_was_killed_took_until_its_last_file(make, tmp_path, clock, said):
    """Mutant: what nobody could write down took no time. Older versions said nothing of seconds."""

    def dies():
        (tmp_path / "out" / "half").write_text("x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(work=dies)
    half, started = (tmp_path / "out" / name for name in ("half", "stage.started.json"))
    told = json.loads(started.read_text())
    started.write_text(json.dumps({"name": told["name"], "key": told["key"], **said}))
    for path, at in ((started, 1_000_000), (half, 1_000_020)):
        os.utime(path, (at, at))
    make(work=lambda: setattr(clock, "now", clock.now + 3.0))
    assert read_record(tmp_path / "out").seconds == 23.0 + said.get("seconds", 0.0)


def test_scratch_that_a_killed_attempt_left_is_removed(make, tmp_path):
    """Mutant: it lies in the finished folder for ever."""

    def dies():
        scratch = tempfile.mkdtemp(dir=tmp_path / "out")  # what TemporaryDirectory has no time to remove
        (tmp_path / "out" / scratch / "pixels").write_text("x")
        (tmp_path / "out" / "half").write_text("x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(work=dies)
    make()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["half", "result", "stage.json"]


def test_a_stage_says_what_it_would_replace_and_replaces_nothing(tmp_path, source):
    def stage(size=1, name="demo"):
        def work():
            (tmp_path / "out" / "result").write_text("x")

        inputs = {"source": source}
        return Stage(name, tmp_path / "out", config=Config(size=size), inputs=inputs, work=work)

    assert stage().replaces() is None  # nothing is there
    stage().run()
    assert stage().replaces() is None
    assert stage(name="other").replaces() is None  # refused, not replaced
    assert stage(size=2).replaces() == "its setting size changed"
    source.write_text("b")
    assert stage().replaces() == "its input source changed"
    assert (tmp_path / "out" / "result").exists()

    (tmp_path / "out" / "stage.json").unlink()
    (tmp_path / "out" / "stage.started.json").write_text('{"name": "demo", "key": "of old"}')
    assert stage().replaces() == "it is half made from other settings"
    assert (tmp_path / "out" / "result").exists()


def test_a_refusal_leaves_no_mark_of_a_start(make, tmp_path):
    def refuses():
        raise RunError("no")

    with pytest.raises(RunError, match="no"):
        make(work=refuses)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_stage_made_from_a_stage_is_keyed_by_that_stage(make, tmp_path):
    make()
    record = Stage(
        "next", tmp_path / "next", config=Config(), inputs={"demo": tmp_path / "out"}, work=lambda: None
    ).run()
    assert record.inputs == {"demo": read_record(tmp_path / "out").key}


def test_a_foreign_folder_is_left_alone(make, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(
        RunError, match=r"out: not empty, and no stage of mimctr made it\. Choose another folder\."
    ):
        make()
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"


def test_another_stages_result_is_left_alone(make, tmp_path, source):
    make()
    with pytest.raises(RunError, match="holds the result of 'demo', not of 'other'"):
        Stage("other", tmp_path / "out", config=Config(), inputs={"source": source}, work=lambda: None).run()


def test_a_missing_or_interrupted_input_is_refused(tmp_path):
    with pytest.raises(RunError, match="absent: no such file or folder"):
        Stage(
            "x", tmp_path / "x", config=Config(), inputs={"a": tmp_path / "absent"}, work=lambda: None
        ).run()
    half = tmp_path / "half"
    half.mkdir()
    (half / "stage.started.json").write_text("{}")
    with pytest.raises(RunError, match="half: the stage that makes it was interrupted"):
        Stage("x", tmp_path / "x", config=Config(), inputs={"a": half}, work=lambda: None).run()


def test_a_folder_that_another_process_fills_is_left_to_it(make, tmp_path):
    # Mutant: two processes write one checkpoint and one metrics file.
    program = (
        "import fcntl, os, sys\n"
        "handle = os.open(sys.argv[1], os.O_RDONLY)\n"
        "fcntl.flock(handle, fcntl.LOCK_EX)\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    (tmp_path / "out").mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", program, tmp_path / "out"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(RunError, match="out: another process is filling it at this moment"):
            make()
        assert list((tmp_path / "out").iterdir()) == []
        other.kill()  # -9: whoever is gone holds nothing
    assert make() == [1]


def test_the_folder_is_held_while_the_work_is_done_and_not_longer(make, tmp_path):
    def again():
        with pytest.raises(RunError, match="another process is filling it"):
            make(size=2)
        (tmp_path / "out" / "result").write_text("done")

    make(work=again)
    assert make(size=2) == [2]


def test_a_kept_result_can_be_looked_at_by_many(make, tmp_path):
    make()
    handle = os.open(tmp_path / "out", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    assert make() == [1]
    os.close(handle)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError("Unable to allocate 7.45 GiB for an array"), "; 7.45 GiB more were asked for"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."), "; 2.00 GiB more were asked for"),
        (
            RuntimeError(
                "DefaultCPUAllocator: can't allocate memory: you tried to allocate 3221225472 bytes."
            ),
            "; 3.00 GiB more were asked for",
        ),
        (MemoryError(), ""),
    ],
)
def test_a_lack_of_memory_is_told_with_what_would_need_less(error, told, source, tmp_path):
    class Sized(BaseModel):
        batch_size: int

    def work():
        raise error

    for batch_size, advice in (
        (3, "The batch size is 3: try batch_size = 1."),
        (1, "Free some, or give it a"),
    ):
        with pytest.raises(RunError) as caught:
            Stage("demo", tmp_path / "out", config=Sized(batch_size=batch_size), inputs={}, work=work).run()
        assert str(caught.value).startswith(f"demo {tmp_path / 'out'}: out of memory{told}. {advice}")
