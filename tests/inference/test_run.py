"""Runs over many slides: failures, resuming, kill -9, memory."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from shared.inference import InferenceFailures, SlideMapper
from tests.inference.flat_options import grouped

ROOT = Path(__file__).parents[2]
SETTINGS = {"tile_size_px": 256, "margin_px": 32, "min_area_um2": 0.0, "amp": False, "device": "cpu"}


def _rows(folder):
    with (folder / "slides.csv").open(newline="") as file:
        return {row["slide"]: row for row in csv.DictReader(file)}


def _times(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.suffix in {".tif", ".png", ".geojson"}}


def _script(body):
    """A process of its own that can import the project."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(body)], env=environment, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def slides(tmp_path, write_slide, picture):
    (tmp_path / "slides").mkdir()
    for name in "abc":
        write_slide(tmp_path / "slides" / f"{name}.tif", picture)
    return tmp_path / "slides"


def test_a_broken_slide_is_a_row_and_the_others_are_done(tmp_path, slides, redness):
    (slides / "b.tif").unlink()
    (slides / "b.svs").write_bytes(b"no slide" * 1000)
    whole = (slides / "a.tif").read_bytes()
    (slides / "aa.tif").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InferenceFailures, match="2 of 4 images failed") as failure:
        SlideMapper(redness, **grouped(**SETTINGS)).run(slides, tmp_path / "out")
    assert str(slides / "b.svs") in str(failure.value)
    rows = _rows(tmp_path / "out")
    assert {name: row["status"] for name, row in rows.items()} == {"a": "ok", "aa": "failed", "b": "failed", "c": "ok"}
    assert "b.svs" in rows["b"]["reason"]
    assert sorted(path.name for path in (tmp_path / "out").glob("*.tif")) == ["a.ome.tif", "c.ome.tif"]
    assert not list((tmp_path / "out").glob("*.part"))


def test_finished_slides_are_skipped_until_something_changes(tmp_path, slides, write_slide, picture, redness, caplog):
    caplog.set_level("INFO")
    out = tmp_path / "out"
    assert len(SlideMapper(redness, **grouped(**SETTINGS)).run(slides, out)) == 3
    assert f"3 mapped now; maps, outlines, pictures and slides.csv are in {out}" in caplog.text
    before = _times(out)
    assert SlideMapper(redness, **grouped(**SETTINGS, batch_size=3)).run(slides, out) == []
    assert _times(out) == before

    (out / "a.geojson").unlink()
    write_slide(slides / "b.tif", picture[:600])
    assert [row["slide"] for row in SlideMapper(redness, **grouped(**SETTINGS)).run(slides, out)] == ["a", "b"]
    assert [row["slide"] for row in SlideMapper(redness, **grouped(threshold=0.4, **SETTINGS)).run(slides, out)] == [
        "a",
        "b",
        "c",
    ]
    assert list(_rows(out)) == ["a", "b", "c"]


def test_a_copied_folder_is_finished_too(tmp_path, slides, redness):
    out = tmp_path / "out"
    SlideMapper(redness, **grouped(**SETTINGS)).run(slides, out)
    shutil.copytree(slides, tmp_path / "copy")
    shutil.copytree(out, tmp_path / "out_of_copy")
    assert SlideMapper(redness, **grouped(**SETTINGS)).run(tmp_path / "copy", tmp_path / "out_of_copy") == []
    # Another content of the same size is another slide: here a word of its description.
    content = (tmp_path / "copy/b.tif").read_bytes()
    assert b"tifffile.py" in content
    (tmp_path / "copy/b.tif").write_bytes(content.replace(b"tifffile.py", b"tifffile.PY"))
    rows = SlideMapper(redness, **grouped(**SETTINGS)).run(tmp_path / "copy", tmp_path / "out_of_copy")
    assert [row["slide"] for row in rows] == ["b"]


def test_other_weights_are_other_settings(redness):
    networks = [torch.nn.Conv2d(3, 1, 1) for _ in range(2)]
    first, second = (SlideMapper(network, **grouped(**SETTINGS)).settings() for network in networks)
    assert first["weights_sha256"] != second["weights_sha256"]
    networks[1].load_state_dict(networks[0].state_dict())
    assert first == SlideMapper(networks[1], **grouped(**SETTINGS)).settings()


def test_a_result_that_is_replaced_is_no_longer_finished(tmp_path, slides, redness):
    out = tmp_path / "out"
    SlideMapper(redness, **grouped(**SETTINGS)).run(slides / "a.tif", out)

    class Killed(SlideMapper):
        def compute_image(self, *arguments):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Killed(redness, **grouped(threshold=0.4, **SETTINGS)).run(slides / "a.tif", out)
    assert _rows(out)["a"]["status"] == "unfinished"
    assert _times(out) == {}


def test_results_do_not_go_into_the_folder_of_the_images(slides, redness):
    with pytest.raises(ValueError, match="another folder"):
        SlideMapper(redness, **grouped(**SETTINGS)).run(slides, slides)
    SlideMapper(redness, **grouped(**SETTINGS)).run(slides, slides / "out")
    assert SlideMapper(redness, **grouped(**SETTINGS)).run(slides, slides / "out") == []


@pytest.mark.slow
def test_a_killed_run_leaves_no_half_file_and_is_resumed(tmp_path, slides, redness):
    out = tmp_path / "out"
    body = f"""
        import time, torch
        from pathlib import Path
        from shared.inference import SlideMapper
        from tests.inference.flat_options import grouped

        class Network(torch.nn.Module):
            calls = 0
            def forward(self, images):
                Network.calls += 1
                # The second slide stands still in its second batch, and what is left to write of the first is written.
                if Network.calls > 8:
                    table = Path({str(out / "slides.csv")!r})
                    while not table.is_file() or "a,ok," not in table.read_text():
                        time.sleep(0.05)
                    print("busy", flush=True)
                    time.sleep(600)
                return (images[:, :1] - images[:, 1:2] - 140) / 3

        mapper = SlideMapper(Network(), **grouped(batch_size=4, **{SETTINGS!r}))
        mapper.run({str(slides)!r}, {str(out)!r})
    """
    process = _script(body)
    assert process.stdout.readline() == "busy\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert {name: row["status"] for name, row in _rows(out).items()} == {"a": "ok"}
    assert {path.name for path in out.iterdir() if path.suffix != ".part"} == {
        *("a.ome.tif", "a.geojson", "a.png"),
        *("slides.csv", "settings.json", "rows"),
    }
    tifffile.imread(out / "a.ome.tif")
    before = _times(out)

    class Network(type(redness)):
        """Of the same name, which is a setting."""

    begun = []

    class Noted(SlideMapper):
        def compute_image(self, image, output_dir, title=""):
            begun.append(image.name)
            return super().compute_image(image, output_dir, title)

    assert [row["slide"] for row in Noted(Network(), **grouped(**SETTINGS)).run(slides, out)] == ["b", "c"]
    # The slide at which a process died was put behind the others.
    assert begun == ["c", "b"]
    assert list(_rows(out)) == ["a", "b", "c"]
    assert {name: row["status"] for name, row in _rows(out).items()} == dict.fromkeys("abc", "ok")
    assert not list(out.glob("*.part"))
    assert before.items() <= _times(out).items()


def _write_large_slide(path, side_px):
    glass = np.full((512, 512, 3), 255, np.uint8)
    tissue = np.full((512, 512, 3), (200, 120, 180), np.uint8)
    tissue[100:400, 100:400] = (220, 20, 60)
    tifffile.imwrite(
        path,
        (glass if index % 10 else tissue for index in range((side_px // 512) ** 2)),
        shape=(side_px, side_px, 3),
        dtype=np.uint8,
        photometric="rgb",
        tile=(512, 512),
        compression="zlib",
        resolution=(2e4, 2e4),
        resolutionunit="CENTIMETER",
    )


@pytest.mark.slow
def test_memory_does_not_grow_with_the_slide(tmp_path):
    # The second map has 98 MB more, its slide 295 MB. What may grow are the strips' width and the decoder's cache.
    for name, side_px in (("small", 2560), ("large", 10240)):
        _write_large_slide(tmp_path / f"{name}.tif", side_px)
    process = _script(f"""
        import resource, torch
        from shared.inference import SlideMapper
        from tests.inference.flat_options import grouped

        class Network(torch.nn.Module):
            def forward(self, images):
                return (images[:, :1] - images[:, 1:2] - 140) / 3

        mapper = SlideMapper(Network(), **grouped(margin_px=0, map_downsample=1, batch_size=1, amp=False, num_workers=1))
        # The first runs also fill the allocator's own reserves.
        for run, name in enumerate(("small", "small", "small", "large")):
            mapper.run({str(tmp_path)!r} + "/" + name + ".tif", {str(tmp_path / "out")!r} + str(run))
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    """)
    *_, small_mb, large_mb = (float(line) for line in process.communicate()[0].split())
    assert process.returncode == 0
    assert len(tifffile.imread(tmp_path / "out3" / "large.ome.tif", level=5)) == 320
    print(f"{small_mb:.0f} MB, then {large_mb:.0f} MB")
    assert large_mb - small_mb < 60
