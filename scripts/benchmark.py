"""Measures speed as ratios within one run (this code compared with the straightforward way), and robustness.

python scripts/benchmark.py cmil            a cMIL training step, compared with back-propagation through all N * N instances
python scripts/benchmark.py tiles           tiles per second: the slide loader alone, a training step alone, both together
python scripts/benchmark.py loaders         CPU-milliseconds per training sample, with this loader and with MONAI's chain
python scripts/benchmark.py alpha-beta      trainings over the grid of alpha and beta, compared with the published numbers
python scripts/benchmark.py shares          joint learning from masks and labels, with few to all masks, in its three modes
python scripts/benchmark.py area-noise      region F if the stated areas are too small, too large or noisy
python scripts/benchmark.py fusion-weights  fusion weights of side outputs, chosen on the validation images of finished folds
python scripts/benchmark.py inference       tiles per second of a slide's map, compared with the network's pure forward rate
python scripts/benchmark.py embedding       tiles per second of a slide's features, compared with the encoder's pure forward rate
python scripts/benchmark.py view            milliseconds until the page of maps shows a slide, a square of it, or new outlines
python scripts/benchmark.py synthetic       milliseconds to generate an image
python scripts/benchmark.py kills           kills at random moments of training, embedding and mapping: are results the same?
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import platform
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from shared.front_door import begin_script

COMMANDS = (
    "cmil",
    "tiles",
    "loaders",
    "alpha-beta",
    "shares",
    "area-noise",
    "fusion-weights",
    "inference",
    "embedding",
    "view",
    "synthetic",
    "kills",
)


def module_of(command: str) -> ModuleType:
    return importlib.import_module(f"scripts.benchmarks.{command.replace('-', '_')}")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in COMMANDS:
        command = commands.add_parser(name)
        # Only for the given command, because each module imports what it measures, including torch.
        if name in sys.argv:
            module_of(name).add_arguments(command)
    return parser.parse_args()


def without_nan(value: Any) -> Any:
    """Replace NaN, such as the deviation over a single seed, by None, because JSON has no NaN."""
    if isinstance(value, dict):
        return {name: without_nan(part) for name, part in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def main() -> None:
    begin_script()
    arguments = parsed()
    try:
        results = module_of(arguments.command).run(arguments)
    except (ValueError, RuntimeError) as error:
        sys.exit(f"error: {error}")
    if arguments.json is not None:
        import torch

        machine = {"torch": torch.__version__, "machine": platform.processor() or platform.machine()}
        report = {"command": vars(arguments), **machine, "results": without_nan(results)}
        arguments.json.write_text(json.dumps(report, indent=2, default=str))


if __name__ == "__main__":
    main()
