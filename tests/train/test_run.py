"""A killed run ends where an undisturbed one ends."""

import pytest
import torch
from torch import nn

from mimctr.errors import RunError
from mimctr.train.run import Run
from mimctr.train.seeds import seed_step


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
