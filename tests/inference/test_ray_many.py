"""Two hundred images on a Ray cluster, whose disk is full at first and two of whose processes are killed later."""

import csv
import functools
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import tifffile
from PIL import Image

from shared.inference import Compute, SlideMapper, Tiles, Tissue, find_images
from shared.inference.cohort.ray_cohort import RayCohort
from shared.writers import StorageError

ray = pytest.importorskip("ray", reason="needs Ray: pip install -r requirements-ray.txt")

NUM_IMAGES, NUM_KILLS = 200, 2
pytestmark = pytest.mark.slow


def build_mapper(log):
    """A mapper that writes which process begins and ends an image."""
    import torch

    torch.set_num_threads(1)

    class Redness(torch.nn.Module):
        def forward(self, images):
            return (images[:, :1] - images[:, 1:2] - 140) / 3

    class Logged(SlideMapper):
        def compute_image(self, image, output_dir, title=""):
            with log.open("a") as file:
                file.write(f"{os.getpid()} {image.name}\n")
            return super().compute_image(image, output_dir, title)

    return Logged(
        Redness(),
        tiles=Tiles(tile_size_px=64, margin_px=0),
        tissue=Tissue(only=False),
        compute=Compute(amp=False, num_workers=1, device="cpu"),
    )


def begun(log):
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own with room for the results of 200 images."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("this user may not mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def cluster():
    ray.init(num_cpus=2, object_store_memory=80 * 2**20, include_dashboard=False, log_to_driver=False)
    ray.cloudpickle.register_pickle_by_value(sys.modules[build_mapper.__module__])
    yield
    ray.shutdown()


def kill_busy(log, killed):
    """Kill the process that began the 40th, and the one that began the 120th image, as soon as it has."""
    for number in (40, 120):
        deadline = time.monotonic() + 1800
        while len(begun(log)) < number and time.monotonic() < deadline:
            time.sleep(0.02)
        pid, _ = begun(log)[-1]
        os.kill(int(pid), signal.SIGKILL)
        killed.append(int(pid))


def test_a_full_disk_and_two_killed_processes(cluster, tmp_path, small_disk):
    rng = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    pixels = {f"{index:03d}": rng.integers(0, 256, (72, 96, 3), np.uint8) for index in range(NUM_IMAGES)}
    for name, values in pixels.items():
        Image.fromarray(values).save(tmp_path / f"pictures/{name}.png")
    images, out = find_images(tmp_path / "pictures"), small_disk / "out"

    # All but half a megabyte is taken: it is full after a few images.
    ballast = small_disk / "ballast"
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    ballast.write_bytes(bytes(free - 500_000))
    with pytest.raises(StorageError, match="the disk is full"):
        RayCohort(functools.partial(build_mapper, tmp_path / "full.txt"), num_cpus=1).run(images, out)
    finished = len(list(out.glob("*.ome.tif")))
    assert 0 < finished < NUM_IMAGES
    ballast.unlink()

    log, killed = tmp_path / "log.txt", []
    killer = threading.Thread(target=kill_busy, args=(log, killed))
    killer.start()
    rows = RayCohort(functools.partial(build_mapper, log), num_cpus=1).run(images, out)
    killer.join()
    assert len(killed) == NUM_KILLS
    with (out / "slides.csv").open(newline="") as file:
        table = {row["slide"]: row for row in csv.DictReader(file)}
    assert table.keys() == pixels.keys()
    assert {row["status"] for row in table.values()} == {"ok"}
    # What a killed process had just finished is found to be finished when it is begun again.
    assert len(rows) >= NUM_IMAGES - finished - NUM_KILLS
    # Nothing half written is left, and every map is that of its own picture.
    assert not list(out.rglob("*.part"))
    for name, values in pixels.items():
        red = (values[..., 0].astype(float) - values[..., 1] - 140) / 3
        expected = 255 / (1 + np.exp(-np.clip(red, -50, 50)))
        found = tifffile.imread(out / f"{name}.ome.tif", level=0)
        assert np.abs(found - expected).max() <= 1, name
