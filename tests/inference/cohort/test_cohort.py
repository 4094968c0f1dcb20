"""Several processes in one folder, and processes that are killed: real ones."""

import json
import os
import shutil
import signal
import time

import pytest
import torch

from shared.inference import ImageInput, InferenceFailures, Outputs, SlideMapper, find_images, run_cohort
from shared.inference.cohort.cohort import Tally
from shared.inference.cohort.finished import fingerprint
from shared.inference.cohort.row_store import RowStore
from shared.inference.cohort.worker import MAX_DEATHS, CohortWorker, Outcome
from tests.inference.cohort_processes import SETTINGS, start, table_of
from tests.inference.flat_options import grouped


@pytest.mark.slow
def test_two_processes_share_the_images(tmp_path, pictures):
    out = tmp_path / "out"
    body = f"""
        ready = mapper()
        ready.compute_image = in_step(ready.compute_image, Path({str(tmp_path / "begun")!r}))
        print(*(row["slide"] for row in ready.run({str(pictures)!r}, {str(out)!r})))
    """
    processes = [start(body) for _ in range(2)]
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


@pytest.mark.slow
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
    deadline = time.monotonic() + 600
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
    assert time.monotonic() - killed < 120
    assert names == [f"{index:02}" for index in range(12)]
    assert {row["status"] for row in table_of(out).values()} == {"ok"}
    assert mapper.run(pictures, out) == []


@pytest.mark.slow
def test_the_table_is_whole_whenever_a_process_is_killed(tmp_path, pictures):
    """A process that forks, and kills, one run after the other: importing takes longer than mapping.

    An image under which three processes die is given up, so that before the third kill a run goes on to its end; the next one
    begins in a new folder.
    """
    process = start(f"""
        import csv, json, os, random, signal
        from shared.inference.cohort.worker import MAX_DEATHS
        pictures, folder, num_kills = Path({str(pictures)!r}), Path({str(tmp_path)!r}), 12
        generator = random.Random(0)
        ready, num_killed, num_runs = mapper(), 0, 0
        while num_killed < num_kills:
            out, has_ended, is_spared, num_runs = folder / f"out_{{num_runs}}", False, False, num_runs + 1
            while not has_ended:
                child = os.fork()
                if child == 0:
                    ready.run(pictures, out)
                    os._exit(0)
                if not is_spared:
                    time.sleep(generator.uniform(0.02, 0.25))
                    os.kill(child, signal.SIGKILL)
                _, status = os.waitpid(child, 0)
                table = []
                if (out / "slides.csv").exists():
                    with (out / "slides.csv").open(newline="") as file:
                        table = list(csv.DictReader(file))
                for row in table:
                    assert None not in row and None not in row.values(), row
                    assert row["status"] in ("ok", "unfinished"), row
                    if row["status"] == "ok":
                        assert all((out / (row["slide"] + suffix)).exists() for suffix in (".ome.tif", ".geojson", ".png")), row
                rows = [json.loads(path.read_bytes()) for path in (out / "rows").glob("*.json")]
                deaths = [row["attempts"] for row in rows if row["status"] == "unfinished"]
                has_ended = os.WIFEXITED(status)
                if has_ended:
                    assert os.WEXITSTATUS(status) == 0
                else:
                    num_killed += 1
                is_spared = num_killed == num_kills or max(deaths, default=0) == MAX_DEATHS - 1
        print(num_runs)
    """)
    output = process.communicate()[0].split()
    assert process.returncode == 0
    for number in range(int(output[0])):
        out = tmp_path / f"out_{number}"
        table = table_of(out)
        assert sorted(table) == [f"{index:02}" for index in range(12)]
        assert {row["status"] for row in table.values()} == {"ok"}
        # Of small files that several processes write, each has a temporary name of its own, which a killed one leaves.
        assert not [path for path in out.glob("*.part") if not path.name.startswith("settings.json.")]


def test_a_failure_is_tried_once_more_behind_the_others(tmp_path, pictures, redness):
    tried = []

    class Flaky(SlideMapper):
        def compute_image(self, image, output_dir, title=""):
            tried.append(image.name)
            if image.name == "03" and tried.count("03") == 1:
                raise OSError("stale file handle")
            return super().compute_image(image, output_dir, title)

    (pictures / "05.png").write_bytes(b"no picture")
    with pytest.raises(InferenceFailures, match=r"1 of 12 images failed:\n.*05\.png"):
        Flaky(redness, **grouped(**SETTINGS)).run(pictures, tmp_path / "out")
    assert tried == [*(f"{index:02}" for index in range(12)), "03", "05"]
    table = table_of(tmp_path / "out")
    assert (table["03"]["status"], table["03"]["attempts"], table["03"]["reason"]) == ("ok", "2", "")
    assert (table["05"]["status"], table["05"]["attempts"]) == ("failed", "2")
    assert "05.png" in table["05"]["reason"]
    # The next run tries again, as often.
    tried.clear()
    with pytest.raises(InferenceFailures, match="1 of 12"):
        Flaky(redness, **grouped(**SETTINGS)).run(pictures, tmp_path / "out")
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
    with_table = SlideMapper(redness, **grouped(tile_table=True, volume="nifti", **SETTINGS))
    assert len(run_cohort(with_table, images, tmp_path / "out")) == 2
    (tmp_path / "out" / "00.tiles.csv").unlink()
    (tmp_path / "out" / "01.nii.gz").unlink()
    assert [row["slide"] for row in run_cohort(with_table, images, tmp_path / "out")] == ["00", "01"]
    assert run_cohort(with_table, images, tmp_path / "out") == []
    run_cohort(SlideMapper(redness, **grouped(**SETTINGS)), images, tmp_path / "out")
    assert not [*(tmp_path / "out").glob("*.tiles.csv"), *(tmp_path / "out").glob("*.nii.gz")]


def test_formats_for_other_programs_belong_to_the_result_too(tmp_path, pictures, redness):
    pytest.importorskip("zarr", reason="needs zarr")
    geopandas = pytest.importorskip("geopandas", reason="needs geopandas")
    (image,) = find_images(pictures / "00.png")
    spatial = SlideMapper(redness, **grouped(ome_zarr=True, geoparquet=True, **SETTINGS))
    assert len(run_cohort(spatial, [image], tmp_path / "out")) == 1
    outlines = json.loads((tmp_path / "out" / "00.geojson").read_text())["features"]
    table = geopandas.read_parquet(tmp_path / "out" / "00.geoparquet")
    assert [value.pop("Area µm^2") for value in (one["properties"]["measurements"] for one in outlines)] == list(
        table["area_um2"]
    )
    assert run_cohort(spatial, [image], tmp_path / "out") == []
    shutil.rmtree(tmp_path / "out" / "00.ome.zarr")
    assert len(run_cohort(spatial, [image], tmp_path / "out")) == 1
    run_cohort(SlideMapper(redness, **grouped(**SETTINGS)), [image], tmp_path / "out")
    assert not [*(tmp_path / "out").glob("*.ome.zarr"), *(tmp_path / "out").glob("*.geoparquet")]


@pytest.mark.parametrize(("name", "packages"), [("ome_zarr", "zarr"), ("geoparquet", "geopandas and pyarrow")])
def test_a_format_names_the_packages_that_it_lacks(monkeypatch, name, packages):
    monkeypatch.setattr("shared.writers.optional_formats.importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=f"{name} needs {packages}, not installed here: pip install"):
        Outputs(**{name: True})


def test_row_and_settings_are_those_of_the_mapper(tmp_path, pictures, mapper):
    (row,) = run_cohort(mapper, find_images(pictures / "00.png"), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "rows" / "00.json").read_text()) == row
    assert json.loads((tmp_path / "out" / "settings.json").read_text()) == mapper.settings()
    assert {name: table_of(tmp_path / "out")["00"][name] for name in ("slide", "attempts", "path")} == {
        "slide": "00",
        "attempts": "1",
        "path": str(pictures / "00.png"),
    }


def test_maps_of_other_settings_that_stay_are_warned_of(tmp_path, pictures, mapper, redness, caplog):
    for image in find_images(pictures)[:2]:
        run_cohort(mapper, [image], tmp_path / "out")
    assert "other settings" not in caplog.text
    other = SlideMapper(redness, **grouped(**SETTINGS | {"threshold": 0.25}))
    run_cohort(other, find_images(pictures / "00.png"), tmp_path / "out")
    (warning,) = [record.getMessage() for record in caplog.records if "other settings" in record.getMessage()]
    assert f"threshold: expected 0.25, found {mapper.settings()['threshold']}" in warning
    assert "all others stay" in warning


def test_an_image_that_is_gone_fails_alone(tmp_path, pictures, mapper):
    images = find_images(pictures)[:2]
    images[0].path.unlink()
    with pytest.raises(InferenceFailures, match=r"1 of 2 images failed:\n.*00\.png"):
        run_cohort(mapper, images, tmp_path / "out")
    assert table_of(tmp_path / "out")["01"]["status"] == "ok"


def test_classes_have_no_tissue_of_their_own(tmp_path, pictures):
    network = torch.nn.Conv2d(3, 3, 1)
    mapper = SlideMapper(network, **grouped(class_names=["background", "stroma", "tumour"], **SETTINGS))
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


def test_a_row_whose_process_was_killed_before_it_reached_the_table_is_in_it(tmp_path):
    """The next process finds the image finished, and has nothing to do."""
    store, image = RowStore(tmp_path), ImageInput(tmp_path / "a.png", "a")
    row = {"slide": "a", "status": "ok", "attempts": 1}
    store.write(row)
    tally = Tally(store, [image], 1)
    tally.add(image, Outcome(row, False))
    tally.close()
    assert table_of(tmp_path)["a"]["status"] == "ok"
    assert tally.result() == []
