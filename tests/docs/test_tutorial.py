"""The tutorial is run as it stands: its files, its commands, and what they print."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from .pages import DOCS, blocks

PAGE = (DOCS / "tutorial.md").read_text()
NUMBER = re.compile(r"\d[\d,]*(\.\d+)?(e-?\d+)?")
END = "=== end of a block ==="


def same(line: str) -> str:
    """A line without what may differ: numbers, signs, hashes, and how wide a column is."""
    line = re.sub(r"\b[0-9a-f]{32,}\b", "HASH", line)
    return " ".join(re.sub(r"[+-](?=#)", "", NUMBER.sub("#", line)).split())


def missing(shown: str, printed: str) -> list[str]:
    """Lines of a page that were not printed in this order; ``...`` stands for any."""
    rest = iter([same(line) for line in printed.splitlines()])
    wanted = [line for line in shown.splitlines() if line.strip() not in ("", "...")]
    return [line for line in wanted if same(line) not in rest]


def run_page(folder: Path, *, port: int) -> list[str]:
    """Write the page's files, run its commands in one shell; return what each block of commands printed."""
    commands = []
    for block in blocks(PAGE):
        if block.language == "bash":
            commands.append(block.text.replace("8080", str(port)))
        elif block.language in ("python", "toml"):
            name = re.findall(r"`([\w.]+\.(?:py|toml))`:\s*$", block.before)[-1]
            (folder / name).write_text(block.text)
    programs = folder / "bin"
    programs.mkdir()
    for name, run in {"python": "", "mimctr": "-m mimctr"}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {run} "$@"\n')
        (programs / name).chmod(0o755)
    script = "".join(f"{text}\necho '{END}'\n" for text in commands)
    source = str(Path(sys.modules["mimctr"].__file__).parent.parent)
    environment = os.environ | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": source,
        "COLUMNS": "200",
        "NO_COLOR": "1",
    }
    done = subprocess.run(
        ["bash"], input=script, cwd=folder, env=environment, text=True, timeout=900,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    return done.stdout.split(f"{END}\n")


@pytest.mark.slow
def test_every_command_of_the_tutorial_prints_what_the_page_says(tmp_path):
    import mimctr  # noqa: F401 - where the commands find it

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    printed = iter(run_page(tmp_path, port=port))
    last, checked, scores = "", 0, []
    for block in blocks(PAGE):
        if block.language == "bash":
            last = next(printed, "")
            scores += re.findall(r'^{"scores":.*}$', last, re.MULTILINE)
        elif block.language == "text":
            assert not missing(block.text, last), last
            checked += 1
    assert checked >= 8
    green, red, unknown, *_ = probabilities = [one["probability"] for one in json.loads(scores[0])["scores"]]
    again = [one["probability"] for one in json.loads(scores[1])["scores"]]
    assert green < red
    assert again[:2] == probabilities[:2]
    assert abs(again[2] - red) < abs(unknown - red)  # what it looks like makes it one of the red lamps


def test_a_line_that_was_not_printed_is_found():
    printed = "counts  items 48, users 60\nseconds 0.1\nactive  1\n"
    assert missing("counts    items 50, users 7\n...\nactive 1\n", printed) == []
    assert missing("active 1\ncounts items 48, users 60\n", printed) == ["counts items 48, users 60"]
    assert missing("counts  items 48, people 60\n", printed) == ["counts  items 48, people 60"]
    assert missing("gain +0.17\n", "gain  -0.02\n") == []


def test_every_output_follows_its_command():
    languages = [block.language for block in blocks(PAGE)]
    assert set(languages) == {"python", "toml", "bash", "text"}
    assert all(languages[place - 1] == "bash" for place, name in enumerate(languages) if name == "text")
