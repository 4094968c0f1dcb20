"""Errors after which a process cannot compute on its device any more, whatever it is given."""

from __future__ import annotations

import re

import torch

# CUDA, cuBLAS, cuDNN and NCCL raise RuntimeErrors, which torch's own AcceleratorError is one of.
_OF_A_DEVICE = re.compile(
    r"\b(CUDA|HIP|cuDNN|cuBLAS|cuFFT|cuSOLVER|cuSPARSE|NCCL|MIOpen)( driver| runtime| kernel)? (error|failure)|"
    r"CUBLAS_STATUS_|CUDNN_STATUS_|CUSOLVER_STATUS_|device-side assert|uncorrectable ECC",
    re.IGNORECASE,
)
# Of one input: too large, or of a shape that a kernel does not have. The device goes on.
_OF_AN_INPUT = re.compile(
    r"out of memory|ALLOC_FAILED|NOT_SUPPORTED|BAD_PARAM|INVALID_VALUE|invalid argument|invalid configuration argument",
    re.IGNORECASE,
)


class DeviceFailure(RuntimeError):
    """The device of this process does not compute any more; what it was at is not to blame."""


def is_device_error(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is of the device and not of the input: all that comes after it would fail as well.

    Memory that does not suffice is of the input, and so is what a kernel refuses to compute.
    """
    while error is not None:
        if isinstance(error, DeviceFailure):
            return True
        if isinstance(error, RuntimeError) and not isinstance(error, torch.OutOfMemoryError):
            said = str(error)
            is_of_device = isinstance(error, torch.AcceleratorError) or _OF_A_DEVICE.search(said) is not None
            if is_of_device and _OF_AN_INPUT.search(said) is None:
                return True
        error = error.__cause__
    return False
