"""Results on their way back from the device, while the next ones are computed."""

from __future__ import annotations

import torch
from torch import Tensor


class Returning:
    """Tensors that are copied to the CPU; on CUDA the copy is only ordered here.

    Args:
        tensors: all on one device.
    """

    def __init__(self, *tensors: Tensor) -> None:
        self._tensors = [tensor.to("cpu", non_blocking=True) for tensor in tensors]
        self._arrived: torch.cuda.Event | None = None
        if tensors[0].is_cuda:
            self._arrived = torch.cuda.Event()
            # Without a stream it would be recorded on that of the current device, which need not be the tensors'.
            self._arrived.record(torch.cuda.current_stream(tensors[0].device))

    def wait(self) -> list[Tensor]:
        """The tensors on the CPU, once they have arrived."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._tensors
