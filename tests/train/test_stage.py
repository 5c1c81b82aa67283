"""A stage is made once per key, resumed when half made, and never deletes what is not its own."""

import fcntl
import os
import subprocess
import sys

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
