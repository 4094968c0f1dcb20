"""Milliseconds that it takes to generate an image."""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

from scripts.options.numbers import COUNT
from shared.synthetic import synthesize_image


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repeats", type=COUNT, default=30)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure the milliseconds to generate an image with tumour: median and minimum over seeds."""
    seconds = []
    for seed in range(arguments.repeats):
        start = time.perf_counter()
        synthesize_image(seed, tumour_share=0.3, size_px=320)
        seconds.append(time.perf_counter() - start)
    row = {"median_ms": 1e3 * statistics.median(seconds), "min_ms": 1e3 * min(seconds)}
    print(f"320 px image: median {row['median_ms']:.0f} ms, minimum {row['min_ms']:.0f} ms")
    return row
