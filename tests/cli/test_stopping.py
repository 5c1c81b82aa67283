"""What runs for ever ends well when it is told to."""

import os
import signal

import pytest
from typer.testing import CliRunner

from mimctr.cli import app
from mimctr.cli.stopping import ends_when_told
from mimctr.recipes import center, serve


def test_told_to_stop_is_no_failure():
    """Mutant: an orchestrator sees a failure of what it stopped itself."""
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended, ends_when_told():
        os.kill(os.getpid(), signal.SIGTERM)
    assert ended.value.code == 0
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["center", "publish", "c", "--store", "redis://x", "--follow"], True),
        (["center", "publish", "c", "--store", "redis://x"], False),
        (["serve", "bundle"], True),
    ],
)
def test_only_what_runs_for_ever_takes_a_signal_for_its_end(monkeypatch, words, told):
    """Mutant: a publisher that was to end by itself, and was stopped half-way, says that it did."""
    found = []

    def look(*_: object, **__: object) -> dict[str, int]:
        found.append(signal.getsignal(signal.SIGTERM))
        return {}

    monkeypatch.setattr(center, "publish", look)
    monkeypatch.setattr(serve, "main", look)
    before = signal.getsignal(signal.SIGTERM)
    assert CliRunner().invoke(app, words).exit_code == 0
    assert (found != [before]) is told
