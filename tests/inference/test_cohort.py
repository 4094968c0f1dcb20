"""Several processes in one folder, and processes that are killed: real ones."""

import csv
import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from shared.inference import ImageInput, InferenceFailures, SlideMapper, find_images, run_cohort
from shared.inference.cohort import MAX_DEATHS, CohortWorker
from shared.inference.device_errors import DeviceFailure
from shared.inference.finished import fingerprint
from shared.inference.row_store import RowStore
from shared.inference.slide_results import RESULT_SUFFIXES
from shared.writers import StorageError

ROOT = Path(__file__).parents[2]
SETTINGS = {"tile_size_px": 64, "margin_px": 0, "min_area_um2": 0.0, "tissue_only": False, "amp": False, "device": "cpu"}
SETUP = f"""
    import os, sys, time, torch
    from pathlib import Path
    from shared.inference import SlideMapper

    torch.set_num_threads(1)

    class Redness(torch.nn.Module):
        def forward(self, images):
            return (images[:, :1] - images[:, 1:2] - 140) / 3

    def mapper(network=Redness):
        return SlideMapper(network(), num_workers=1, **{SETTINGS!r})
"""


def start(body):
    """A process of its own that can import the project."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    code = textwrap.dedent(SETUP) + textwrap.dedent(body)
    return subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)


def table_of(folder):
    with (folder / "slides.csv").open(newline="") as file:
        return {row["slide"]: row for row in csv.DictReader(file)}


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    for index in range(12):
        Image.fromarray(rng.integers(0, 256, (96, 96, 3), np.uint8)).save(tmp_path / "pictures" / f"{index:02}.png")
    return tmp_path / "pictures"


@pytest.fixture
def mapper(redness):
    return SlideMapper(redness, **SETTINGS)


def test_two_processes_share_the_images(tmp_path, pictures):
    out = tmp_path / "out"
    body = f"""
        ready = mapper()
        print("ready", flush=True)
        while not Path({str(tmp_path / "go")!r}).exists():
            time.sleep(0.01)
        class Slow(Redness):
            def forward(self, images):
                time.sleep(0.05)
                return super().forward(images)
        Slow.__name__ = "Redness"
        print(*(row["slide"] for row in mapper(Slow).run({str(pictures)!r}, {str(out)!r})))
    """
    processes = [start(body) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    (tmp_path / "go").touch()
    done = [process.communicate()[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    names = [f"{index:02}" for index in range(12)]
    assert sorted(done[0] + done[1]) == names
    assert min(map(len, done)) >= 2
    table = table_of(out)
    assert sorted(table) == names
    assert {row["status"] for row in table.values()} == {"ok"}
    assert {row["attempts"] for row in table.values()} == {"1"}
    assert len({row["worker"] for row in table.values()}) == 2


def test_the_image_of_a_killed_process_is_taken_over_at_once(tmp_path, pictures, mapper):
    """The other process waits for an image that is being mapped, and maps it when that process is gone."""
    out = tmp_path / "out"
    one = f"""
        class Standing(Redness):
            def forward(self, images):
                print("busy", flush=True)
                time.sleep(600)
        Standing.__name__ = "Redness"
        mapper(Standing).run({str(pictures)!r}, {str(out)!r})
    """
    other = f"""
        print("ready", flush=True)
        print(*(row["slide"] for row in mapper().run({str(pictures)!r}, {str(out)!r})))
    """
    standing = start(one)
    assert standing.stdout.readline() == "busy\n"
    running = start(other)
    assert running.stdout.readline() == "ready\n"
    deadline = time.monotonic() + 60
    while len(list(out.glob("*.geojson"))) < 11:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.3)
    assert running.poll() is None
    assert not (out / "00.geojson").exists()
    standing.send_signal(signal.SIGKILL)
    standing.wait()
    killed = time.monotonic()
    names = running.communicate()[0].split()
    assert running.returncode == 0
    assert time.monotonic() - killed < 30
    assert names == [f"{index:02}" for index in range(12)]
    assert {row["status"] for row in table_of(out).values()} == {"ok"}
    assert mapper.run(pictures, out) == []


def test_the_table_is_whole_whenever_a_process_is_killed(tmp_path, pictures):
    """A process that forks, and kills, one run after the other: importing takes longer than mapping."""
    process = start(f"""
        import csv, json, os, random, signal
        pictures, out = Path({str(pictures)!r}), Path({str(tmp_path / "out")!r})
        generator = random.Random(0)
        ready, num_killed, num_left = mapper(), 0, []
        for attempt in range(60):
            child = os.fork()
            if child == 0:
                ready.run(pictures, out)
                os._exit(0)
            time.sleep(generator.uniform(0.02, 0.25))
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            rows = []
            if (out / "slides.csv").exists():
                with (out / "slides.csv").open(newline="") as file:
                    rows = list(csv.DictReader(file))
            for row in rows:
                assert None not in row and None not in row.values(), row
                assert row["status"] in ("ok", "unfinished"), row
                if row["status"] == "ok":
                    assert all((out / (row["slide"] + suffix)).exists() for suffix in (".ome.tif", ".geojson", ".png")), row
            for path in (out / "rows").glob("*.json"):
                json.loads(path.read_bytes())
            if os.WIFEXITED(status):
                assert os.WEXITSTATUS(status) == 0
                break
            num_killed += 1
        print(num_killed, len(ready.run(pictures, out)), sum(row["status"] == "ok" for row in rows))
    """)
    output = process.communicate()[0].split()
    assert process.returncode == 0
    assert int(output[0]) >= 3
    table = table_of(tmp_path / "out")
    assert sorted(table) == [f"{index:02}" for index in range(12)]
    assert {row["status"] for row in table.values()} == {"ok"}
    # Of small files that several processes write, each has a temporary name of its own, which a killed one leaves.
    assert not [path for path in (tmp_path / "out").glob("*.part") if not path.name.startswith("settings.json.")]


def test_a_failure_is_tried_once_more_behind_the_others(tmp_path, pictures, redness):
    tried = []

    class Flaky(SlideMapper):
        def map_image(self, image, output_dir, title=""):
            tried.append(image.name)
            if image.name == "03" and tried.count("03") == 1:
                raise OSError("stale file handle")
            return super().map_image(image, output_dir, title)

    (pictures / "05.png").write_bytes(b"no picture")
    with pytest.raises(InferenceFailures, match=r"1 of 12 images failed:\n.*05\.png"):
        Flaky(redness, **SETTINGS).run(pictures, tmp_path / "out")
    assert tried == [*(f"{index:02}" for index in range(12)), "03", "05"]
    table = table_of(tmp_path / "out")
    assert (table["03"]["status"], table["03"]["attempts"], table["03"]["reason"]) == ("ok", "2", "")
    assert (table["05"]["status"], table["05"]["attempts"]) == ("failed", "2")
    assert "05.png" in table["05"]["reason"]
    # The next run tries again, as often.
    tried.clear()
    with pytest.raises(InferenceFailures, match="1 of 12"):
        Flaky(redness, **SETTINGS).run(pictures, tmp_path / "out")
    assert tried == ["05", "05"]


class Deadly:
    """Mapping kills the process."""

    def settings(self):
        return {}

    def map_image(self, image, output_dir, title=""):
        os.kill(os.getpid(), signal.SIGKILL)


def test_an_image_that_kills_its_processes_is_given_up(tmp_path):
    image = ImageInput(tmp_path / "a.png", "a")
    worker = CohortWorker(Deadly(), tmp_path)
    for attempt in range(MAX_DEATHS):
        child = os.fork()
        if child == 0:
            worker.attempt(image, known=None)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        row = worker.store.read("a")
        assert (row["status"], row["attempts"]) == ("unfinished", attempt + 1)
    row, is_new = worker.attempt(image, known=None)
    assert is_new
    assert row["status"] == "failed"
    assert row["reason"].startswith(f"{MAX_DEATHS} processes died while they mapped it, the last one ")
    assert worker.attempt(image, known=None) == (row, False)


def wrapped(error):
    """As a compiled network, or a configuration's item, raises it."""
    outer = RuntimeError("backend failed")
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize("num_working", [0, 1])
def test_a_device_that_fails_dooms_no_image_of_a_neighbour(tmp_path, pictures, num_working):
    """A bad process, started again and again beside a healthy one that was there before; forked, as importing is slow."""
    process = start(f"""
        import json
        from shared.inference.device_errors import DeviceFailure
        pictures, out, begin = Path({str(pictures)!r}), Path({str(tmp_path / "out")!r}), Path({str(tmp_path / "begin")!r})

        class Waiting(Redness):
            def forward(self, images):
                while not begin.exists():
                    time.sleep(0.05)
                return super().forward(images)

        class Bad(Redness):
            num_left = {num_working}
            def forward(self, images):
                Bad.num_left -= 1
                if Bad.num_left < 0:
                    raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\\nCUDA kernel errors ...")
                return super().forward(images)

        Waiting.__name__ = Bad.__name__ = "Redness"
        healthy = os.fork()
        if healthy == 0:
            mapper(Waiting).run(pictures, out)
            os._exit(0)
        while not list(out.glob("rows/*.json")):
            time.sleep(0.05)
        for _ in range(4):
            bad = os.fork()
            if bad == 0:
                try:
                    mapper(Bad).run(pictures, out)
                except DeviceFailure:
                    os._exit(3)
            assert os.waitstatus_to_exitcode(os.waitpid(bad, 0)[1]) == 3
            rows = [json.loads(path.read_bytes()) for path in out.glob("rows/*.json")]
            left = [row for row in rows if row["status"] == "unfinished" and row["reason"]]
            assert left and {{row["attempts"] for row in left}} == {{0}}
            said = "(AcceleratorError: CUDA error: an illegal memory access was encountered)"
            assert all(said in row["reason"] for row in left)
            assert "failed" not in {{row["status"] for row in rows}}
        begin.touch()
        assert os.waitstatus_to_exitcode(os.waitpid(healthy, 0)[1]) == 0
    """)
    process.communicate()
    assert process.returncode == 0
    table = table_of(tmp_path / "out")
    assert len(table) == 12
    assert {row["status"] for row in table.values()} == {"ok"}
    assert {row["attempts"] for row in table.values()} == {"1"}


@pytest.mark.parametrize(
    ("error", "is_of_device"),
    [
        (torch.AcceleratorError("CUDA error: unspecified launch failure"), True),
        (RuntimeError("CUDA error: device-side assert triggered"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(...)`"), True),
        (wrapped(RuntimeError("CUDA error: unspecified launch failure")), True),
        (RuntimeError("NCCL error in: ProcessGroupNCCL.cpp:1, unhandled cuda error"), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), False),
        (torch.AcceleratorError("CUDA error: out of memory"), False),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if ..."), False),
        (RuntimeError("Sizes of tensors must match except in dimension 1"), False),
        (ValueError("a.svs: the file is damaged: CUDA error"), False),
    ],
)
def test_what_is_of_the_device_and_what_of_the_image(tmp_path, error, is_of_device):
    class Failing(Deadly):
        def map_image(self, image, output_dir, title=""):
            raise error

    image, worker = ImageInput(tmp_path / "a.png", "a"), CohortWorker(Failing(), tmp_path)
    if is_of_device:
        with pytest.raises(DeviceFailure, match=r"computes no more .*a\.png, which is left unfinished"):
            worker.attempt(image, known=None)
    else:
        assert worker.attempt(image, known=None).row["status"] == "failed"
    row = worker.store.read("a")
    assert (row["status"], row["attempts"]) == (("unfinished", 0) if is_of_device else ("failed", 1))


def test_an_image_at_which_devices_fail_that_had_worked_is_given_up(tmp_path):
    class Lethal(Deadly):
        def map_image(self, image, output_dir, title=""):
            if image.name == "a":
                raise RuntimeError("CUDA error: device-side assert triggered")
            return {"slide": image.name, "num_tiles": 1, "num_regions": 0}

    lethal = ImageInput(tmp_path / "a.png", "a")
    for number in range(MAX_DEATHS):
        worker = CohortWorker(Lethal(), tmp_path)
        # Of one that never worked nobody knows whether the image is to blame.
        with pytest.raises(DeviceFailure):
            worker.attempt(lethal, known=None)
        assert worker.attempt(ImageInput(tmp_path / f"b{number}.png", f"b{number}"), known=None).row["status"] == "ok"
        with pytest.raises(DeviceFailure):
            worker.attempt(lethal, known=None)
        row = worker.store.read("a")
        assert (row["status"], row["attempts"], row["device_failures"]) == ("unfinished", 0, number + 1)
    outcome = CohortWorker(Lethal(), tmp_path).attempt(lethal, known=None)
    assert outcome.is_final
    assert outcome.row["status"] == "failed"
    assert outcome.row["reason"].startswith("the devices of 3 processes that had mapped other images failed at it: ")
    # In the next run it is tried again.
    with pytest.raises(DeviceFailure):
        CohortWorker(Lethal(), tmp_path).attempt(lethal, known=outcome.row)


def test_an_image_is_claimed_by_one(tmp_path):
    first, second = RowStore(tmp_path), RowStore(tmp_path)
    with first.claim("é 1") as is_mine, second.claim("é 1") as is_mine_too, second.claim("b") as is_free:
        assert (is_mine, is_mine_too, is_free) == (True, False, True)
    with second.claim("é 1") as is_mine:
        assert is_mine


def test_many_rows_at_once_are_written_together_and_all_arrive(tmp_path):
    store = RowStore(tmp_path)
    for index in range(2000):
        store.tabulate({"slide": f"{index}", "status": "ok"})
    store.flush()
    assert list(table_of(tmp_path)) == [str(index) for index in range(2000)]


def test_the_table_is_made_of_the_rows_and_keeps_what_it_has(tmp_path):
    (tmp_path / "slides.csv").write_text("slide,status,remark\nold,ok,by hand\na,unfinished,\n")
    store = RowStore(tmp_path)
    store.write({"slide": "a", "status": "ok", "tumour_share": 0.25})
    store.write({"slide": "b", "status": "failed", "reason": "no mpp"})
    (store.folder / "damaged.json").write_text('{"slide": "dam')
    store.rebuild_table()
    table = table_of(tmp_path)
    assert list(table) == ["old", "a", "b"]
    assert table["old"]["remark"] == "by hand"
    assert table["a"] | {"reason": None} == {
        "slide": "a",
        "status": "ok",
        "remark": "",
        "tumour_share": "0.25",
        "reason": None,
    }
    assert store.read("damaged") is None


def test_what_settings_ask_for_besides_belongs_to_the_result(tmp_path, pictures, redness):
    images = find_images(pictures)[:2]
    with_table = SlideMapper(redness, tile_table=True, volume="nifti", **SETTINGS)
    assert len(run_cohort(with_table, images, tmp_path / "out")) == 2
    (tmp_path / "out" / "00.tiles.csv").unlink()
    (tmp_path / "out" / "01.nii.gz").unlink()
    assert [row["slide"] for row in run_cohort(with_table, images, tmp_path / "out")] == ["00", "01"]
    assert run_cohort(with_table, images, tmp_path / "out") == []
    run_cohort(SlideMapper(redness, **SETTINGS), images, tmp_path / "out")
    assert not [*(tmp_path / "out").glob("*.tiles.csv"), *(tmp_path / "out").glob("*.nii.gz")]


def test_row_and_settings_are_those_of_the_mapper(tmp_path, pictures, mapper):
    (row,) = run_cohort(mapper, find_images(pictures / "00.png"), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "rows" / "00.json").read_text()) == row
    assert json.loads((tmp_path / "out" / "settings.json").read_text()) == mapper.settings()
    assert {name: table_of(tmp_path / "out")["00"][name] for name in ("slide", "attempts", "path")} == {
        "slide": "00",
        "attempts": "1",
        "path": str(pictures / "00.png"),
    }


def test_an_image_that_is_gone_fails_alone(tmp_path, pictures, mapper):
    images = find_images(pictures)[:2]
    images[0].path.unlink()
    with pytest.raises(InferenceFailures, match=r"1 of 2 images failed:\n.*00\.png"):
        run_cohort(mapper, images, tmp_path / "out")
    assert table_of(tmp_path / "out")["01"]["status"] == "ok"


def test_classes_have_no_tissue_of_their_own(tmp_path, pictures):
    network = torch.nn.Conv2d(3, 3, 1)
    mapper = SlideMapper(network, class_names=["background", "stroma", "tumour"], **SETTINGS)
    (row,) = run_cohort(mapper, find_images(pictures / "00.png"), tmp_path / "out")
    assert row["status"] == "ok"


def test_the_folder_beside_a_mirax_slide_is_part_of_it(tmp_path):
    slide = tmp_path / "a.mrxs"
    slide.write_bytes(b"only a preview")
    (tmp_path / "a").mkdir()
    (tmp_path / "a/Data0001.dat").write_bytes(b"pixels")
    before = fingerprint({}, ImageInput(slide, "a"))
    assert fingerprint({}, ImageInput(slide, "a")) == before
    (tmp_path / "a/Data0001.dat").write_bytes(b"more pixels")
    assert fingerprint({}, ImageInput(slide, "a")) != before


def test_a_full_disk_ends_the_run_and_fails_no_image(tmp_path, pictures, redness):
    """The image stays unfinished and without files; with space again the same call goes on from there."""
    out, found = tmp_path / "out", find_images(pictures)

    class Full(SlideMapper):
        def map_image(self, image, output_dir, title=""):
            row = super().map_image(image, output_dir, title)
            if image.name == "02":
                raise StorageError(errno.ENOSPC, f"{output_dir} cannot be written: the disk is full.")
            return row

    with pytest.raises(StorageError, match="the disk is full"):
        run_cohort(Full(redness, **SETTINGS), found, out)
    assert {name: row["status"] for name, row in table_of(out).items()} == {"00": "ok", "01": "ok"}
    assert sorted(path.name for path in out.glob("0*.*")) == [f"0{i}{end}" for i in (0, 1) for end in sorted(RESULT_SUFFIXES)]
    rows = run_cohort(SlideMapper(redness, **SETTINGS), found, out)
    assert len(rows) == 10
    assert {(row["status"], row["attempts"]) for row in rows} == {("ok", 1)}


def test_a_file_that_is_too_large_is_one_image_s_own_failure(tmp_path, pictures, redness):
    class Limited(SlideMapper):
        def map_image(self, image, output_dir, title=""):
            if image.name == "02":
                raise StorageError(errno.EFBIG, "02 cannot be written: the file is larger than the system allows.")
            return super().map_image(image, output_dir, title)

    with pytest.raises(InferenceFailures, match="1 of 12 images failed"):
        run_cohort(Limited(redness, **SETTINGS), find_images(pictures), tmp_path / "out")
