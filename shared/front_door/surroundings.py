"""What a run requires of the machine: processes, a device, and a folder to write to."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..writers.storage import StorageError, check_writable
from .given import Given

DISTRIBUTED = "shared.engines.initialize_distributed"
_OF_TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_TORCHRUN = "torchrun --standalone --nproc_per_node=2 -m monai.bundle run ..."


def wrong_processes(config: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> list[str]:
    """Several processes with a configuration for one, and the other way round.

    Args:
        config: the merged configuration.
        environment: variables, of which torchrun sets some.
    """
    device = config.get("device")
    is_distributed = isinstance(device, Mapping) and device.get("_target_") == DISTRIBUTED
    missing = [name for name in _OF_TORCHRUN if not environment.get(name)]
    if is_distributed and missing:
        return [
            f"multi_gpu_train.json is for torchrun, which sets {', '.join(missing)}. Start the training as {_TORCHRUN}, or "
            "leave this file out"
        ]
    processes = environment.get("WORLD_SIZE", "")
    if not is_distributed and processes.isdigit() and int(processes) > 1:
        trains = "run_folder" in config
        remedy = "Give multi_gpu_train.json after train.json" if trains else "Start it without torchrun"
        return [
            f"this is one of {processes} processes (WORLD_SIZE), but the configuration is for a single one: each process would "
            f"do all of the work and write into the same folder. {remedy}"
        ]
    return []


def unknown_home() -> list[str]:
    """A user without a home folder, as in a container that runs under a bare number."""
    try:
        Path.home()
    except RuntimeError:
        return [f"user {os.getuid()} has no home folder, which MLflow needs: export HOME=FOLDER, one that can be written to"]
    return []


def wrong_device(given: Given, config: Mapping[str, Any], resolve: Callable[[str], Any]) -> list[str]:
    """A device that is not there.

    Args:
        given: what the user gave.
        config: the merged configuration.
        resolve: the value of a key, formulas computed.
    """
    if "device" not in config or isinstance(config["device"], Mapping):
        return []
    try:
        problems = device_problems(resolve("device"))
    except RuntimeError:
        problems = [f"{config['device']!r} is not a device. Use cuda, cuda:1 or cpu"]
    return [f"{given.source_of('device')}: {problem}" for problem in problems]


def device_problems(device: Any) -> list[str]:
    """Why nothing can be computed on a device; empty where it can.

    >>> device_problems("gpu")
    ["'gpu' is not a device. Use cuda, cuda:1 or cpu"]
    """
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        return [f"{device!r} is not a device. Use cuda, cuda:1 or cpu"]
    if found.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            return [f"{found} needs a CUDA GPU, and PyTorch {torch.__version__} finds none (see nvidia-smi). Use --device cpu"]
        if (found.index or 0) >= count:
            return [f"there is no {found}: PyTorch finds {count} CUDA device(s). Use --device cuda:{count - 1} at most"]
        return []
    try:
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        return [f"{found} cannot be used here ({str(error).splitlines()[0]}). Use --device cpu"]
    return []


def unwritable_folders(given: Given, writes: Sequence[str], resolve: Callable[[str], Any]) -> list[str]:
    """Folders that are to be written to and cannot be.

    Args:
        given: what the user gave.
        writes: their keys.
        resolve: the value of a key, formulas computed.
    """
    problems = []
    for key in writes:
        folder = resolve(key)
        try:
            if not isinstance(folder, str | Path):
                raise ValueError(f"expected a path, found {folder!r}")
            check_writable(folder)
        except (StorageError, ValueError) as error:
            problems.append(f"{given.source_of(key)}: {error}")
    return problems
