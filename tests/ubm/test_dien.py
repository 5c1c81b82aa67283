"""DIEN's two recurrences, its attention and its auxiliary loss against loops over the real behaviors alone."""

import pytest
import torch
import torch.nn.functional as F

from mimctr.ubm.dien import AUGRU, DIEN
from mimctr.ubm.embeddings import Rows

from .conftest import LENGTHS, MASK, B, D, L


@pytest.fixture
def exact_rows(rows: Rows) -> Rows:
    """The rows of this package's tests in float64."""
    return Rows(*(tensor.double() if tensor.is_floating_point() else tensor for tensor in rows))


def states_of(dien: DIEN, behaviors: torch.Tensor) -> list[torch.Tensor]:
    """The interest states of one user's real behaviors, step by step: a plain GRU."""
    gru = dien.extractor
    u_r, u_u = gru.gates.weight.chunk(2)
    state, states = torch.zeros(D, dtype=behaviors.dtype), []
    for behavior in behaviors:
        x_r, x_u, x_c = (gru.inputs.weight @ behavior + gru.inputs.bias).chunk(3)
        reset, update = torch.sigmoid(x_r + u_r @ state), torch.sigmoid(x_u + u_u @ state)
        candidate = torch.tanh(x_c + reset * (gru.candidate.weight @ state))
        state = (1 - update) * state + update * candidate
        states.append(state)
    return states


def extracted(dien: DIEN, rows: Rows) -> torch.Tensor:
    return dien.extractor(rows.behaviors, torch.ones_like(rows.behaviors[..., 0]), MASK)


def evolved(cell: AUGRU, states: list[torch.Tensor], attention: list[torch.Tensor]) -> torch.Tensor:
    """The last state of the AUGRU, in the words of the paper or of the authors' code."""
    state = torch.zeros(D, dtype=states[0].dtype)
    for i, a in zip(states, attention, strict=True):
        x_r, x_u, x_c = (cell.inputs.weight @ i + cell.inputs.bias).chunk(3)
        u_r, u_u = cell.gates.weight.chunk(2)
        reset, update = torch.sigmoid(x_r + u_r @ state), torch.sigmoid(x_u + u_u @ state)
        if cell.cell == "paper":
            candidate = torch.tanh(x_c + reset * (cell.candidate.weight @ state))
            state = (1 - a * update) * state + a * update * candidate
        else:
            candidate = torch.tanh(x_c + cell.candidate.weight @ (reset * state))
            gate = (1 - a) * (1 - update)  # TensorFlow's gate keeps the state
            state = gate * state + (1 - gate) * candidate
    return state


def written_out_loss(dien: DIEN, rows: Rows) -> torch.Tensor:
    """Mean over the steps between two real behaviors of the sum of both terms."""
    terms = []
    for b in range(B):
        behaviors, negatives = rows.behaviors[b, MASK[b]], rows.negatives[b, MASK[b]]
        states = states_of(dien, behaviors)
        for t in range(len(behaviors) - 1):
            right, wrong = states[t] @ behaviors[t + 1], states[t] @ negatives[t + 1]
            terms.append(-F.logsigmoid(right) - torch.log(1 - torch.sigmoid(wrong)))
    return torch.stack(terms).mean()


def test_the_states_are_those_of_a_gru_that_starts_at_the_oldest_behavior(exact_rows: Rows):
    # Mutant: the GRU runs through the padding on the left, whose biases move its state.
    dien = DIEN(D).double()
    found = extracted(dien, exact_rows)
    for b in range(B):
        expected = states_of(dien, exact_rows.behaviors[b, MASK[b]])
        for state, t in zip(expected, range(L - len(expected), L), strict=True):
            torch.testing.assert_close(found[b, t], state)
    assert torch.equal(found[~MASK], torch.zeros_like(found[~MASK]))


def test_the_extractor_equals_pytorch_s_gru(exact_rows: Rows):
    # PyTorch's update gate keeps the state, the paper's moves it; its bias inside the reset gate is set to zero.
    augru, gru = AUGRU(D, cell="paper").double(), torch.nn.GRU(D, D, batch_first=True).double()
    sign = torch.ones(3 * D, 1, dtype=torch.double)
    sign[D : 2 * D] = -1
    with torch.no_grad():
        gru.weight_ih_l0.copy_(sign * augru.inputs.weight)
        gru.bias_ih_l0.copy_(sign.squeeze() * augru.inputs.bias)
        gru.weight_hh_l0.copy_(sign * torch.cat([augru.gates.weight, augru.candidate.weight]))
        gru.bias_hh_l0.zero_()
    everything = torch.ones(B, L, dtype=torch.double)
    found = augru(exact_rows.behaviors, everything, everything.bool())
    torch.testing.assert_close(found, gru(exact_rows.behaviors)[0])


@pytest.mark.parametrize("cell", ["paper", "authors"])
def test_the_last_state_equals_a_written_out_loop(cell: str, exact_rows: Rows):
    # Mutants: the attention dropped, so that DIEN is a plain GRU; the authors' gate in the paper's cell.
    dien = DIEN(D, cell=cell).double()
    found = dien(exact_rows.target, exact_rows.history).vector
    weight = dien.relevance.weight.weight
    for b in range(B):
        if LENGTHS[b] == 0:
            continue
        states = states_of(dien, exact_rows.behaviors[b, MASK[b]])
        scores = torch.stack([h @ weight @ exact_rows.target[b] for h in states])
        attention = list(scores.exp() / scores.exp().sum())
        torch.testing.assert_close(found[b], evolved(dien.evolution, states, attention))


def test_without_attention_the_paper_s_state_stands_still_and_the_authors_moves():
    # Mutant: the state moves although the attention is 0.
    inputs, mask = torch.randn(1, 4, D), torch.ones(1, 4, dtype=torch.bool)
    attention = torch.tensor([[0.0, 0.7, 0.0, 0.0]])
    states = AUGRU(D, cell="paper")(inputs, attention, mask)[0]
    assert torch.equal(states[0], torch.zeros(D))
    assert states[1].abs().min() > 0
    assert torch.equal(states[2:], states[1].expand(2, D))
    states = AUGRU(D, cell="authors")(inputs, attention, mask)[0]
    assert states[0].abs().min() > 0
    assert (states[1:] - states[:-1]).abs().amin() > 0


def test_padding_between_behaviors_leaves_the_state_alone():
    # The authors' state would move there even with no attention.
    augru = AUGRU(D, cell="authors")
    inputs, attention = torch.randn(1, 5, D), torch.rand(1, 5)
    real = torch.tensor([[True, False, True, False, True]])
    expected = augru(inputs[:, ::2], attention[:, ::2], real[:, ::2])
    states = augru(inputs, attention, real)
    torch.testing.assert_close(states[:, ::2], expected)
    assert torch.equal(states[:, 1::2], states[:, :-1:2])


def test_the_attention_of_the_authors_is_din_s_activation_unit(exact_rows: Rows):
    dien = DIEN(D, attention="activation_unit").double()
    unit = dien.relevance
    found = dien(exact_rows.target, exact_rows.history).vector
    for b in range(B):
        if LENGTHS[b] == 0:
            continue
        states = states_of(dien, exact_rows.behaviors[b, MASK[b]])
        scores = []
        for h in states:
            q = exact_rows.target[b]
            x = torch.cat([q, h, q - h, q * h])
            for layer in (unit.first, *unit.hidden):
                x = torch.sigmoid(layer.weight @ x + layer.bias)
            scores.append((unit.out.weight @ x + unit.out.bias).squeeze())
        attention = list(torch.stack(scores).softmax(0))
        torch.testing.assert_close(found[b], evolved(dien.evolution, states, attention))


class TestAuxiliaryLoss:
    """Mutants: padded steps counted in the mean; a state tells its own behavior instead of the next one."""

    def test_loss_and_gradient_equal_a_float64_loop(self, exact_rows: Rows):
        dien = DIEN(D).double()
        found = dien(exact_rows.target, exact_rows.history).auxiliary
        loss = found.loss_share(torch.zeros(B))
        expected = written_out_loss(dien, exact_rows)
        torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)
        parameters = list(dien.extractor.parameters())
        by_hand = torch.autograd.grad(expected, parameters)
        for one, other in zip(torch.autograd.grad(loss, parameters), by_hand, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-8)

    def test_the_gradient_of_a_negative_is_its_probability_times_the_state(self, exact_rows: Rows):
        # d/dê of -log(1 - sigmoid(<h, ê>)) is sigmoid(<h, ê>) h, over the number of real steps.
        dien = DIEN(D).double()
        negatives = exact_rows.negatives.clone().requires_grad_()
        rows = exact_rows._replace(negatives=negatives)
        dien(rows.target, rows.history).auxiliary.loss_share(torch.zeros(B)).backward()
        num_steps = int((LENGTHS - 1).clamp(min=0).sum())
        states = extracted(dien, rows)
        for b in range(B):
            for t in range(L):
                expected = torch.zeros(D, dtype=torch.double)
                if t > L - int(LENGTHS[b]) and LENGTHS[b] > 0:
                    before = states[b, t - 1]
                    expected = torch.sigmoid(before @ negatives[b, t]) * before / num_steps
                torch.testing.assert_close(negatives.grad[b, t], expected, rtol=1e-5, atol=1e-8)

    def test_only_steps_between_two_real_behaviors_count(self, rows: Rows):
        task = DIEN(D)(rows.target, rows.history).auxiliary
        assert task.logits.shape == (B, L - 1, 2)
        assert torch.equal(task.mask.sum(dim=1), (LENGTHS - 1).clamp(min=0))

    def test_a_single_behavior_has_no_next_one(self, rows: Rows):
        task = DIEN(D)(rows.target, rows.history._replace(mask=MASK & (torch.arange(L) == L - 1))).auxiliary
        assert task.loss_share(torch.zeros(B)) == 0

    def test_the_authors_logit_is_a_network_over_state_and_behavior(self, exact_rows: Rows):
        dien = DIEN(D, auxiliary="mlp").double()
        logits = dien(exact_rows.target, exact_rows.history).auxiliary.logits
        states = extracted(dien, exact_rows)
        first, second, last = dien.follows[0], dien.follows[2], dien.follows[4]
        for column, items in enumerate((exact_rows.behaviors, exact_rows.negatives)):
            x = torch.cat([states[1, 2], items[1, 3]])
            x = torch.sigmoid(first.weight @ x + first.bias)
            x = torch.sigmoid(second.weight @ x + second.bias)
            torch.testing.assert_close(logits[1, 2, column], (last.weight @ x + last.bias).squeeze())

    def test_it_is_there_in_training_only(self, rows: Rows):
        dien = DIEN(D)
        alone = dien(rows.target, rows.history._replace(negatives=None))
        beside = dien(rows.target, rows.history)
        assert alone.auxiliary is None
        torch.testing.assert_close(alone.vector, beside.vector, rtol=0, atol=0)
