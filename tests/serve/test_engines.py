"""Engines: ONNX Runtime says what PyTorch says, or it is not used; what is used is said, and why."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from mimctr.center.center import Center
from mimctr.cli import app
from mimctr.errors import RunError
from mimctr.files import hash_path, read_json, write_json
from mimctr.recipes.bundle import main as export
from mimctr.recipes.ctr_model import UBMS, load_model
from mimctr.serve.bundle import MANIFEST, ONNX, Bundle
from mimctr.serve.bundle_writer import write_bundle
from mimctr.serve.dense_inputs import draw_inputs
from mimctr.serve.engines import OnnxEngine, TorchEngine, choose_engine, compare
from mimctr.serve.onnx_export import LONGEST_UNROLLED, why_not_onnx
from mimctr.serve.scorer import NO_BEHAVIORS, Request, Scorer
from mimctr.serve.service import Service
from serve.shops import RawLog, offline, open_scorer

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'mimctr[onnx]'")
pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install 'mimctr[onnx]'")


@pytest.fixture(autouse=True)
def unchecked_shapes() -> Iterator[None]:
    """Shape checks compare sizes with numbers, which an exporter takes for a promise."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def trained(shop, tmp_path_factory) -> Path:
    """A folder with a trained SIM: its model, and a bundle without ONNX."""
    folder = tmp_path_factory.mktemp("trained")
    open_scorer(shop, folder, ubm="sim", variant="mim")
    return folder


@pytest.fixture(scope="module")
def bundle(shop, trained) -> Path:
    """Its bundle with ONNX."""
    jaxtyping.config.update("jaxtyping_disable", True)
    export(trained / "model", shop / "dataset", trained / "whole")
    return trained / "whole"


def bind(shop: Path, bundle: Path, scorer: Scorer) -> Scorer:
    """Return a scorer of ``bundle`` with ONNX Runtime, on the vectors of another one's store."""
    opened, model = Bundle(bundle), load_model(bundle)
    chosen = choose_engine(opened, model, "onnx")
    assert chosen.name == "onnx"
    assert chosen.largest_difference < 1e-5
    return Scorer(opened, model, space=scorer.space, store=scorer.store, engine=chosen.engine)


CASES = [
    pytest.param(
        ubm,
        variant,
        marks=[]
        if (ubm, variant) in (("sim", "mim"), ("din", "base"), ("mean", "mim_plus"))
        else pytest.mark.slow,
    )
    for ubm in UBMS
    for variant in ("base", "mim", "mim_plus")
]


@pytest.mark.parametrize(("ubm", "variant"), CASES)
@pytest.mark.parametrize("shop", ["integers"], indirect=True)
def test_onnx_scores_are_the_offline_ones(shop, tmp_path, ubm, variant):
    """Short histories, a whole one, and many candidates. Mutant: padding that stands behind the newest."""
    plain, log = open_scorer(shop, tmp_path, ubm=ubm, variant=variant), RawLog(shop)
    export(tmp_path / "model", shop / "dataset", tmp_path / "whole")
    scorer = bind(shop, tmp_path / "whole", plain)
    wanted, lengths = offline(shop, tmp_path / "model"), set()
    for row, probability in list(wanted.items())[:40]:
        scores = scorer.score(log.request(row))
        assert scores.probabilities[0] == pytest.approx(probability, abs=1e-5)
    names = np.arange(60)
    for behaviors in range(0, 12, 3):
        request = log.request(850, names.tolist())
        items, times, kinds = request.behaviors
        request = request._replace(
            behaviors=request.behaviors._make((items[:behaviors], times[:behaviors], kinds[:behaviors]))
        )
        scores = scorer.score(request)
        lengths.add(scores.num_behaviors)
        np.testing.assert_allclose(scores.probabilities, plain.score(request).probabilities, atol=1e-5)
    assert len(lengths) > 2


def test_the_graph_of_another_model_is_refused(shop, trained, bundle, tmp_path):
    """One weight is enough. Mutant: the graph is not compared."""
    another = load_model(trained / "model")
    with torch.no_grad():
        another.dense.mlp.layers[0].weight[0, 0] += 0.5
    write_bundle(trained / "model", another, shop / "dataset", tmp_path / "another")
    shutil.copytree(bundle, tmp_path / "bundle")
    shutil.copyfile(tmp_path / "another" / ONNX, tmp_path / "bundle" / ONNX)
    manifest = read_json(tmp_path / "bundle" / MANIFEST)
    manifest["files"][ONNX] = hash_path(tmp_path / "bundle" / ONNX)
    write_json(tmp_path / "bundle" / MANIFEST, manifest)
    opened, model = Bundle(tmp_path / "bundle"), load_model(tmp_path / "bundle")
    with pytest.raises(
        RunError, match=r"dense.onnx: [\d,]+ of [\d,]+ logits differ from PyTorch's, by up to .*: it is"
    ):
        choose_engine(opened, model, "onnx")
    chosen = choose_engine(opened, model)
    assert chosen.name == "torch"
    assert "is not this model's graph. Run 'mimctr export' again." in chosen.why
    assert "\n" not in chosen.why


def test_a_graph_that_gives_nan_is_refused(bundle):
    """Mutant: a difference of NaN is not above the tolerance."""

    class Nothing:
        def logits(self, rows, content):
            return torch.full((len(rows.target),), torch.nan)

    model = load_model(bundle)
    parity = compare(TorchEngine(model.dense), Nothing(), model, 8)
    assert parity.wrong == parity.compared


def test_the_faster_one_is_taken_and_said(bundle, caplog):
    opened, model = Bundle(bundle), load_model(bundle)
    caplog.set_level("INFO", logger="mimctr.serve.engines")
    chosen = choose_engine(opened, model)
    assert chosen.name == min(chosen.milliseconds, key=chosen.milliseconds.get)
    assert set(chosen.said()) == {"engine", "why", "milliseconds", "largest_difference"}
    assert f"engine {chosen.name}: {chosen.why}" in caplog.text
    assert choose_engine(opened, model, "torch").why == "it is set"


def test_without_the_runtime_pytorch_serves(shop, bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    opened, model = Bundle(bundle), load_model(bundle)
    chosen = choose_engine(opened, model)
    assert (chosen.name, "onnxruntime is not installed (pip install 'mimctr[serve]')" in chosen.why) == (
        "torch",
        True,
    )
    assert choose_engine(opened, model, "torch").name == "torch"
    with pytest.raises(RunError, match="onnxruntime is not installed"):
        choose_engine(opened, model, "onnx")
    center = Center(shop / "center")
    if center.log.generations.active() is None:
        center.seal(1, {}, min_coverage=0.0)
        center.log.generations.activate(1)
    service = Service(load_model, center=shop / "center")
    service.load(bundle)
    service.close()
    assert service.serving.engine.name == "torch"
    assert service.serving.scorer.score(Request(None, np.array([1]), NO_BEHAVIORS, 1)).probabilities[0] > 0


def test_the_graph_is_hashed(bundle, tmp_path):
    """Mutant: it is written after the files were hashed."""
    assert ONNX in Bundle(bundle).manifest.files
    assert Bundle(bundle).manifest.without_onnx is None
    whole = (bundle / ONNX).read_bytes()
    (bundle / ONNX).write_bytes(whole[:-1] + b"x")
    with pytest.raises(RunError, match=r"dense.onnx: missing or damaged"):
        Bundle(bundle)
    (bundle / ONNX).write_bytes(whole)


def test_a_bundle_says_why_it_has_no_graph(shop, trained, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    ran = CliRunner().invoke(
        app,
        [
            "export",
            str(trained / "model"),
            "--dataset",
            str(shop / "dataset"),
            "--out",
            str(tmp_path / "out"),
        ],
    )
    why = "onnxscript is not installed (pip install 'mimctr[onnx]')"
    assert ran.exit_code == 0
    assert f"without ONNX, served with PyTorch: {why}." in ran.output
    opened = Bundle(tmp_path / "out")
    assert opened.manifest.without_onnx == why
    assert why in choose_engine(opened, load_model(tmp_path / "out")).why
    with pytest.raises(RunError, match=r"the bundle has no dense\.onnx: onnxscript is not installed"):
        choose_engine(opened, load_model(tmp_path / "out"), "onnx")


def test_a_long_unrolled_graph_is_not_written(trained):
    model = load_model(trained / "model")
    model.dense.ubm.unrolls = True
    assert why_not_onnx(model, LONGEST_UNROLLED) is None
    assert "more than 32 are not exported" in why_not_onnx(model, LONGEST_UNROLLED + 1)


def test_a_damaged_graph_is_one_line(tmp_path):
    (tmp_path / ONNX).write_bytes(b"nothing")
    with pytest.raises(
        RunError, match=r"dense.onnx: ONNX Runtime cannot read it \(.*\). Run 'mimctr export' again."
    ):
        OnnxEngine(tmp_path / ONNX)


def test_drawn_inputs_are_what_a_request_brings(trained):
    """Padding on the left, its gaps at 0; the newest behavior last."""
    model = load_model(trained / "model")
    rows, content = draw_inputs(model, candidates=3, behaviors=2, length=5)
    assert rows.mask.tolist() == [[False] * 3 + [True] * 2]
    assert (rows.time_gaps > 0).tolist() == rows.mask.tolist()
    assert not (content.behaviors_known & ~rows.mask).any()
    assert not content.target[~content.target_known].any()
