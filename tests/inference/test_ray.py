"""A cohort on a Ray cluster of two nodes, both on this machine; one of them is killed in the middle."""

import csv
import functools
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from shared.inference import Compute, InferenceFailures, SlideMapper, Tiles, Tissue, find_images, run_cohort
from shared.inference.cohort.ray_cohort import RayCohort
from shared.inference.device_errors import DeviceFailure

ray = pytest.importorskip("ray", reason="needs Ray: pip install -r requirements-ray.txt")

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
NUM_IMAGES = 6
# Ray itself gives a node half a minute, which is not enough on a busy machine.
START_S = 600


def build_mapper(log):
    """A mapper that writes a line to `log` when it begins and when it ends an image.

    Where the file ``doomed`` next to the log names a node, that one stands still in its second image, and the others wait for
    it.
    """
    import torch

    class Redness(torch.nn.Module):
        def forward(self, images):
            return (images[:, :1] - images[:, 1:2] - 140) / 3

    class Logged(SlideMapper):
        def _open_slide(self, image):
            write_line(log, f"open {image.name} {threading.current_thread().name.startswith('look-ahead')}")
            return super()._open_slide(image)

        def compute_image(self, image, output_dir, title=""):
            node = ray.get_runtime_context().get_node_id()
            write_line(log, f"begin {image.name} {node}")
            if log.with_name("doomed").exists():
                doomed = log.with_name("doomed").read_text()
                while (count_begun(log, doomed) >= 2) == (node == doomed):
                    time.sleep(0.05)
            computed = super().compute_image(image, output_dir, title)
            write_line(log, f"end {image.name} {node}")
            return computed

    return Logged(
        Redness(),
        tiles=Tiles(tile_size_px=64, margin_px=0),
        tissue=Tissue(only=False),
        compute=Compute(amp=False, num_workers=1, device="cpu"),
    )


def write_line(log, line):
    with log.open("a") as file:
        file.write(line + "\n")


def lines_of(log, kind):
    """(image, node) of each line of one kind."""
    lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
    return [(line[1], line[2]) for line in lines if line[0] == kind]


def count_begun(log, node):
    return [begun for _, begun in lines_of(log, "begin")].count(node)


def builder(log):
    # Workers have no module of this file's name.
    ray.cloudpickle.register_pickle_by_value(sys.modules[build_mapper.__module__])
    return functools.partial(build_mapper, log)


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    cluster.add_node(wait=False, include_dashboard=False, **NODE)
    cluster.wait_for_nodes(START_S)
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    for index in range(NUM_IMAGES):
        Image.fromarray(rng.integers(0, 256, (96, 96, 3), np.uint8)).save(tmp_path / "pictures" / f"{index}.png")
    return tmp_path / "pictures"


def table_of(folder):
    with (folder / "slides.csv").open(newline="") as file:
        return {row["slide"]: row for row in csv.DictReader(file)}


def test_a_node_is_killed_and_every_image_is_done_once(cluster, tmp_path, pictures):
    log, out = tmp_path / "log.txt", tmp_path / "out"
    second = cluster.add_node(wait=False, **NODE)
    cluster.wait_for_nodes(START_S)
    log.with_name("doomed").write_text(second.node_id)

    def kill_when_busy():
        deadline = time.monotonic() + 600
        while count_begun(log, second.node_id) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        cluster.remove_node(second, allow_graceful=False)

    killer = threading.Thread(target=kill_when_busy)
    killer.start()
    rows = RayCohort(builder(log), num_cpus=1).run(find_images(pictures), out)
    killer.join()
    log.with_name("doomed").unlink()
    (_, killed) = [image for image, node in lines_of(log, "begin") if node == second.node_id]
    names = [str(index) for index in range(NUM_IMAGES)]
    assert [row["slide"] for row in rows] == names
    assert sorted(image for image, _ in lines_of(log, "end")) == names
    assert {node for _, node in lines_of(log, "end")} > {second.node_id}
    assert [image for image, _ in lines_of(log, "begin")].count(killed) == 2
    table = table_of(out)
    assert sorted(table) == names
    assert {name: (row["status"], row["attempts"]) for name, row in table.items()} == {
        name: ("ok", "2" if name == killed else "1") for name in names
    }
    # Finished is finished, and the workers' results are those of this process.
    assert RayCohort(builder(log), num_cpus=1).run(find_images(pictures), out) == []
    assert run_cohort(build_mapper(log), find_images(pictures), out) == []


def test_a_process_opens_the_next_image_ahead_and_does_it_next(cluster, tmp_path, pictures):
    log, images = tmp_path / "log.txt", find_images(pictures)
    rows = RayCohort(builder(log), num_cpus=1).run(images, tmp_path / "out")
    assert [row["slide"] for row in rows] == [image.name for image in images]
    openings = dict(lines_of(log, "open"))
    assert len(lines_of(log, "open")) == len(openings) == NUM_IMAGES
    # The first image of each process is not opened ahead; of a busy node several may have begun.
    assert "True" in openings.values()
    assert [image for image, _ in lines_of(log, "end")] == [image for image, _ in lines_of(log, "begin")]


def test_a_failure_leaves_the_others_alone(cluster, tmp_path, pictures):
    log, out = tmp_path / "log.txt", tmp_path / "out"
    (pictures / "1.png").write_bytes(b"no picture")
    images = find_images(pictures)[:4]
    with pytest.raises(InferenceFailures, match="1 of 4 images failed"):
        RayCohort(builder(log), num_cpus=1).run(images, out)
    table = table_of(out)
    assert {name: row["status"] for name, row in table.items()} == {"0": "ok", "1": "failed", "2": "ok", "3": "ok"}
    assert "1.png" in table["1"]["reason"]
    assert [image for image, _ in lines_of(log, "begin")].count("1") == 2


def build_broken_mapper(log, num_broken):
    """A mapper of a process whose device fails at once, if it is one of the first `num_broken` processes."""
    import os

    import torch

    class Redness(torch.nn.Module):
        def forward(self, images):
            if f"pid {os.getpid()} x" in log.read_text().splitlines()[:num_broken]:
                raise RuntimeError("CUDA error: unspecified launch failure")
            return (images[:, :1] - images[:, 1:2] - 140) / 3

    write_line(log, f"pid {os.getpid()} x")
    return SlideMapper(
        Redness(),
        tiles=Tiles(tile_size_px=64, margin_px=0),
        tissue=Tissue(only=False),
        compute=Compute(amp=False, num_workers=1, device="cpu"),
    )


def test_a_device_that_fails_ends_its_process_and_not_the_run(cluster, tmp_path, pictures):
    log, images = tmp_path / "log.txt", find_images(pictures)[:3]
    ray.cloudpickle.register_pickle_by_value(sys.modules[build_mapper.__module__])
    rows = RayCohort(functools.partial(build_broken_mapper, log, 1), num_cpus=1).run(images, tmp_path / "out")
    assert [(row["status"], row["attempts"]) for row in rows] == [("ok", 1)] * 3
    assert len(lines_of(log, "pid")) >= 2
    with pytest.raises(DeviceFailure, match=r"no device of any machine works; the last error was: .*unspecified launch failure"):
        RayCohort(functools.partial(build_broken_mapper, log, 99), num_cpus=1).run(images, tmp_path / "other")
    assert {row["status"] for row in table_of(tmp_path / "other").values()} == {"unfinished"}


def test_a_mapper_that_cannot_be_made_stops_the_run(cluster, tmp_path, pictures):
    def build():
        raise ValueError("model.pt is of another network")

    with pytest.raises(ValueError, match=r"model\.pt is of another network"):
        RayCohort(build, num_cpus=1).run(find_images(pictures), tmp_path / "out")


def test_more_than_any_machine_has(cluster, tmp_path, pictures):
    with pytest.raises(ValueError, match=r"no machine of the Ray cluster has 64 CPU and 0 GPU; found: 1 CPU, 0 GPU"):
        RayCohort(builder(tmp_path / "log.txt"), num_cpus=64).run(find_images(pictures), tmp_path / "out")
    with pytest.raises(ValueError, match="need num_cpus > 0"):
        RayCohort(builder(tmp_path / "log.txt"), num_cpus=0)
