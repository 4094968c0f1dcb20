"""``python -m monai.bundle``, which also counts where the steps of trainings wait for the GPU.

python scripts/gpu_check/counted_run.py waits.json run --config_file ...

PyTorch warns of every operation that waits (`torch.cuda.set_sync_debug_mode`). Those within a step are counted by the line of
`shared` that asked for them; the look at a network's first images, see `PixelRange`, is left out. On a CPU nothing waits, and
nothing is counted.
"""

from __future__ import annotations

import inspect
import json
import sys
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

ROOT = Path(__file__).resolve().parents[2]
SAID = "called a synchronizing CUDA operation"
STEP = ("monai/engines/trainer.py", "_iteration")
FIRST_IMAGES = ("layers/pixel_normalization.py", "look")


class Place(NamedTuple):
    """Place of one call."""

    file: str
    line: int
    function: str


def waiting_line(stack: Iterable[Place]) -> str | None:
    """The line of `shared`, or else of whatever it is, that waits; None outside a step.

    Args:
        stack: innermost call first.
    """
    calls = [place for place in stack if place.file != warnings.__file__]
    if not _has(calls, STEP) or _has(calls, FIRST_IMAGES):
        return None
    shared = f"{ROOT / 'shared'}/"
    ours = [place for place in calls if place.file.startswith(shared)]
    place = (ours or calls)[0]
    return f"{place.file.removeprefix(f'{ROOT}/')}:{place.line}"


def _has(calls: Iterable[Place], wanted: tuple[str, str]) -> bool:
    return any(place.file.endswith(wanted[0]) and place.function == wanted[1] for place in calls)


def count_waits(waits: Counter[str]) -> None:
    """From here on count PyTorch's warnings; others are shown as before."""
    import torch

    show = warnings.showwarning

    def counted(message: Warning | str, *arguments: Any, **options: Any) -> None:
        if SAID not in str(message):
            show(message, *arguments, **options)
            return
        # Without the source lines, which would be read again for each.
        stack = (Place(call.filename, call.lineno, call.function) for call in inspect.stack(context=0)[1:])
        line = waiting_line(stack)
        if line is not None:
            waits[line] += 1

    warnings.showwarning = counted
    warnings.filterwarnings("always", message=f".*{SAID}")
    if torch.cuda.is_available():
        torch.cuda.set_sync_debug_mode("warn")


def main() -> None:
    report = Path(sys.argv.pop(1))
    waits: Counter[str] = Counter()
    count_waits(waits)
    from fire import Fire
    from monai.bundle import run

    Fire({"run": run})
    report.write_text(json.dumps(dict(waits.most_common())) + "\n")


if __name__ == "__main__":
    main()
