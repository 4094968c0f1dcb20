"""How many tiles and threads are used where nobody says so."""

import os

import pytest
import torch

from shared.front_door.cores import available_cores
from shared.inference import Compute


@pytest.mark.parametrize(
    ("batch_size", "device", "tile_size_px", "expected"),
    [
        (None, "cpu", 112, 16),
        (None, "cpu", 640, 16),
        (None, "cuda", 112, 256),
        (None, "cuda", 256, 256),
        (None, "cuda", 512, 64),
        (None, "cuda", 10_000, 1),
        (8, "cuda", 256, 8),
        (8, "cpu", 256, 8),
    ],
)
def test_tiles_a_batch(batch_size, device, tile_size_px, expected):
    compute = Compute(batch_size, torch.device(device))
    assert compute.num_tiles(tile_size_px) == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system does not bind processes to cores")
def test_threads_are_as_many_as_the_cores_that_are_given():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert available_cores() == Compute(device="cpu").num_threads == 1
        assert Compute(device="cpu", num_workers=3).num_threads == 3
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize("name", ["batch_size", "num_workers"])
def test_numbers_below_one_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        Compute(device="cpu", **{name: 0})
