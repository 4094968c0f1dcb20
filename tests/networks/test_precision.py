"""Where bfloat16 is used on a CPU: where it has units for it, and a measurement does not speak against them."""

import itertools
from pathlib import Path

import pytest
import torch

from shared.networks import precision

CPU = torch.device("cpu")
FAST, SLOW = 0.5, 3.0
CPU_INFO = Path("/proc/cpuinfo")


@pytest.fixture
def asked_anew():
    precision.cpu_computes_bfloat16.cache_clear()
    yield
    precision.cpu_computes_bfloat16.cache_clear()


@pytest.mark.parametrize(
    ("amx", "avx512", "bfloat16_seconds", "expected", "is_measured"),
    [
        (True, True, SLOW, True, False),
        (False, True, FAST, True, True),
        (False, True, SLOW, False, True),
        (False, False, FAST, False, False),
        (None, None, FAST, False, False),
    ],
)
def test_units_count_unless_measured_slower(amx, avx512, bfloat16_seconds, expected, is_measured, monkeypatch, asked_anew):
    measured = []
    for feature, is_there in (("amx_tile", amx), ("avx512_bf16", avx512)):
        name = f"_is_{feature}_supported"
        if is_there is None:  # an older torch
            monkeypatch.delattr(torch.cpu, name, raising=False)
        else:
            monkeypatch.setattr(torch.cpu, name, lambda answer=is_there: answer, raising=False)
    monkeypatch.setattr(
        precision, "step_seconds", lambda is_bfloat16: measured.append(1) or (bfloat16_seconds if is_bfloat16 else 1.0)
    )
    assert precision.computes_bfloat16(CPU) == expected
    assert bool(measured) == is_measured
    measured.clear()
    assert precision.computes_bfloat16(CPU) == expected
    assert not measured, "measured once a process"


@pytest.mark.parametrize(("bfloat16", "float32", "expected"), [(0.6, 1.0, False), (1.5, 1.0, True)])
def test_a_busy_machine_does_not_decide(bfloat16, float32, expected):
    """Five turns in seven take up to ten times as long, and the first call of each kind thirty times."""
    delays = itertools.chain([30, 30], itertools.cycle([10, 3, 1, 7, 9, 8, 1]))

    def seconds_of(is_bfloat16):
        return next(delays) * (bfloat16 if is_bfloat16 else float32)

    assert precision.is_slower_in_bfloat16(seconds_of) == expected


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_measuring_leaves_no_trace(mode):
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    with mode():
        assert all(precision.step_seconds(is_bfloat16) > 0 for is_bfloat16 in (True, False))
        assert torch.is_grad_enabled() == (mode is torch.enable_grad)
        assert not torch.is_autocast_enabled("cpu")
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


@pytest.mark.skipif(not CPU_INFO.exists(), reason="says what the CPU has on Linux")
def test_torch_says_what_the_system_says():
    flags = set(CPU_INFO.read_text().split())
    if precision.computes_bfloat16(CPU):
        assert flags & {"avx512_bf16", "amx_tile"}
    if "amx_tile" in flags and hasattr(torch.cpu, "_is_amx_tile_supported"):
        assert precision.computes_bfloat16(CPU)
