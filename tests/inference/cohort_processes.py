"""Processes of their own that map pictures into one folder."""

import csv
import itertools
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
SETTINGS = {"tile_size_px": 64, "margin_px": 0, "min_area_um2": 0.0, "tissue_only": False, "amp": False, "device": "cpu"}
SETUP = f"""
    import os, sys, time, torch
    from pathlib import Path
    from shared.inference import SlideMapper
    from tests.inference.cohort_processes import in_step
    from tests.inference.flat_options import grouped

    torch.set_num_threads(1)

    class Redness(torch.nn.Module):
        def forward(self, images):
            return (images[:, :1] - images[:, 1:2] - 140) / 3

    def mapper(network=Redness):
        return SlideMapper(network(), **grouped(num_workers=1, **{SETTINGS!r}))
"""


def start(body, setup=SETUP):
    """A process of its own that can import the project, and runs `body` behind `setup`."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    code = textwrap.dedent(setup) + textwrap.dedent(body)
    return subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)


def table_of(folder):
    with (folder / "slides.csv").open(newline="") as file:
        return {row["slide"]: row for row in csv.DictReader(file)}


def in_step(compute, folder, deadline_s=600):
    """`compute` of a mapper, standing still in its first two images until another process has begun as many: none does all."""
    numbers = itertools.count(1)

    def compute_in_step(*arguments):
        number = next(numbers)
        folder.mkdir(exist_ok=True)
        (folder / f"{number}.{os.getpid()}").touch()
        deadline = time.monotonic() + deadline_s
        while number <= 2 and len(list(folder.glob(f"{number}.*"))) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return compute(*arguments)

    return compute_in_step
