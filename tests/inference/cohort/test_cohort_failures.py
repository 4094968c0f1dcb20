"""Devices and disks that fail while a cohort is mapped: whose fault it is, and what is left to be done."""

import errno
from dataclasses import replace

import pytest
import torch

from shared.inference import ImageInput, InferenceFailures, SlideMapper, find_images, run_cohort
from shared.inference.cohort.worker import MAX_DEATHS, CohortWorker
from shared.inference.device_errors import DeviceFailure
from shared.inference.outputs.slide_results import RESULT_SUFFIXES
from shared.writers import StorageError
from tests.inference.cohort_processes import SETTINGS, start, table_of
from tests.inference.flat_options import grouped


class Nothing:
    """A mapper without settings."""

    def settings(self):
        return {}

    def prepare(self, image):
        pass


def wrapped(error):
    """As a compiled network, or a configuration's item, raises it."""
    outer = RuntimeError("backend failed")
    outer.__cause__ = error
    return outer


@pytest.mark.slow
@pytest.mark.parametrize("num_working", [0, 1])
def test_a_device_that_fails_dooms_no_image_of_a_neighbour(tmp_path, pictures, num_working):
    """A bad process, started again and again next to a healthy one that was there before; forked, as importing is slow."""
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
    class Failing(Nothing):
        def map_image(self, image, output_dir, title=""):
            raise error

    image, worker = ImageInput(tmp_path / "a.png", "a"), CohortWorker(Failing(), tmp_path)
    if is_of_device:
        with pytest.raises(DeviceFailure, match=r"has stopped working .*a\.png, which is left unfinished"):
            worker.attempt(image, known=None)
    else:
        assert worker.attempt(image, known=None).row["status"] == "failed"
    row = worker.store.read("a")
    assert (row["status"], row["attempts"]) == (("unfinished", 0) if is_of_device else ("failed", 1))


def test_an_image_at_which_devices_fail_that_had_worked_is_given_up(tmp_path):
    class Lethal(Nothing):
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
    assert outcome.row["reason"].startswith("the devices of 3 processes that had mapped other images failed on it: ")
    # In the next run it is tried again.
    with pytest.raises(DeviceFailure):
        CohortWorker(Lethal(), tmp_path).attempt(lethal, known=outcome.row)


def test_a_full_disk_ends_the_run_and_fails_no_image(tmp_path, pictures, redness):
    """The image stays unfinished and without files; with space again the same call goes on from there."""
    out, found = tmp_path / "out", find_images(pictures)

    class Full(SlideMapper):
        def compute_image(self, image, output_dir, title=""):
            computed = super().compute_image(image, output_dir, title)
            return replace(computed, results=fail) if image.name == "02" else computed

    def fail():
        raise StorageError(errno.ENOSPC, f"{out} cannot be written: the disk is full.")

    with pytest.raises(StorageError, match="the disk is full"):
        run_cohort(Full(redness, **grouped(**SETTINGS)), found, out)
    assert {name: row["status"] for name, row in table_of(out).items()} == {"00": "ok", "01": "ok"}
    assert sorted(path.name for path in out.glob("0*.*")) == [f"0{i}{end}" for i in (0, 1) for end in sorted(RESULT_SUFFIXES)]
    rows = run_cohort(SlideMapper(redness, **grouped(**SETTINGS)), found, out)
    assert len(rows) == 10
    assert {(row["status"], row["attempts"]) for row in rows} == {("ok", 1)}


def test_a_file_that_is_too_large_is_one_image_s_own_failure(tmp_path, pictures, redness):
    class Limited(SlideMapper):
        def compute_image(self, image, output_dir, title=""):
            if image.name == "02":
                raise StorageError(errno.EFBIG, "02 cannot be written: the file is larger than the system allows.")
            return super().compute_image(image, output_dir, title)

    with pytest.raises(InferenceFailures, match="1 of 12 images failed"):
        run_cohort(Limited(redness, **grouped(**SETTINGS)), find_images(pictures), tmp_path / "out")
