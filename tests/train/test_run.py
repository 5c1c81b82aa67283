"""A killed run ends where an undisturbed one ends."""

import numpy as np
import pytest
import torch
from torch import nn

from mimctr.errors import RunError
from mimctr.recipes.fitting import resume
from mimctr.train.run import Run
from mimctr.train.seeds import seed_step
from mimctr.weights import load_tensors


class Killed(Exception):
    pass


def train(folder, *, steps=12, kill_at=None, checkpoint_at=()):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    run = Run(folder)
    start, extra, _ = run.restore({"model": model}, optimizer)
    total = extra.get("total", torch.zeros(()))
    for step in range(start, steps):
        if step == kill_at:
            raise Killed
        seed_step(7, step)
        loss = model(torch.randn(8, 3)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total = total + loss.detach()
        run.log(step, loss=loss.item())
        if step in checkpoint_at:
            run.checkpoint(step + 1, {"model": model}, optimizer, extra={"total": total})
    return model.state_dict(), total, run.metrics_path.read_bytes()


@pytest.mark.parametrize("kill_at", [2, 5, 9])
def test_a_killed_run_ends_where_an_undisturbed_one_ends(tmp_path, kill_at):
    weights, total, metrics = train(tmp_path / "whole")
    with pytest.raises(Killed):
        train(tmp_path / "killed", kill_at=kill_at, checkpoint_at=(3, 6))
    resumed, resumed_total, resumed_metrics = train(tmp_path / "killed")
    for name, value in weights.items():
        torch.testing.assert_close(resumed[name], value, rtol=0, atol=0)
    assert torch.equal(total, resumed_total)
    assert metrics == resumed_metrics


def test_a_line_cut_in_the_middle_is_dropped(tmp_path):
    with pytest.raises(Killed):
        train(tmp_path, kill_at=5, checkpoint_at=(3,))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')
    _, _, resumed = train(tmp_path)
    assert resumed == train(tmp_path / "whole")[2]


def test_divergence_stops_the_run_with_step_and_value(tmp_path):
    with pytest.raises(RunError, match="loss is nan at step 3; training has diverged"):
        Run(tmp_path).log(3, loss=float("nan"))


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    train(tmp_path, checkpoint_at=(3,))
    other = nn.Linear(2, 2)
    with pytest.raises(RunError, match=r"checkpoint\.safetensors: does not fit this model"):
        Run(tmp_path).restore({"model": other}, torch.optim.Adam(other.parameters()))


def test_a_flipped_bit_in_a_checkpoint_is_found(tmp_path):
    train(tmp_path, checkpoint_at=(3,))
    path = tmp_path / "checkpoint.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(RunError, match="do not match its checksum"):
        train(tmp_path)


def test_batches_of_another_size_are_not_gone_on_with(tmp_path):
    """Fewer rows than a batch: 7 make batches of 7 in one process, of 6 in two."""
    model = nn.Linear(1, 1)
    optimizer = torch.optim.Adam(model.parameters())
    Run(tmp_path).checkpoint(3, {"model": model}, optimizer, meta={"batch_size": 6})
    assert resume(Run(tmp_path), {"model": model}, optimizer, batch_size=6) == 3
    with pytest.raises(RunError, match="batches had 6 rows, with 1 processes they would have 7"):
        resume(Run(tmp_path), {"model": model}, optimizer, batch_size=7)


def test_what_a_diverged_step_met_is_kept(tmp_path):
    run = Run(tmp_path)
    run.refuse_if_not_finite(4, torch.tensor(1.0), {"rows": np.arange(3)})
    assert not list(tmp_path.iterdir())
    with pytest.raises(RunError, match=r"loss is nan at step 5; .* Its batch is in diverged\.safetensors"):
        run.refuse_if_not_finite(5, torch.tensor(torch.nan), {"rows": np.arange(3)})
    tensors, meta = load_tensors(tmp_path / "diverged.safetensors")
    assert tensors["rows"].tolist() == [0, 1, 2]
    assert meta == {"step": 5}
