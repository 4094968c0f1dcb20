"""Every bundle's short training, by one process and by several."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .check import ROOT, Check

COUNTED_RUN = ROOT / "scripts/gpu_check/counted_run.py"
WARNINGS = {"forked": "fork()", "strides": "Grad strides"}


def trainable_bundles() -> list[str]:
    """The names of all bundles with a short training."""
    return sorted(path.parents[1].name for path in ROOT.glob("bundles/*/configs/small.json"))


def training_check(bundle: str, device: str, folder: Path, keys: Mapping[str, str]) -> Check:
    """One epoch, in whose steps nothing waits for the GPU.

    Args:
        bundle: its name.
        device: ``"cuda"`` or ``"cpu"``.
        folder: gets the training and the count.
        keys: values of keys of configurations; those that a bundle's has are given to it.
    """
    waits = folder / f"{bundle}_waits.json"
    options = {"device": f"$torch.device('{device}')"} | _options(bundle, folder / bundle, keys)

    def describe(log: str) -> str:
        found = json.loads(waits.read_text())
        if found:
            lines = ", ".join(f"{line} ({number} times)" for line, number in list(found.items())[:4])
            raise ValueError(f"steps wait for the GPU: {lines}")
        noticed = [f"{log.count(text)} warnings about {name}" for name, text in WARNINGS.items() if text in log]
        return ", ".join(["no step waits for the GPU" if device == "cuda" else "trained", *noticed])

    command = [str(COUNTED_RUN), str(waits), "run", *_configured(bundle, ("train", "small"), options)]
    return Check(f"training {bundle}", command, describe)


def processes_check(bundle: str, device: str, num_processes: int, folder: Path, keys: Mapping[str, str]) -> Check:
    """The same by several processes: a GPU each, joined by NCCL; on a CPU by gloo."""
    enough = device == "cpu" or num_processes > 1
    has_config = (ROOT / "bundles" / bundle / "configs/multi_gpu_train.json").is_file()
    options = _options(bundle, folder / f"{bundle}_processes", keys)
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={max(2, num_processes)}"]
    command = [*torchrun, "-m", "monai.bundle", "run", *_configured(bundle, ("train", "small", "multi_gpu_train"), options)]
    skipped = (
        None if enough and has_config else "there is only one GPU" if has_config else "the bundle has no multi_gpu_train.json"
    )
    joined = f"{max(2, num_processes)} processes, {'NCCL' if device == 'cuda' else 'gloo'}"
    return Check(f"processes {bundle}", command, lambda _: joined, skipped)


def _options(bundle: str, output_dir: Path, keys: Mapping[str, str]) -> dict[str, Any]:
    known = json.loads((ROOT / "bundles" / bundle / "configs/train.json").read_text())
    given = {key: value for key, value in keys.items() if key.split("::")[0] in known}
    return {"output_dir": output_dir, "tracking::enabled": False} | given


def _configured(bundle: str, names: tuple[str, ...], options: Mapping[str, Any]) -> list[str]:
    files = [str(ROOT / "bundles" / bundle / "configs" / f"{name}.json") for name in names]
    return ["--config_file", str(files), *(text for key, value in options.items() for text in (f"--{key}", str(value)))]
