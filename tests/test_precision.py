"""bfloat16 is used where it was asked for and the processor has it; where it has none, a warning says so once."""

import logging
import platform
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mimctr import precision
from mimctr.evaluate.machine import describe_machine
from mimctr.precision import autocast, has_bfloat16

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
PROCESSORS = Path("/proc/cpuinfo")


@pytest.fixture(autouse=True)
def _nothing_known():
    for known in (precision._cpu_has_bfloat16, precision._warn):
        known.cache_clear()
    yield
    precision._cpu_has_bfloat16.cache_clear()


def pretend(monkeypatch, *, onednn: bool | None, capabilities: dict[str, bool] | None) -> None:
    there = {} if onednn is None else {"_is_mkldnn_bf16_supported": lambda: onednn}
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace(**there))
    if capabilities is None:
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    else:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)


@pytest.mark.parametrize(
    ("onednn", "capabilities", "expected"),
    [
        (True, {"avx512_bf16": True, "avx2": True}, True),
        (True, {"amx_bf16": True}, True),
        (True, {"bf16": True, "neon": True}, True),  # ARM
        (
            True,
            {"avx512_f": True, "avx512_bf16": False},
            False,
        ),  # computed there, without instructions for it
        (False, {"bf16": True}, False),  # instructions, and no kernels of PyTorch that use them
        (False, {}, False),
        (True, None, True),  # an older PyTorch, which knows no more than oneDNN
        (False, None, False),
        (None, {"bf16": True}, False),  # a PyTorch without oneDNN, as on macOS
    ],
)
def test_a_cpu_needs_both_instructions_and_kernels(monkeypatch, onednn, capabilities, expected):
    pretend(monkeypatch, onednn=onednn, capabilities=capabilities)
    assert has_bfloat16(CPU) == expected
    product = torch.ones(2, 2)
    with autocast(CPU, bf16=True):
        assert (product @ product).dtype == (torch.bfloat16 if expected else torch.float32)
    with autocast(CPU, bf16=False):
        assert (product @ product).dtype == torch.float32


@pytest.mark.skipif(
    not PROCESSORS.exists() or platform.machine() != "x86_64", reason="Linux on x86 lists instructions"
)
def test_it_is_what_the_kernel_says_of_this_cpu():
    flags = next(line for line in PROCESSORS.read_text().splitlines() if line.startswith("flags")).split()
    assert has_bfloat16(CPU) == bool({"avx512_bf16", "amx_bf16"} & set(flags))


@pytest.mark.parametrize("native", [True, False])
def test_a_gpu_counts_where_it_is_not_emulated(monkeypatch, native):
    emulated = {True: True, False: native}
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: emulated[including_emulation]
    )
    assert has_bfloat16(GPU) == native


def test_a_machine_is_its_gpu_where_it_has_one(monkeypatch):
    pretend(monkeypatch, onednn=True, capabilities={"avx512_bf16": True})
    assert describe_machine().has_bfloat16 is True
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: False)
    assert describe_machine().has_bfloat16 is False


def test_a_warning_says_once_that_it_is_float32(monkeypatch, caplog):
    pretend(monkeypatch, onednn=False, capabilities={})
    with caplog.at_level(logging.WARNING, logger="mimctr"):
        for _ in range(3):
            autocast(CPU, bf16=True)
    assert [record.getMessage() for record in caplog.records] == [
        "bf16: this CPU has no products in bfloat16; they are in float32."
    ]


@pytest.mark.parametrize(("has", "asked"), [(True, True), (True, False), (False, False)])
def test_nothing_is_said_where_it_is_as_asked(monkeypatch, caplog, has, asked):
    pretend(monkeypatch, onednn=has, capabilities={"avx512_bf16": has})
    with caplog.at_level(logging.WARNING, logger="mimctr"):
        autocast(CPU, bf16=asked)
    assert not caplog.records
