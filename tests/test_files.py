"""Writes are whole or absent; hashes see names and bytes."""

import subprocess
import sys

import pytest

from mimctr.errors import RunError
from mimctr.files import atomic_folder, atomic_path, hash_json, hash_path, read_json, write_json


def test_a_failed_write_leaves_the_old_file_and_no_remains(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"x": 1})
    with pytest.raises(ZeroDivisionError), atomic_path(path) as temporary:
        temporary.write_text("half")
        1 / 0  # noqa: B018
    assert read_json(path) == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_failed_folder_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "out") as temporary:
        (temporary / "x").write_text("half")
        1 / 0  # noqa: B018
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_not_overwritten(tmp_path):
    with pytest.raises(RunError, match="exists already"), atomic_folder(tmp_path):
        pass


def test_nan_is_not_json(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", float("nan"))
    assert not list(tmp_path.iterdir())


def test_damaged_json_is_named(tmp_path):
    (tmp_path / "x.json").write_text('{"a": ')
    with pytest.raises(RunError, match=r"x\.json: not valid JSON"):
        read_json(tmp_path / "x.json")


def test_a_hash_sees_names_bytes_and_boundaries(tmp_path):
    def folder(name, **files):
        (tmp_path / name).mkdir()
        for file, text in files.items():
            (tmp_path / name / file).write_text(text)
        return hash_path(tmp_path / name)

    hashes = [
        folder("1", a="x", b="y"),
        folder("2", a="xy", b=""),
        folder("3", a="y", b="x"),
        folder("4", c="x", b="y"),
    ]
    assert len(set(hashes)) == 4
    assert folder("5", b="y", a="x") == hashes[0]


def test_a_hash_sees_what_links_lead_to(tmp_path):
    """Mutant: a linked folder counts as nothing, and what is made from it is never made anew."""
    for name in ("there", "whole", "linked"):
        (tmp_path / name).mkdir()
    (tmp_path / "there" / "part").write_text("x")
    (tmp_path / "whole" / "table").mkdir()
    (tmp_path / "whole" / "table" / "part").write_text("x")
    (tmp_path / "linked" / "table").symlink_to(tmp_path / "there")
    assert hash_path(tmp_path / "linked") == hash_path(tmp_path / "whole")
    (tmp_path / "there" / "part").write_text("y")
    assert hash_path(tmp_path / "linked") != hash_path(tmp_path / "whole")
    (tmp_path / "there" / "back").symlink_to(tmp_path / "there")
    with pytest.raises(
        RunError, match=r"back: a link that leads back to .*there, which it is in\. Take it away\."
    ):
        hash_path(tmp_path / "linked")


def test_a_table_that_cannot_be_written_whole_is_an_error_of_the_system(tmp_path):
    """Mutant: what the disk says comes out as an error of the library that wrote."""
    code = (
        "import resource, signal\n"
        "from pathlib import Path\n"
        "import numpy as np, polars as pl\n"
        "from mimctr.files import write_table\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "try:\n"
        "    write_table(Path('x.parquet'), pl.DataFrame({'a': np.random.rand(100_000)}))\n"
        "except OSError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[Errno 27] File too large: 'x.parquet'\n"


def test_the_order_of_keys_does_not_change_a_hash():
    assert hash_json({"a": 1, "b": [1, 2]}) == hash_json({"b": [1, 2], "a": 1})
    assert hash_json({"a": 1}) != hash_json({"a": 2})


@pytest.mark.parametrize(
    "write",
    [
        "from mimctr.weights import save_tensors; save_tensors(path, {'a': torch.zeros(10_000)})",
        "from mimctr.data.arrays import save_array; save_array(path, np.zeros(10_000))",
        "from mimctr.data.arrays import create_array; create_array(path, (10_000,), np.int64)",
    ],
)
def test_a_disk_that_takes_no_more_is_told_with_the_file(write, tmp_path):
    # No file of this process may exceed 4 KiB. Mutants: the library's own exception; a message without a path.
    program = (
        "import resource, sys, numpy as np, torch\n"
        "from pathlib import Path\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "path = Path(sys.argv[1])\n"
        f"try:\n    {write}\n"
        "except OSError as error:\n    print(error)\n"
    )
    path = tmp_path / "some.npy"
    printed = subprocess.run(
        [sys.executable, "-c", program, path], check=True, capture_output=True, text=True
    ).stdout
    assert str(path) in printed
