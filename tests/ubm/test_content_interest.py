"""Eq. (7) to (9) against a double loop, and what follows from their form."""

import math
from dataclasses import replace

import pytest
import torch

from mimctr.batch import Content, Lookup
from mimctr.errors import ConfigError
from mimctr.ubm.ciubm import DenseHalf
from mimctr.ubm.content_interest import concatenate_interests, content_interest, cosine
from mimctr.ubm.content_module import ContentAwareInterest
from mimctr.ubm.embeddings import Rows
from mimctr.ubm.interface import Interest, Relevance
from mimctr.ubm.sim import SIM

from .conftest import MASK, B, C, D, L, make_dense


def by_hand(target: list[float], vectors: list[list[float]], rows: list[list[float]], counted: list[bool]):
    """Eq. (7) and (8) for one impression, in plain Python."""
    content, fusion, relevance = [0.0] * len(target), [0.0] * len(rows[0]), [0.0] * len(vectors)
    for i, (vector, row) in enumerate(zip(vectors, rows, strict=True)):
        lengths = math.sqrt(sum(a * a for a in target)) * math.sqrt(sum(b * b for b in vector))
        if not counted[i] or lengths == 0:
            continue
        relevance[i] = sum(a * b for a, b in zip(target, vector, strict=True)) / lengths
        content = [sum_ + relevance[i] * value for sum_, value in zip(content, vector, strict=True)]
        fusion = [sum_ + relevance[i] * value for sum_, value in zip(fusion, row, strict=True)]
    return content, fusion, relevance


def interests(rows: Rows, content: Content):
    return content_interest(
        target_content=content.target,
        behaviors_content=content.behaviors,
        behaviors=rows.behaviors,
        mask=content.behaviors_known,
    )


def test_equals_a_double_loop(rows: Rows, content: Content):
    # Mutants: a softmax, a mean instead of the sum, the fusion weighted by attention, inner product for cosine.
    found = interests(rows, content)
    for b in range(B):
        expected = by_hand(
            content.target[b].tolist(),
            content.behaviors[b].tolist(),
            rows.behaviors[b].tolist(),
            content.behaviors_known[b].tolist(),
        )
        for actual, wanted in zip(found, expected, strict=True):
            torch.testing.assert_close(actual[b], torch.tensor(wanted))


@pytest.mark.parametrize("size", [1, 64, 65, 200])
def test_fetched_part_by_part_is_as_fetched_at_once(size: int, monkeypatch: pytest.MonkeyPatch):
    # Mutants: another vector in a missing one's place counts; a learned target's relevance without gradient.
    monkeypatch.setattr("mimctr.ubm.content_interest.FETCHED", 64 * L)
    generator = torch.Generator().manual_seed(size)
    lookup = Lookup(
        table=torch.randn(20, C, generator=generator).half(),
        rows=torch.randint(-1, 20, (size, L), generator=generator),
    )
    learned = torch.rand(size, generator=generator) < 0.3
    vectors, unknown = torch.randn(size, C, generator=generator), torch.randn(C, generator=generator)
    behaviors = torch.randn(size, L, D, generator=generator)
    mask = (torch.rand(size, L, generator=generator) < 0.7) & (lookup.rows >= 0)
    found = []
    for contents in (lookup, lookup.fetch()):
        learned_vector, rows = unknown.clone().requires_grad_(), behaviors.clone().requires_grad_()
        interest = content_interest(
            target_content=torch.where(learned.unsqueeze(1), learned_vector, vectors),
            behaviors_content=contents,
            behaviors=rows,
            mask=mask,
            learned=learned,
        )
        sum(part.square().sum() for part in interest).backward()
        found.append([*interest, learned_vector.grad, rows.grad])
    for part_by_part, at_once in zip(*found, strict=True):
        torch.testing.assert_close(part_by_part, at_once)


def test_the_gradient_of_a_learned_target_is_autograds_in_float64():
    # Mutant: the cosine's gradient without the part along the target.
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(20, C, generator=generator).half()
    table[3] = 0
    rows = torch.randint(-1, 20, (8, 30), generator=generator)
    rows[0, :2] = torch.tensor([3, -1])
    target, behaviors = torch.randn(8, C, generator=generator), torch.randn(8, 30, D, generator=generator)
    target[2] = 0
    learned = torch.tensor([True, False, True, True, False, False, True, False])
    weights = [torch.randn(8, width, generator=generator) for width in (C, D, 30)]
    gradients = []
    for lookup, dtype in ((True, torch.float32), (False, torch.float64)):
        leaf = target.to(dtype, copy=True).requires_grad_()
        contents = Lookup(table=table, rows=rows)
        found = content_interest(
            target_content=leaf,
            behaviors_content=contents if lookup else contents.fetch().to(dtype),
            behaviors=behaviors.to(dtype),
            mask=rows >= 0,
            learned=learned,
        )
        sum((part * weight).sum() for part, weight in zip(found, weights, strict=True)).backward()
        gradients.append(leaf.grad)
    written_out, autograds = gradients
    finite = learned & (target.norm(dim=1) > 0)
    torch.testing.assert_close(written_out[finite].double(), autograds[finite], rtol=1e-4, atol=1e-4)
    assert written_out.isfinite().all()
    assert torch.equal(written_out[~learned], torch.zeros(4, C))


def test_a_batch_without_a_learned_target_gives_the_learned_vector_a_gradient_of_zero():
    # Adam goes on with its momentum where the gradient is zero, and stands still where there is none.
    unknown = torch.randn(C, requires_grad=True)
    learned = torch.zeros(2, dtype=torch.bool)
    found = content_interest(
        target_content=torch.where(learned.unsqueeze(1), unknown, torch.randn(2, C)),
        behaviors_content=Lookup(table=torch.randn(5, C).half(), rows=torch.tensor([[0, 4], [-1, 2]])),
        behaviors=torch.randn(2, 2, D),
        mask=torch.tensor([[True, True], [False, True]]),
        learned=learned,
    )
    sum(part.sum() for part in found).backward()
    assert torch.equal(unknown.grad, torch.zeros(C))


def test_a_lookup_without_any_vector_is_zero():
    lookup = Lookup(table=torch.empty(0, C, dtype=torch.float16), rows=torch.full((2, 3), -1))
    assert torch.equal(lookup.fetch(), torch.zeros(2, 3, C))


def test_fetched_with_any_vector_in_a_missing_ones_place_is_the_same_elsewhere():
    lookup = Lookup(table=torch.randn(5, C).half(), rows=torch.tensor([[0, -1, 4], [2, 2, -1]]))
    known = lookup.rows >= 0
    assert torch.equal(lookup.fetch_any()[known], lookup.fetch()[known])
    assert lookup.fetch_any().isfinite().all()
    assert not lookup.fetch()[~known].any()
    empty = Lookup(table=torch.empty(0, C, dtype=torch.float16), rows=torch.full((2, 3), -1))
    assert torch.equal(empty.fetch_any(), torch.zeros(2, 3, C))


@pytest.mark.parametrize("c", [1e-3, 0.5, 300.0])
def test_the_length_of_a_vector_does_not_change_its_relevance(rows: Rows, content: Content, c: float):
    # Mutant: the inner product instead of the cosine.
    relevance = interests(rows, content).relevance
    scaled = replace(content, target=content.target * c, behaviors=content.behaviors / c)
    torch.testing.assert_close(interests(rows, scaled).relevance, relevance)


def test_a_negative_relevance_stays_negative(rows: Rows, content: Content):
    # Mutant: relevance clamped at 0.
    opposite = interests(rows, replace(content, target=-content.target))
    torch.testing.assert_close(opposite.relevance, -interests(rows, content).relevance)
    torch.testing.assert_close(opposite.content, -interests(rows, content).content)


def test_a_missing_embedding_drops_out(rows: Rows, content: Content):
    # Mutant: mask instead of mask & known: the missing vector would still count in the fusion.
    row, position = 1, 3
    known = content.behaviors_known.clone()
    known[row, position] = False
    without = interests(rows, replace(content, behaviors_known=known))
    kept = [i for i in range(L) if i != position]
    shorter = content_interest(
        target_content=content.target[row : row + 1],
        behaviors_content=content.behaviors[row : row + 1, kept],
        behaviors=rows.behaviors[row : row + 1, kept],
        mask=content.behaviors_known[row : row + 1, kept],
    )
    torch.testing.assert_close(without.content[row], shorter.content[0])
    torch.testing.assert_close(without.fusion[row], shorter.fusion[0])


def test_a_vector_that_is_not_known_is_not_read(dense: DenseHalf, rows: Rows, content: Content):
    # Mutant: the module counts every real behavior, known or not.
    missing = ~content.behaviors_known & MASK
    assert missing.any()
    garbage = replace(content, behaviors=content.behaviors.masked_fill(missing.unsqueeze(-1), float("nan")))
    torch.testing.assert_close(dense(rows, garbage).logit, dense(rows, content).logit, rtol=0, atol=0)


def test_a_zero_vector_has_no_relevance_and_a_finite_gradient():
    one = torch.zeros(1, 4, requires_grad=True)
    many = torch.randn(1, 3, 4)
    relevance = cosine(one, many)
    assert torch.equal(relevance, torch.zeros(1, 3))
    relevance.sum().backward()
    assert one.grad.isfinite().all()


def test_the_interests_come_in_the_order_of_eq_9(rows: Rows, content: Content):
    found = interests(rows, content)
    id_interest = torch.randn(B, 3)
    whole = concatenate_interests(id_interest, found, interests=("fusion", "content", "id"))
    torch.testing.assert_close(whole, torch.cat([id_interest, found.content, found.fusion], dim=1))
    assert concatenate_interests(id_interest, found, interests=("content",)) is not None
    torch.testing.assert_close(
        concatenate_interests(id_interest, found, interests=("content",)), found.content
    )


@pytest.mark.parametrize(
    "interests", [("id",), ("content",), ("fusion",), ("content", "fusion"), ("id", "fusion")]
)
def test_an_ablation_leaves_the_named_interests(interests: tuple[str, ...], rows: Rows, content: Content):
    module = ContentAwareInterest(id_width=3, dim=D, content_dim=C, interests=interests).eval()
    vector = torch.randn(B, 3)
    aware = module(Interest(vector, rows.mask), rows.behaviors, rows.mask, content)
    assert aware.interest.shape == (B, module.width)
    assert module.width == sum({"id": 3, "content": C, "fusion": D}[name] for name in interests)
    assert module.num_scalars == 0
    assert aware.features.shape == (B, 1)


def test_a_wide_content_interest_is_narrowed_before_it_is_concatenated(rows: Rows, content: Content):
    """Mutants: the matrix left out; the relevance taken between narrowed vectors; the fusion interest narrowed."""
    plain = ContentAwareInterest(id_width=3, dim=D, content_dim=C).eval()
    narrow = ContentAwareInterest(id_width=3, dim=D, content_dim=C, content_width=C - 1).eval()
    narrow.load_state_dict(plain.state_dict(), strict=False)
    inputs = Interest(torch.randn(B, 3), rows.mask), rows.behaviors, rows.mask, content
    whole, found = plain(*inputs).interest, narrow(*inputs).interest
    assert narrow.width == plain.width - 1 == found.shape[1]
    identity, of_content, fusion = whole.split([3, C, D], dim=1)
    matrix = narrow.narrow.weight
    by_hand = torch.stack([(row * matrix).sum(dim=1) for row in of_content])
    torch.testing.assert_close(found, torch.cat([identity, by_hand, fusion], dim=1))


@pytest.mark.parametrize(
    ("interests", "width"), [(("id", "fusion"), 2), (("content",), C), (("content",), C + 1)]
)
def test_nothing_is_narrowed_that_is_not_wider(interests: tuple[str, ...], width: int):
    sizes = {"id_width": 3, "dim": D, "content_dim": C, "interests": interests}
    plain, asked = ContentAwareInterest(**sizes), ContentAwareInterest(**sizes, content_width=width)
    assert asked.width == plain.width
    assert list(asked.state_dict()) == list(plain.state_dict())


def test_without_any_interest_there_is_no_model():
    with pytest.raises(ConfigError, match="interests: none is left"):
        ContentAwareInterest(id_width=3, dim=D, content_dim=C, interests=())


def test_scope_retrieved_counts_what_the_search_kept(rows: Rows, content: Content):
    # Mutant: the scope ignored.
    kept = MASK & (torch.arange(L) >= L - 2)
    module = ContentAwareInterest(
        id_width=1, dim=D, content_dim=C, interests=("content",), scope="retrieved", missing_target="zero"
    ).eval()
    aware = module(Interest(torch.zeros(B, 1), kept), rows.behaviors, rows.mask, content)
    expected = content_interest(
        target_content=content.target,
        behaviors_content=content.behaviors,
        behaviors=rows.behaviors,
        mask=kept & content.behaviors_known,
    )
    torch.testing.assert_close(aware.interest, expected.content)


def test_scopes_agree_where_the_search_keeps_everything(rows: Rows, content: Content):
    torch.manual_seed(0)
    models = [make_dense(SIM(D, search="soft", k=L), "mim") for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    models[1].content.scope = "retrieved"
    torch.testing.assert_close(models[0](rows, content).logit, models[1](rows, content).logit)


def test_cosines_that_are_known_already_count_where_the_mask_says(rows: Rows, content: Content):
    # Mutant: cosines outside the scope returned as relevance.
    everywhere = cosine(content.target, content.behaviors)
    vectors = {
        "target_content": content.target,
        "behaviors_content": content.behaviors,
        "behaviors": rows.behaviors,
    }
    newest = content.behaviors_known & (torch.arange(L) >= L - 2)
    assert (everywhere[~newest] != 0).any()
    found = content_interest(**vectors, mask=newest, relevance=everywhere)
    torch.testing.assert_close(found, content_interest(**vectors, mask=newest))


@pytest.mark.parametrize("scope", ["all", "retrieved"])
def test_cosines_that_are_known_already_change_nothing(scope: str, rows: Rows, content: Content):
    # Mutant: whether a target loses its vector drawn a second time.
    kept = MASK & (torch.arange(L) >= L - 2)
    module = ContentAwareInterest(id_width=1, dim=D, content_dim=C, scope=scope, drop_rate=0.5).train()
    inputs = (Interest(torch.zeros(B, 1), kept), rows.behaviors, rows.mask, content)
    torch.manual_seed(1)
    expected = module(*inputs)
    torch.manual_seed(1)
    compared = module.compare(rows.mask, content)
    found = module(*inputs, compared)
    torch.testing.assert_close(found, expected)
    assert not torch.equal(compared.has_content, content.target_known)  # one was dropped


class TestWhatAUserBehaviorModelSees:
    """Mutants: the vector in a missing target's place compared; a vector that is not known compared."""

    def seen(self, dense: DenseHalf, rows: Rows, content: Content) -> Relevance:
        histories = []
        dense.ubm.register_forward_pre_hook(lambda _, inputs: histories.append(inputs[1]))
        dense(rows, content)
        return histories[0].relevance

    def test_are_the_cosines_of_what_has_a_vector(self, rows: Rows, content: Content):
        missing = ~content.behaviors_known.unsqueeze(-1)
        garbage = replace(content, behaviors=content.behaviors.masked_fill(missing, float("nan")))
        found = self.seen(make_dense(SIM(D, search="content"), "mim"), rows, garbage)
        for b in range(B):
            for i in range(L):
                known = bool(MASK[b, i] & content.behaviors_known[b, i] & content.target_known[b])
                alike = torch.nn.functional.cosine_similarity
                expected = (
                    alike(content.target[b], content.behaviors[b, i], dim=0) if known else torch.zeros(())
                )
                assert bool(found.known[b, i]) == known
                torch.testing.assert_close(found.cosine[b, i], expected)

    def test_is_nothing_of_a_target_that_lost_its_vector_in_training(self, rows: Rows, content: Content):
        dense = make_dense(SIM(D, search="content", k=2), "mim").train()
        dense.content.drop_rate = 1.0
        found = self.seen(dense, rows, content)
        assert not found.known.any()
        assert torch.equal(found.cosine, torch.zeros(B, L))

    def test_nobody_else_is_shown_them(self, rows: Rows, content: Content):
        assert self.seen(make_dense(SIM(D, search="soft"), "mim"), rows, content) is None


class TestTargetWithoutAVector:
    """Mutants: the flag constant; the zero vector passed on; the drop also in evaluation."""

    def unknown(self, content: Content) -> Content:
        return replace(
            content, target_known=torch.zeros(B, dtype=torch.bool), target=torch.full((B, C), float("nan"))
        )

    def test_gets_the_learned_vector_and_a_flag(self, rows: Rows, content: Content):
        module = ContentAwareInterest(id_width=1, dim=D, content_dim=C, interests=("content",)).eval()
        aware = module(Interest(torch.zeros(B, 1), MASK), rows.behaviors, rows.mask, self.unknown(content))
        as_if = replace(
            content, target=module.unknown_target.expand(B, C), target_known=torch.ones(B, dtype=torch.bool)
        )
        expected = module(Interest(torch.zeros(B, 1), MASK), rows.behaviors, rows.mask, as_if)
        torch.testing.assert_close(aware.interest, expected.interest)
        assert torch.equal(aware.features[:, 0], torch.zeros(B))
        assert torch.equal(expected.features[:, 0], torch.ones(B))

    def test_has_no_content_interest_with_the_option_zero(self, rows: Rows, content: Content):
        module = ContentAwareInterest(
            id_width=1, dim=D, content_dim=C, interests=("content", "fusion"), missing_target="zero"
        ).eval()
        aware = module(Interest(torch.zeros(B, 1), MASK), rows.behaviors, rows.mask, self.unknown(content))
        assert torch.equal(aware.interest, torch.zeros(B, C + D))

    def test_some_targets_lose_their_vector_in_training_only(self, rows: Rows, content: Content):
        module = ContentAwareInterest(id_width=1, dim=D, content_dim=C, drop_rate=0.5)
        inputs = (Interest(torch.zeros(B, 1), MASK), rows.behaviors, rows.mask, content)
        flags = torch.stack([module.train()(*inputs).features[:, 0] for _ in range(200)])
        share = flags.mean(dim=0)
        assert torch.equal(share[~content.target_known], torch.zeros(1))
        assert ((share[content.target_known] - 0.5).abs() < 0.15).all()
        assert torch.equal(module.eval()(*inputs).features[:, 0], content.target_known.float())


def test_vectors_of_another_width_are_refused(rows: Rows, content: Content):
    module = ContentAwareInterest(id_width=1, dim=D, content_dim=C + 1)
    with pytest.raises(ConfigError, match=f"vectors are {C} wide, the model was made for {C + 1}"):
        module(Interest(torch.zeros(B, 1), MASK), rows.behaviors, rows.mask, content)


def test_a_content_model_without_content_says_so(dense: DenseHalf, variant: str, rows: Rows):
    if variant == "base":
        assert dense(rows).logit.isfinite().all()
    else:
        with pytest.raises(ConfigError, match="carries no content vectors, but this model reads them"):
            dense(rows)
