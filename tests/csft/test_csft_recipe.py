import functools
import json
import math
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from encoders.small import image_encoder, text_encoder

from csft.shop import open_shop
from csft.test_csft_examples import bought_keys
from csft.test_interest_loss import joined
from mimctr.center.snapshot import Snapshot
from mimctr.csft import objectives
from mimctr.csft.loss import Exclusions, Pool
from mimctr.csft.model import InterestModel
from mimctr.data.dataset import CtrDataset
from mimctr.encoders.item import ItemEncoder
from mimctr.encoders.tuning import checkpoint_activations
from mimctr.errors import ConfigError, DataError
from mimctr.recipes import csft, embed, plain
from mimctr.recipes.catalogue import KEPT, Catalogue
from mimctr.recipes.csft_examples import Examples
from mimctr.recipes.csft_towers import Towers
from mimctr.recipes.visual_search import pair_table, usable_pairs
from mimctr.train.run import Run
from mimctr.weights import load_tensors

SMALL = {
    "dim": 4,
    "hidden": 3,
    "batch_size": 8,
    "num_memory_batches": 2,
    "memory_warmup_steps": 2,
    "num_steps": 7,
}
SETTINGS = {
    **SMALL,
    "evaluate_every": 3,
    "head_learning_rate": 0.05,
    "tower_learning_rate": 0.01,
    "device": "cpu",
}


class Killed(Exception): ...


def kill_at(step, run):
    """Call ``run`` and kill it before the optimizer takes ``step``."""

    def kill(*args, **others):
        if others["step"] == step:
            raise Killed
        take_step(*args, **others)

    take_step = csft.take_step
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(csft, "take_step", kill)
        run()


def metrics_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("settings", "killed_at"),
    [
        ({}, 0),
        ({}, 5),
        ({"trainable": "heads"}, 3),
        ({"lora_rank": 2, "activation_checkpointing": True}, 5),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, dict) else str(value),
)
def test_a_killed_run_ends_bit_for_bit_like_an_undisturbed_one(
    shop, encoders, tmp_path, monkeypatch, settings, killed_at
):
    monkeypatch.setattr(csft, "Run", functools.partial(Run, checkpoint_seconds=0.0))
    config = csft.Config(**SETTINGS, **settings, bf16=False)
    csft.main(shop, encoders, tmp_path / "undisturbed", config)

    kill_at(killed_at, lambda: csft.main(shop, encoders, tmp_path / "killed", config))
    csft.main(shop, encoders, tmp_path / "killed", config)

    for name in ("metrics.jsonl", "search.json", "encoder.json"):  # the last holds the fingerprint
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes(), (
            name
        )
    mine, _ = load_tensors(tmp_path / "killed" / "checkpoint.safetensors")
    theirs, _ = load_tensors(tmp_path / "undisturbed" / "checkpoint.safetensors")
    assert {"module.memory.pointer", "module.memory.filled", "module.memory.fused"} <= set(mine)
    assert sorted(mine) == sorted(theirs)
    for name, tensor in mine.items():
        assert torch.equal(tensor, theirs[name]), name


def test_loss_is_written_out_with_the_memory_of_the_batches_before(shop, encoders, tmp_path, monkeypatch):
    """Equations (5) and (6) by hand, step by step: a batch enqueued before its loss would compete with itself."""
    monkeypatch.setattr(csft, "LOG_EVERY", 1)
    seen = []
    loss_of = objectives.multi_level_info_nce

    def record(query, pool, excluded, **weights):
        seen.append((query.detach(), joined(pool), excluded, weights["temperature"].item()))
        return loss_of(query, pool, excluded, **weights)

    monkeypatch.setattr(objectives, "multi_level_info_nce", record)
    config = csft.Config(**SETTINGS, bf16=False, drop_modality=0.0)
    csft.main(shop, encoders, tmp_path, config)
    logged = [line for line in metrics_of(tmp_path) if "loss" in line]
    assert len(logged) == len(seen) == 7

    data, _, catalogue, pairs = open_shop(shop, encoders, tmp_path / "opened")
    examples = Examples(data, pairs, catalogue.has_content, config)
    masked_by_another = 0

    sizes = [len(candidates.item_keys) for _, candidates, _, _ in seen]
    assert sizes == [16, 16, 48, 48, 48, 48, 48]  # 2N while warming up, then 2N (k + 1)
    for step, (query, candidates, excluded, temperature) in enumerate(seen):
        own = candidates.fused[:16]
        users = examples.batch(step).users.tolist()
        bought = {(n, key) for n, user in enumerate(users) for key in bought_keys(data, user)}
        masked_by_another += sum(
            (n, int(candidates.item_keys[c])) in bought and users[c] != users[n]
            for n in range(8)
            for c in range(8)
        )
        for age in range(1, min(step, 2) + 1):
            if step >= 2:
                earlier = seen[step - age][1]
                keys = candidates.item_keys[16:].view(2, 16).tolist()
                assert earlier.item_keys[:16].tolist() in keys
                row = keys.index(earlier.item_keys[:16].tolist())
                assert torch.equal(candidates.fused[16:].view(2, 16, 4)[row], earlier.fused[:16])
        assert own.shape == (16, 4)
        total = 0.0
        views = ((1.0, candidates.fused, None), (0.5, candidates.text, candidates.has_text))
        for weight, view, has in (*views, (0.5, candidates.image, candidates.has_image)):
            losses = []
            for n in range(8):
                if has is not None and not has[n]:
                    continue
                cosines = F.cosine_similarity(query[n : n + 1], view.detach()) / temperature
                allowed = torch.tensor(
                    [
                        c == n
                        or (
                            candidates.item_keys[c] != candidates.item_keys[n]
                            and (n, int(candidates.item_keys[c])) not in bought
                            and (has is None or bool(has[c]))
                        )
                        for c in range(len(view))
                    ]
                )
                losses.append(torch.logsumexp(cosines[allowed], 0) - cosines[n])
            total += weight * float(torch.stack(losses).mean())
        assert logged[step]["loss"] == pytest.approx(total, rel=1e-4), step
        assert logged[step]["negatives"] == pytest.approx(
            float((~excluded.whole()).sum(1).float().mean()) - 1
        )
    assert masked_by_another > 0


def test_it_starts_at_the_plain_geometry_and_never_ends_below_it(shop, encoders, tmp_path):
    found = csft.main(shop, encoders, tmp_path / "csft", csft.Config(**SETTINGS, bf16=False))
    plainly = plain.main(
        shop, encoders, tmp_path / "plain", plain.Config(dim=4, hidden=3, device="cpu", bf16=False)
    )
    for part in ("validation", "test"):
        assert list(found[f"{part}_before"]) == list(plainly[part])
        for name, metrics in plainly[part].items():
            assert found[f"{part}_before"][name] == pytest.approx(metrics)
    first = metrics_of(tmp_path / "csft")[0]
    assert first["step"] == 0
    assert first["recall@10"] == plainly["validation"]["all"]["recall@10"]
    assert found["validation"]["all"]["recall@10"] >= plainly["validation"]["all"]["recall@10"]


def test_the_best_weights_are_kept_and_training_stops_early(shop, encoders, tmp_path, monkeypatch):
    values = iter([0.3, 0.5, 0.4, 0.2, 0.9, 0.9, 0.9])
    states = []

    def judge(model, run, step, config, _):
        states.append({name: tensor.clone() for name, tensor in model.encoder.state_dict().items()})
        return original(model, run, step, config, lambda: {"recall@10": next(values)})

    original = csft._judge
    monkeypatch.setattr(csft, "_judge", judge)
    csft.main(shop, encoders, tmp_path, csft.Config(**{**SETTINGS, "evaluate_every": 1, "patience": 2}))
    assert [line["recall@10"] for line in metrics_of(tmp_path) if "recall@10" in line] == [0.3, 0.5, 0.4, 0.2]
    kept = ItemEncoder.load(tmp_path).state_dict()
    assert all(torch.equal(kept[name], tensor) for name, tensor in states[1].items())


def test_cached_towers_are_not_trained(shop, encoders, tmp_path):
    csft.main(shop, encoders, tmp_path / "csft", csft.Config(**SETTINGS, trainable="heads", bf16=False))
    plain.main(shop, encoders, tmp_path / "plain", plain.Config(dim=4, hidden=3, device="cpu", bf16=False))
    tuned, start = ItemEncoder.load(tmp_path / "csft"), ItemEncoder.load(tmp_path / "plain")
    assert tuned.image_encoder.fingerprint == start.image_encoder.fingerprint
    assert tuned.text_encoder.fingerprint == start.text_encoder.fingerprint


def changed_tensors(start, tuned):
    """Return the names of the towers' weights that differ between two item encoders."""
    pairs = [(start.image_encoder, tuned.image_encoder), (start.text_encoder, tuned.text_encoder)]
    found = set()
    for one, other in pairs:
        theirs = other.network.state_dict()
        assert list(theirs) == list(one.network.state_dict())
        found |= {
            name for name, value in one.network.state_dict().items() if not torch.equal(value, theirs[name])
        }
    return found


def test_adapters_end_as_weights_of_an_ordinary_encoder(shop, encoders, tmp_path):
    """What is reported after training was measured on the encoder that was saved."""
    settings = {**SETTINGS, "num_steps": 12, "tower_learning_rate": 0.1, "tower_batch_size": 5}
    config = csft.Config(**settings, metric="mrr", lora_rank=2, bf16=False)
    found = csft.main(shop, encoders, tmp_path / "csft", config)
    plain.main(shop, encoders, tmp_path / "plain", plain.Config(dim=4, hidden=3, device="cpu", bf16=False))
    tuned = ItemEncoder.load(tmp_path / "csft")
    changed = changed_tensors(ItemEncoder.load(tmp_path / "plain"), tuned)
    assert changed
    assert all(name.endswith(".weight") and "norm" not in name.lower() for name in changed)
    assert not any("embeddings" in name for name in changed)

    data = CtrDataset.open(shop)
    table = pair_table(data, "validation", ["purchase"])
    catalogue = Catalogue(data, tuned, table["query"].unique().to_numpy(), tmp_path / "pixels.npy")
    pairs = usable_pairs(table, catalogue.pictures, catalogue.titles, catalogue.has_content)
    towers = catalogue.run_towers(tuned, device=torch.device("cpu"))
    searched = catalogue.search(tuned, pairs, towers)
    assert searched["all"] == pytest.approx(found["validation"]["all"])


def test_frozen_layers_stay_as_they_were(shop, encoders, tmp_path):
    settings = {**SETTINGS, "frozen_image_layers": 1, "frozen_text_layers": 1}
    csft.main(shop, encoders, tmp_path / "csft", csft.Config(**settings, bf16=False))
    plain.main(shop, encoders, tmp_path / "plain", plain.Config(dim=4, hidden=3, device="cpu", bf16=False))
    tuned, start = ItemEncoder.load(tmp_path / "csft"), ItemEncoder.load(tmp_path / "plain")
    assert changed_tensors(start, tuned) == {
        "layernorm.weight",
        "layernorm.bias",
    }  # the one behind ViT's only layer


@pytest.mark.parametrize(
    "setting", [{"lora_rank": 2}, {"frozen_text_layers": 1}, {"activation_checkpointing": True}]
)
def test_towers_that_are_not_trained_are_not_tuned(setting):
    (name,) = setting
    with pytest.raises(ValueError, match=f"{name}: trainable = 'heads' trains no towers"):
        csft.Config(trainable="heads", **setting)


@pytest.mark.parametrize("objective", ["pair_cross_entropy", "category_cross_entropy"])
def test_the_cross_entropies_of_table_4_lower_their_loss(shop, encoders, tmp_path, monkeypatch, objective):
    monkeypatch.setattr(csft, "LOG_EVERY", 1)
    settings = {
        **SETTINGS,
        "num_memory_batches": 0,
        "num_steps": 40,
        "evaluate_every": 40,
        "objective": objective,
    }
    csft.main(shop, encoders, tmp_path, csft.Config(**settings, bf16=False))
    losses = [line["loss"] for line in metrics_of(tmp_path) if "loss" in line]
    assert np.mean(losses[-8:]) < 0.9 * np.mean(losses[:8])
    assert ItemEncoder.load(tmp_path).dim == 4


def test_cross_entropy_reads_no_memory():
    with pytest.raises(
        ValueError, match="num_memory_batches: the objective pair_cross_entropy reads no memory"
    ):
        csft.Config(objective="pair_cross_entropy", num_memory_batches=2)


def step_gradients(
    shop, encoders, tmp_path, *, pieces: int, again: bool = False
) -> tuple[float, dict[str, torch.Tensor], int]:
    """Return loss, gradients and bytes held for the backward pass of one step, without dropout."""
    config = csft.Config(batch_size=20, tower_batch_size=pieces, augment=0.5, drop_modality=0.0)
    torch.manual_seed(0)
    data, encoder, catalogue, pairs = open_shop(shop, encoders, tmp_path)
    examples = Examples(data, pairs, catalogue.has_content, config)
    towers = Towers(catalogue, encoder, torch.device("cpu"), config)
    model = InterestModel(encoder, objectives.MultiLevelInfoNCE(), drop_modality=0.0).train()
    for tower in (encoder.image_encoder, encoder.text_encoder):
        tower.eval()  # no dropout; gradients flow all the same
        if again:
            checkpoint_activations(tower.network)
    batch, held = examples.batch(0), 0

    def count(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal held
        held += tensor.numel() * tensor.element_size()
        return tensor

    torch.manual_seed(1)
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        query, own = model(*towers.vectors(batch), batch.item_keys)
        others = Exclusions(Pool(own), len(query))
        loss = model.objective(query, own, Pool(own), others, batch.category)
    loss.backward()
    named = model.named_parameters()
    return loss.item(), {name: p.grad for name, p in named if p.grad is not None}, held


@pytest.mark.parametrize(("pieces", "again"), [(3, False), (7, False), (100, False), (7, True), (0, True)])
def test_towers_run_in_pieces_give_loss_and_gradient_of_the_whole_batch(
    shop, encoders, tmp_path, pieces, again
):
    loss, gradients, held = step_gradients(shop, encoders, tmp_path, pieces=0)
    in_pieces, found, less = step_gradients(shop, encoders, tmp_path, pieces=pieces, again=again)
    assert in_pieces == pytest.approx(loss, rel=1e-5)
    assert found.keys() == gradients.keys()
    assert any(name.startswith("encoder.image_encoder") for name in found)
    for name, gradient in gradients.items():
        rounding = 1e-4 * gradient.abs().max().item() + 1e-7
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=rounding)
    assert less < held / 2


def test_pieces_and_batch_norm_that_adapts_exclude_each_other(shop, tmp_path):
    image_encoder("resnet").save(tmp_path / "encoders" / "image")
    text_encoder().save(tmp_path / "encoders" / "text")
    with pytest.raises(ConfigError, match="tower_batch_size: batch norm would see pieces"):
        csft.main(shop, tmp_path / "encoders", tmp_path, csft.Config(**SETTINGS, tower_batch_size=4))


def test_items_ask_where_pairs_come_from_behaviors(shop_of_behaviors, encoders, tmp_path):
    settings = {**SETTINGS, "bf16": False, "query": "item", "user_balance": 0.5}
    found = csft.main(shop_of_behaviors, encoders, tmp_path / "all", csft.Config(**settings))
    cached = csft.main(
        shop_of_behaviors, encoders, tmp_path / "heads", csft.Config(**settings, trainable="heads")
    )
    assert found["validation_before"]["all"] == pytest.approx(cached["validation_before"]["all"])
    assert found["validation"]["all"]["recall@10"] >= found["validation_before"]["all"]["recall@10"]
    pictures = csft.main(
        shop_of_behaviors, encoders, tmp_path / "image", csft.Config(**{**settings, "query": "image"})
    )
    assert pictures["validation_before"]["all"]["mrr"] != found["validation_before"]["all"]["mrr"]


def test_items_cannot_ask_where_a_picture_did(shop, encoders, tmp_path):
    with pytest.raises(ConfigError, match="query: 'item' needs pairs from behaviors"):
        csft.main(shop, encoders, tmp_path, csft.Config(**SETTINGS, query="item"))


@pytest.mark.parametrize("made_by", ["csft", "plain"])
def test_kept_vectors_spare_the_towers_and_give_the_same_embeddings(
    shop, shop_of_behaviors, encoders, tmp_path, monkeypatch, caplog, made_by
):
    if made_by == "csft":
        config = csft.Config(**SETTINGS, trainable="heads", bf16=False, keep_vectors=True)
        csft.main(shop, encoders, tmp_path / "encoder", config)
    else:
        config = plain.Config(dim=4, hidden=3, device="cpu", bf16=False, keep_vectors=True)
        plain.main(shop, encoders, tmp_path / "encoder", config)
    shutil.copytree(tmp_path / "encoder", tmp_path / "bare")
    (tmp_path / "bare" / KEPT).unlink()
    embed.main(shop, tmp_path / "bare", tmp_path / "from_raw", embed.Config(device="cpu"))

    ran = []
    image_vectors = ItemEncoder.image_vectors
    monkeypatch.setattr(
        ItemEncoder, "image_vectors", lambda self, pixels: ran.append(1) or image_vectors(self, pixels)
    )
    monkeypatch.setattr(
        ItemEncoder, "text_vectors", None
    )  # the shop's queries are pictures: no title is encoded
    embed.main(shop, tmp_path / "encoder", tmp_path / "kept", embed.Config(device="cpu"))
    assert len(ran) == 1  # for the queries
    fingerprint = ItemEncoder.load(tmp_path / "encoder").fingerprint
    ours, theirs = (
        Snapshot.open(tmp_path / name / "items", encoder=fingerprint) for name in ("kept", "from_raw")
    )
    assert np.array_equal(ours.keys, theirs.keys)
    np.testing.assert_allclose(ours.vectors, theirs.vectors, rtol=1e-4, atol=1e-5)

    monkeypatch.undo()
    caplog.set_level("INFO")
    embed.main(shop_of_behaviors, tmp_path / "encoder", tmp_path / "other", embed.Config(device="cpu"))
    assert "of another dataset or other towers; the towers are run" in caplog.text


def test_trained_towers_keep_no_vectors():
    with pytest.raises(ValueError, match="keep_vectors needs trainable = 'heads'"):
        csft.Config(keep_vectors=True)


def test_no_pair_of_the_wanted_kind_is_an_error(shop, encoders, tmp_path):
    with pytest.raises(
        DataError, match=r"0 interest pairs of kind return to train on.* Look at \[csft\] pair_kinds"
    ):
        csft.main(shop, encoders, tmp_path, csft.Config(**SETTINGS, pair_kinds=["return"]))
    with pytest.raises(
        DataError, match=r"1 interest pairs of kind purchase .* \d\d more are there: \[csft\] pair_share"
    ):
        csft.main(shop, encoders, tmp_path, csft.Config(**SETTINGS, pair_share=0.001))


def test_bfloat16_towers_stay_close(shop, encoders, tmp_path, bfloat16):
    exact = csft.main(
        shop, encoders, tmp_path / "exact", csft.Config(**{**SETTINGS, "num_steps": 1}, bf16=False)
    )
    rough = csft.main(
        shop, encoders, tmp_path / "rough", csft.Config(**{**SETTINGS, "num_steps": 1}, bf16=True)
    )
    losses = [metrics_of(tmp_path / name)[1]["loss"] for name in ("exact", "rough")]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert losses[1] != losses[0]
    assert exact.keys() == rough.keys()


def test_a_share_of_the_pairs_is_drawn_once_and_of_the_training_part_alone(
    shop, encoders, tmp_path, monkeypatch
):
    """Mutant: the first pairs are taken, which are the oldest; or held-out pairs are fewer too."""
    seen = []

    def watched(data, pairs, has_content, config):
        seen.append(pairs)
        return Examples(data, pairs, has_content, config)

    monkeypatch.setattr(csft, "Examples", watched)
    for share in (1.0, 0.4, 0.4):
        csft.main(shop, encoders, tmp_path / str(len(seen)), csft.Config(**SETTINGS | {"pair_share": share}))
    whole, some, again = (list(zip(*pairs, strict=True)) for pairs in seen)
    assert len(some) == math.ceil(0.4 * len(whole))
    assert some == again
    assert set(some) < set(whole)
    assert some != whole[: len(some)]
