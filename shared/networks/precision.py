"""In which precision a device computes fastest."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import torch
from torch.nn import functional

_NUM_TURNS = 8


def computes_bfloat16(device: torch.device) -> bool:
    """True on GPUs with units for bfloat16 (NVIDIA's since Ampere) and on CPUs that compute faster so, see
    `cpu_computes_bfloat16`; elsewhere bfloat16 is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and cpu_computes_bfloat16()


@functools.cache
def cpu_computes_bfloat16() -> bool:
    """Whether this machine's CPU is faster in bfloat16.

    It is with matrix units for it (Intel AMX), and with its vector instructions (AVX512-BF16: AMD Zen 4 and 5, Intel Cooper
    Lake) unless a measurement of a fifth of a second, once a process, speaks against it: torch may have been built without
    them.
    """
    return _is_supported("amx_tile") or (_is_supported("avx512_bf16") and not is_slower_in_bfloat16(step_seconds))


def _is_supported(feature: str) -> bool:
    """Whether torch reports support on this CPU; False in versions that do not report it."""
    is_supported = getattr(torch.cpu, f"_is_{feature}_supported", None)
    return is_supported is not None and bool(is_supported())


def is_slower_in_bfloat16(seconds_of: Callable[[bool], float]) -> bool:
    """Whether a step takes longer in bfloat16, even the fastest of some, measured turn by turn: a busy machine slows a few.

    Args:
        seconds_of: a step in bfloat16 (True) or float32 (False).
    """
    for is_bfloat16 in (True, False):  # what is made at the first call counts for nothing
        seconds_of(is_bfloat16)
    turns = [(seconds_of(True), seconds_of(False)) for _ in range(_NUM_TURNS)]
    return min(turn[0] for turn in turns) > min(turn[1] for turn in turns)


def step_seconds(is_bfloat16: bool) -> float:
    """CPU seconds of a convolution in the middle of a ResNet or VGG at 56 px, forward and backward, on one core.

    On several, which wait for each other, what else runs on the machine would decide. No random numbers are drawn.
    """
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _step_seconds(is_bfloat16)
    finally:
        torch.set_num_threads(num_threads)


def _step_seconds(is_bfloat16: bool) -> float:
    with torch.inference_mode(False), torch.enable_grad():
        images = torch.linspace(-1, 1, 64 * 56 * 56).reshape(1, 64, 56, 56).contiguous(memory_format=torch.channels_last)
        weight = torch.linspace(-1, 1, 64 * 64 * 9).reshape(64, 64, 3, 3).contiguous(memory_format=torch.channels_last)
        images.requires_grad_()
        weight.requires_grad_()
        started = time.thread_time()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_bfloat16):
            answer = functional.conv2d(images, weight, padding=1)
        torch.autograd.grad(answer.float().sum(), (images, weight))
        return time.thread_time() - started
