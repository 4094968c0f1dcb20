"""In which precision a device computes fastest."""

from __future__ import annotations

import torch


def computes_bfloat16(device: torch.device) -> bool:
    """True on GPUs with units for bfloat16 (NVIDIA's since Ampere) and on CPUs with matrix units for it (Intel AMX); elsewhere
    bfloat16 is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    is_supported = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return device.type == "cpu" and is_supported is not None and bool(is_supported())
