"""Errors after which a process cannot compute on its device any more, whatever it is given."""

from __future__ import annotations

import re

import torch

# CUDA and its libraries raise RuntimeErrors, of which torch's own AcceleratorError is one.
_OF_A_DEVICE = re.compile(
    r"\b(CUDA|HIP|cuDNN|cuBLAS|cuFFT|cuSOLVER|cuSPARSE|NCCL|MIOpen)( driver| runtime| kernel)? error"
    r"|\b(CUBLAS|CUDNN|CUSOLVER|CUSPARSE)_STATUS_|device-side assert|uncorrectable ECC",
    re.IGNORECASE,
)
# Of one input, which is too large or of a shape that a kernel does not have. The device still works.
_OF_AN_INPUT = re.compile(
    r"out of memory|ALLOC_FAILED|NOT_SUPPORTED|BAD_PARAM|INVALID_VALUE|invalid argument|invalid configuration argument",
    re.IGNORECASE,
)


class DeviceFailure(RuntimeError):
    """The device of this process does not compute any more; the image that it was at is not to blame."""


def device_error(error: BaseException | None) -> BaseException | None:
    """The error, or the one that caused it, that is of the device and not of the input; None if there is none.

    After such an error everything that the process gives to its device fails: CUDA calls it sticky. Too little memory is of the
    input, and so is what a kernel refuses to compute.
    """
    while error is not None:
        if isinstance(error, DeviceFailure) or _is_of_device(error):
            return error
        error = error.__cause__
    return None


def _is_of_device(error: BaseException) -> bool:
    if not isinstance(error, RuntimeError) or isinstance(error, torch.OutOfMemoryError):
        return False
    said = str(error)
    is_named = isinstance(error, torch.AcceleratorError) or _OF_A_DEVICE.search(said) is not None
    return is_named and _OF_AN_INPUT.search(said) is None
