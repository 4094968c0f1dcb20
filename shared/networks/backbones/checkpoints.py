"""Reads what ``torch.save`` wrote, without running any code of the file."""

import argparse
import pathlib
import pickle
import re
import types
from pathlib import Path
from typing import Any

import torch
from torch import nn

__all__ = ["check_finite", "read_checkpoint"]


class _Unread:
    """In place of numbers and arrays of NumPy, which would believe whatever a file says of their memory."""

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _without_default(*factory: Any) -> dict[Any, Any]:
    """A defaultdict as a dictionary, because PyTorch fills no other."""
    return {}


# Modules of NumPy and of pathlib have one name in files of earlier versions, and another in those of later ones.
NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")
PATHS = ("pathlib", "pathlib._local")
# What trainings save beside the weights: options, paths, and numbers. None of it runs code, whatever a file says.
HARMLESS: list[Any] = [
    argparse.Namespace,
    types.SimpleNamespace,
    *(list, dict, int, float),
    (_without_default, "collections.defaultdict"),
    # Paths of another system cannot be made here, but as words they can.
    *((pathlib.PurePosixPath, f"{module}.{name}") for module in PATHS for name in ("PosixPath", "PurePosixPath")),
    *((pathlib.PureWindowsPath, f"{module}.{name}") for module in PATHS for name in ("WindowsPath", "PureWindowsPath")),
    *((_Unread, f"{module}.{name}") for module in NUMPY for name in ("scalar", "_reconstruct")),
    *((_Unread, f"numpy.{name}") for name in ("dtype", "ndarray")),
]
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
REFUSED = re.compile(r"GLOBAL (\S+) (?:was not|whose)")
# After it PyTorch says what is wrong, and before it how to read the file all the same, which is no option here.
REASON = "WeightsUnpickler error: "


def read_checkpoint(path: str | Path) -> Any:
    """What is in a file of ``torch.save``, on the CPU: tensors in lists and dictionaries, options and paths.

    Numbers and arrays of NumPy are passed over: something that says nothing is in their place.

    Raises:
        ValueError: in one line that names the file, if it is no such file or holds other objects.
    """
    try:
        with torch.serialization.safe_globals(HARMLESS):
            # To the CPU: load_state_dict copies to wherever the parameters are.
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle has its own kinds for what is no checkpoint at all
        # PyTorch's own words, a page of advice that cannot be followed here, would stand above these.
        raise ValueError(f"{path} {_problem(error, Path(path))}") from None


def check_finite(network: nn.Module, path: str | Path) -> None:
    """Check that a network's weights are numbers, as those of a training that has diverged are not.

    Buffers may be infinite: what no split of a tree asks about is.

    Args:
        network: with the weights.
        path: of the file that they are from.

    Raises:
        ValueError: naming the file and the first weight of which a value is not finite.
    """
    parameters = {name for name, _ in network.named_parameters()}
    for name, values in network.state_dict().items():
        if not values.is_floating_point():
            continue
        is_bad = ~values.isfinite() if name in parameters else values.isnan()
        if is_bad.any():
            raise ValueError(
                f"{path}: {name} has {int(is_bad.sum())} values of {values.numel()} that are not finite (NaN, infinite), as of a "
                "training that has diverged. Take an earlier checkpoint, or train again with a lower learning rate"
            )


def _problem(error: Exception, path: Path) -> str:
    text = COLOURS.sub("", str(error))
    if refused := REFUSED.search(text):
        saved = f"torch.load({str(path)!r}, map_location='cpu', weights_only=False)"
        alone = str(path.with_suffix(".weights.pth"))
        return (
            f"holds other objects than tensors ({refused[1]}), which could run code: save its state dict alone. In Python, if "
            f"you trust the file: import torch; torch.save({saved}['state_dict'], {alone!r}) - with "
            "the name that the state dict has in it, or for a whole network .state_dict() in place of ['state_dict']"
        )
    if "TorchScript" in text:
        return "is a TorchScript file: expected a state dict that torch.save wrote"
    if isinstance(error, (OSError, RuntimeError, pickle.UnpicklingError)) and (
        lines := text.split(REASON)[-1].strip().splitlines()
    ):
        return f"is not a PyTorch checkpoint: {lines[0].split('. ')[0]}"
    return "is not a PyTorch checkpoint: torch.save wrote no such file"
