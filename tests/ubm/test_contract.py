"""Properties every user behavior model must have, alone and inside a CTR model, Base and Base+MIM."""

from dataclasses import fields, replace

import pytest
import torch

from mimctr.batch import Content
from mimctr.errors import ConfigError
from mimctr.ubm.ciubm import DenseHalf
from mimctr.ubm.embeddings import Rows
from mimctr.ubm.interface import History, Relevance, UserBehaviorModel

from .conftest import LENGTHS, MASK, UBMS, B, D, L, history_of, make_dense, strengthened

OF_A_BEHAVIOR = ("behaviors", "mask", "time_gaps", "same_category", "kinds", "negatives")
EMPTY = int((LENGTHS == 0).nonzero()[0, 0])


def spoiled(rows: Rows, content: Content) -> tuple[Rows, Content]:
    """The same batch with garbage at every padded position."""
    padding = ~MASK.unsqueeze(-1)
    return (
        rows._replace(
            behaviors=rows.behaviors.masked_fill(padding, float("nan")),
            time_gaps=rows.time_gaps.masked_fill(~MASK, 10**6),
            same_category=rows.same_category | ~MASK,
            kinds=rows.kinds.masked_fill(~MASK, 3),
            negatives=rows.negatives.masked_fill(padding, float("nan")),
        ),
        replace(
            content,
            behaviors=content.behaviors.masked_fill(padding, float("nan")),
            behaviors_known=content.behaviors_known | ~MASK,
        ),
    )


def take(rows: Rows, content: Content, index: torch.Tensor) -> tuple[Rows, Content]:
    picked = {field.name: getattr(content, field.name)[index] for field in fields(content)}
    return Rows(*(tensor[index] for tensor in rows)), Content(**picked)


def reorder(rows: Rows, content: Content, order: torch.Tensor) -> tuple[Rows, Content]:
    """The same history told in another order: everything that belongs to a behavior moves with it."""
    moved = {name: getattr(rows, name)[:, order] for name in OF_A_BEHAVIOR}
    content = replace(
        content,
        behaviors=content.behaviors[:, order],
        behaviors_known=content.behaviors_known[:, order],
    )
    return rows._replace(**moved), content


def gradients(model: torch.nn.Module, rows: Rows, content: Content) -> dict[str, torch.Tensor | None]:
    model.zero_grad()
    output = model(rows, content)
    loss = output.logit.sum()
    if output.auxiliary is not None:
        loss = loss + output.auxiliary.loss_share(torch.ones(len(output.logit)))
    loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


class TestDenseHalf:
    """Mutants: zero_padding left out; a softmax without its mask; squeeze() without an axis; softmax over the batch."""

    def test_padding_reaches_neither_output_nor_gradient(
        self, dense: DenseHalf, rows: Rows, content: Content
    ):
        clean, dirty = dense(rows, content), dense(*spoiled(rows, content))
        torch.testing.assert_close(dirty.logit, clean.logit, rtol=0, atol=0)
        expected, actual = gradients(dense, rows, content), gradients(dense, *spoiled(rows, content))
        for name in expected:
            torch.testing.assert_close(actual[name], expected[name], rtol=0, atol=0, msg=name)

    def test_padding_reaches_no_gradient_of_the_behaviors(
        self, dense: DenseHalf, rows: Rows, content: Content
    ):
        behaviors = rows.behaviors.clone().requires_grad_()
        dense(rows._replace(behaviors=behaviors), content).logit.sum().backward()
        assert torch.equal(behaviors.grad[~MASK], torch.zeros_like(behaviors.grad[~MASK]))
        assert behaviors.grad[MASK].abs().sum() > 0

    def test_padding_reaches_no_batch_statistics(
        self, ubm: UserBehaviorModel, variant: str, rows: Rows, content: Content
    ):
        # Mutant: Dice statistics over padded rows, the bug of the public libraries.
        torch.manual_seed(0)
        dense = make_dense(ubm, variant, interest_norm="batch")
        start = {name: value.clone() for name, value in dense.state_dict().items()}
        states = []
        for inputs in ((rows, content), spoiled(rows, content)):
            dense.load_state_dict(start)
            torch.manual_seed(0)
            dense.train()(*inputs)
            states.append({name: buffer.clone() for name, buffer in dense.named_buffers()})
        for name, value in states[0].items():
            torch.testing.assert_close(states[1][name], value, rtol=0, atol=0, msg=name)

    def test_more_padding_changes_nothing(self, dense: DenseHalf, rows: Rows, content: Content):
        def padded(x: torch.Tensor) -> torch.Tensor:
            return torch.cat([torch.zeros(B, 3, *x.shape[2:], dtype=x.dtype), x], dim=1)

        wider = rows._replace(**{name: padded(getattr(rows, name)) for name in OF_A_BEHAVIOR})
        wider_content = replace(
            content, behaviors=padded(content.behaviors), behaviors_known=padded(content.behaviors_known)
        )
        torch.testing.assert_close(dense(wider, wider_content).logit, dense(rows, content).logit)

    def test_an_empty_batch_of_histories_is_finite_forward_and_backward(
        self, dense: DenseHalf, rows: Rows, content: Content
    ):
        nothing = torch.zeros_like(MASK)
        rows = rows._replace(mask=nothing, same_category=nothing, time_gaps=torch.zeros_like(rows.time_gaps))
        content = replace(content, behaviors_known=nothing)
        assert dense(rows, content).logit.isfinite().all()
        for mode in (True, False):
            for name, gradient in gradients(dense.train(mode), rows, content).items():
                assert gradient is None or gradient.isfinite().all(), name

    def test_a_batch_of_one_is_its_row_of_the_batch(self, dense: DenseHalf, rows: Rows, content: Content):
        whole = dense(rows, content).logit
        for row in range(B):
            alone = dense(*take(rows, content, torch.tensor([row]))).logit
            torch.testing.assert_close(alone, whole[row : row + 1])

    def test_a_batch_of_one_can_be_trained_on(self, dense: DenseHalf, rows: Rows, content: Content):
        for gradient in gradients(dense.train(), *take(rows, content, torch.tensor([1]))).values():
            assert gradient is None or gradient.isfinite().all()

    def test_a_row_does_not_depend_on_its_batch(self, dense: DenseHalf, rows: Rows, content: Content):
        order = torch.tensor([3, 1, 4, 0, 2])
        torch.testing.assert_close(
            dense(*take(rows, content, order)).logit, dense(rows, content).logit[order]
        )

    def test_gradients_reach_every_parameter(self, dense: DenseHalf, rows: Rows, content: Content):
        # PReLU's slope needs negative inputs and each tier its counts, hence several batches.
        reached = dict.fromkeys(dict(dense.named_parameters()), False)
        for seed in range(20):
            generator = torch.Generator().manual_seed(seed)
            varied = rows._replace(
                behaviors=torch.randn(B, L, D, generator=generator),
                target=torch.randn(B, D, generator=generator),
            )
            for name, gradient in gradients(dense, varied, content).items():
                reached[name] |= gradient is not None and bool(gradient.abs().sum() > 0)
        assert [name for name, value in reached.items() if not value] == []


class TestUserBehaviorModel:
    """Mutants: padding kept by the search; order of the behaviors dropped or invented."""

    def test_no_history_means_no_interest(self, ubm: UserBehaviorModel, rows: Rows, history: History):
        interest = ubm(rows.target, history)
        assert torch.equal(interest.vector[EMPTY], torch.zeros(ubm.width))
        assert not interest.kept[EMPTY].any()

    def test_only_real_behaviors_are_kept(self, ubm: UserBehaviorModel, rows: Rows, content: Content):
        interest = ubm(rows.target, history_of(*spoiled(rows, content)))
        assert not (interest.kept & ~MASK).any()
        assert interest.kept.any()

    def test_the_interest_has_the_promised_width(self, ubm: UserBehaviorModel, rows: Rows, history: History):
        interest = ubm(rows.target, history)
        assert interest.vector.shape == (B, ubm.width)
        assert interest.vector.isfinite().all()

    @pytest.mark.parametrize(
        "name",
        [
            "mean",
            "din",
            "din-dice",
            "din-softmax",
            "bst-mean",
            "bst-target",
            "sim-soft",
            "twin",
            "twin-all",
            "twin-mix",
        ],
    )
    def test_order_alone_does_not_matter(self, name: str, rows: Rows, content: Content):
        # A behavior takes its time gap along; none of these papers looks at the position.
        ubm = strengthened(UBMS[name]()).eval()
        moved, moved_content = reorder(rows, content, torch.arange(L).flip(0))
        before = ubm(rows.target, history_of(rows, content)).vector
        after = ubm(rows.target, history_of(moved, moved_content)).vector
        torch.testing.assert_close(after, before)

    @pytest.mark.parametrize("name", ["dien", "dien-authors"])
    def test_order_matters_to_dien(self, name: str, rows: Rows, history: History):
        ubm = UBMS[name]().eval()
        before = ubm(rows.target, history).vector
        behaviors = rows.behaviors.clone()
        for b in range(B):
            behaviors[b, MASK[b]] = rows.behaviors[b, MASK[b]].flip(0)
        after = ubm(rows.target, history._replace(behaviors=behaviors)).vector
        assert torch.equal((before - after).abs().sum(dim=1) > 1e-3, LENGTHS > 1)

    def test_hard_search_keeps_the_newest_so_order_matters(self, rows: Rows, content: Content):
        ubm = strengthened(UBMS["sim-hard"]()).eval()
        rows = rows._replace(same_category=rows.mask)
        moved, moved_content = reorder(rows, content, torch.arange(L).flip(0))
        before = ubm(rows.target, history_of(rows, content)).vector
        after = ubm(rows.target, history_of(moved, moved_content)).vector
        changed = (before - after).abs().sum(dim=1) > 1e-3
        assert torch.equal(changed, LENGTHS > 3)

    @pytest.mark.parametrize(
        ("name", "matters"),
        [
            ("mean", False),
            ("din", False),
            ("dien", False),
            ("bst", True),
            ("bst-mean", True),
            ("bst-target", True),
            ("sim-hard", True),
            ("sim-soft", True),
            ("twin", True),
            ("twin-all", True),
            ("sim-content", True),
            ("twin-mix", True),
        ],
    )
    def test_time_gaps_matter_where_the_paper_says_so(
        self, name: str, matters: bool, rows: Rows, history: History
    ):
        ubm = strengthened(UBMS[name]()).eval()
        history = history._replace(same_category=rows.mask)
        before = ubm(rows.target, history).vector
        after = ubm(rows.target, history._replace(time_gaps=rows.time_gaps * 64)).vector
        changed = (before - after).abs().sum(dim=1) > 1e-3
        assert torch.equal(changed, (LENGTHS > 0) & matters)

    @pytest.mark.parametrize(
        ("name", "matters"),
        [
            ("mean", False),
            ("din", True),
            ("din-softmax", True),
            ("dien", True),
            ("bst", True),
            ("bst-mean", True),
            ("sim-soft", True),
            ("twin", True),
            ("sim-content", True),
            ("twin-mix", True),
        ],
    )
    def test_the_target_matters_to_all_but_avg_pooling(
        self, name: str, matters: bool, rows: Rows, history: History
    ):
        ubm = strengthened(UBMS[name]()).eval()
        before = ubm(rows.target, history).vector
        after = ubm(-rows.target, history).vector
        assert bool((before - after).abs().max() > 1e-3) == matters

    def test_kinds_are_looked_at_by_models_that_take_them_apart(
        self, ubm: UserBehaviorModel, ubm_name: str, rows: Rows, history: History
    ):
        other = history._replace(kinds=(5 - rows.kinds) * MASK)
        changed = ubm(rows.target, history).vector != ubm(rows.target, other).vector
        assert ubm.takes_kinds_apart == ubm_name.startswith("twin")
        assert torch.equal(changed.any(dim=1), (LENGTHS > 0) & ubm.takes_kinds_apart)

    def test_negatives_reach_the_auxiliary_task_alone(
        self, ubm: UserBehaviorModel, ubm_name: str, rows: Rows, history: History
    ):
        other = history._replace(negatives=rows.negatives.flip(0))
        before, after = ubm(rows.target, history), ubm(rows.target, other)
        assert torch.equal(before.vector, after.vector)
        assert ubm.needs_negatives == ubm_name.startswith("dien")
        if before.auxiliary is not None:
            changed = bool((before.auxiliary.logits != after.auxiliary.logits).any())
            assert changed == ubm.needs_negatives

    def test_content_is_looked_at_by_models_that_ask_for_it(
        self, ubm: UserBehaviorModel, ubm_name: str, rows: Rows, history: History
    ):
        cosine, known = history.relevance
        other = history._replace(relevance=Relevance(-cosine, known))
        changed = ubm(rows.target, history).vector != ubm(rows.target, other).vector
        assert ubm.needs_relevance == ubm_name.endswith(("content", "mix"))
        assert bool(changed.any()) == ubm.needs_relevance
        assert not changed[~known.any(dim=1)].any()

    def test_a_model_that_asks_for_content_and_gets_none_says_so(self, ubm: UserBehaviorModel, rows: Rows):
        if ubm.needs_relevance:
            with pytest.raises(
                ConfigError, match="compares content vectors, and the history brings no cosines"
            ):
                ubm(rows.target, rows.history)
        else:
            assert ubm(rows.target, rows.history).vector.isfinite().all()

    def test_garbage_beside_the_cosines_reaches_neither_output_nor_gradient(
        self, ubm: UserBehaviorModel, rows: Rows, history: History
    ):
        cosine, known = history.relevance
        dirty = Relevance(cosine.masked_fill(~MASK, float("nan")), known | ~MASK)
        found = []
        for relevance in (history.relevance, dirty):
            ubm.zero_grad()
            behaviors = rows.behaviors.clone().requires_grad_()
            vector = ubm(rows.target, history._replace(behaviors=behaviors, relevance=relevance)).vector
            (vector**2).sum().backward()
            found.append([vector, behaviors.grad, *(p.grad for p in ubm.parameters() if p.grad is not None)])
        torch.testing.assert_close(found[1], found[0], rtol=0, atol=0)
