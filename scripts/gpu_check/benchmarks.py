"""The ratios of ``scripts/benchmark.py`` on the device."""

from __future__ import annotations

import json
from pathlib import Path

from .check import ROOT, Check

# Of a slide large enough for the pipeline to be full, and of one that shows on a CPU that everything runs.
LARGE = ("--backbone", "resnet50", "--tiles", "20480", "--size_px", "49152", "40960")
SMALL = ("--backbone", "resnet10", "--tiles", "64", "--size_px", "4096", "2304", "--pauses", "2", "--pause_batches", "1")
SMALL_TILES = ("--backbone", "resnet10", "--tiles_per_slide", "8", "--steps", "2", "--rounds", "1")


def inference_check(device: str, batch_size: int, is_compiled: bool, num_workers: int, folder: Path) -> Check:
    """How much of the network's pure forward rate is left end to end."""
    name = f"inference {batch_size}{' compiled' if is_compiled else ''}"
    report = folder / f"{name.replace(' ', '_')}.json"
    options = [
        *(LARGE if device == "cuda" else SMALL),
        "--batch_size",
        str(batch_size),
        *([] if is_compiled else ["--no_compile"]),
    ]

    def describe(_: str) -> str:
        results = json.loads(report.read_text())["results"]
        return f"{results['of_best_pure']:.0%} of the best pure forward rate, {results['tiles_per_s']:.0f} tiles/s"

    return Check(name, _command("inference", report, device, num_workers, options), describe)


def tiles_check(device: str, num_workers: int, folder: Path) -> Check:
    """How much of the network's training rate is left with the loader."""
    report = folder / f"tiles_{num_workers}.json"
    options = ["--steps", "40"] if device == "cuda" else list(SMALL_TILES)

    def describe(_: str) -> str:
        share = json.loads(report.read_text())["results"]["both_of_model"]
        return f"training on slides runs at {share:.0%} of the network's own rate"

    return Check(f"tiles {num_workers}", _command("tiles", report, device, num_workers, options), describe)


def _command(name: str, report: Path, device: str, num_workers: int, options: list[str]) -> list[str]:
    script = str(ROOT / "scripts/benchmark.py")
    return [script, "--json", str(report), name, "--device", device, "--num_workers", str(num_workers), *options]
