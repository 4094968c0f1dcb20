"""MONAI's exports of a network: what they need beyond requirements.txt is checked before they begin."""

from __future__ import annotations

import importlib.util
import sys

from .explained import explain_errors, is_command_line

# Command of MONAI -> module that it imports -> package that has it.
_NEEDS = {"onnx_export": {"onnxscript": "onnxscript"}, "trt_export": {"torch_tensorrt": "torch-tensorrt"}}


def check_export() -> None:
    """Check what the export needs that this process has been started for, if it is one; errors are then reported in one line.

    Raises:
        ValueError: naming the package that is not installed, or the GPU that TensorRT needs.
    """
    if not is_command_line() or len(sys.argv) < 2 or sys.argv[1] not in _NEEDS:
        return
    explain_errors()
    command = sys.argv[1]
    for module, package in _NEEDS[command].items():
        if importlib.util.find_spec(module) is None:
            raise ValueError(f"{command} needs the package {package}, which requirements.txt leaves out: pip install {package}")
    if command == "trt_export":
        _require_gpu()


def _require_gpu() -> None:
    import torch

    if not torch.cuda.is_available():
        raise ValueError(
            "trt_export needs an NVIDIA GPU, because TensorRT compiles for the GPU that it runs on. Use ckpt_export here"
        )
