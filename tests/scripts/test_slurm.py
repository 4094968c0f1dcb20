"""The SLURM jobs as SLURM starts them: several local processes with its variables, and its signal before the time is over."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from shared.inference.cohort.row_store import RowStore
from shared.networks import DeepLabV2
from shared.synthetic import DemoPlan, SlidePlan, write_demo

ROOT = Path(__file__).parents[2]
DEADLINE_S = 1800
NUM_SLIDES = 8
KEYS = ["--segmentation_backbone", "resnet10", "--image_size_px", "128", "--threshold", "0.5"]

pytestmark = pytest.mark.slow


@pytest.fixture
def cohort(tmp_path):
    """Slides, and weights that have learned nothing."""
    plans = [SlidePlan("test", 0.3 * (index % 2), (400 + 10 * index, 520)) for index in range(NUM_SLIDES)]
    write_demo(tmp_path / "data", DemoPlan(images={}, slides=plans))
    torch.save(DeepLabV2(backbone="resnet10", out_channels=2).state_dict(), tmp_path / "model.pt")
    (tmp_path / "bin").mkdir()
    scontrol = tmp_path / "bin/scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/scontrol.txt\n')
    scontrol.chmod(0o755)
    return tmp_path


def start(cohort, task):
    environment = os.environ | {
        "SLURM_ARRAY_TASK_ID": str(task),
        "SLURM_JOB_ID": f"4711{task}",
        "SLURM_CPUS_PER_TASK": "1",
        "SLURM_SUBMIT_DIR": str(ROOT),
        "PYTHON": sys.executable,
        "PATH": f"{cohort / 'bin'}:{os.environ['PATH']}",
        "BUNDLE": "camel",
        "MANIFEST": str(cohort / "data/slides.csv"),
        "OUT": str(cohort / "maps"),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    # SLURM runs a copy of the script from a folder of its own.
    job = cohort / f"job_{task}"
    job.write_bytes((ROOT / "scripts/slurm/map.sbatch").read_bytes())
    command = ["bash", job, "--checkpoint", cohort / "model.pt", *KEYS]
    log = (cohort / f"{task}.log").open("a")
    return subprocess.Popen(command, cwd=cohort, env=environment, stdout=log, stderr=log, start_new_session=True)


def wait_for(path, process):
    deadline = time.monotonic() + DEADLINE_S
    while not any(path.parent.glob(path.name)):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_tasks_share_the_slides_and_a_task_whose_time_is_over_is_queued_again(cohort):
    # It cannot be done before it is told to end: one slide is in other hands.
    with RowStore(cohort / "maps").claim(f"slide_{NUM_SLIDES - 1:02d}") as is_mine:
        assert is_mine
        first = start(cohort, 0)
        wait_for(cohort / "maps/*.ome.tif", first)
        os.kill(first.pid, signal.SIGUSR1)  # to the batch script alone
        assert first.wait(DEADLINE_S) == 0, (cohort / "0.log").read_text()
    assert (cohort / "scontrol.txt").read_text() == "requeue 47110\n"
    assert len(list((cohort / "maps").glob("*.ome.tif"))) < NUM_SLIDES

    tasks = [start(cohort, task) for task in range(2)]
    assert [task.wait(DEADLINE_S) for task in tasks] == [0, 0], (cohort / "0.log").read_text()
    with (cohort / "maps/slides.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == NUM_SLIDES
    assert {row["status"] for row in rows} <= {"ok", "no tissue"}
    assert (cohort / "scontrol.txt").read_text() == "requeue 47110\n"


@pytest.mark.parametrize("job", ["train", "map"])
def test_what_is_missing_is_named(job, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name not in ("BUNDLE", "OUT", "MANIFEST")}
    process = subprocess.run(
        ["bash", ROOT / f"scripts/slurm/{job}.sbatch"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert process.returncode != 0
    assert "BUNDLE=NAME of a folder in bundles/ is needed" in process.stderr


@pytest.mark.parametrize(
    ("overlays", "configs"),
    [
        ("", "bundles/camel/configs/train.json"),
        (
            "ebhi_seg features",
            "['bundles/camel/configs/train.json','bundles/camel/configs/ebhi_seg.json','bundles/camel/configs/features.json']",
        ),
    ],
)
def test_an_array_of_trainings(tmp_path, overlays, configs):
    """Each value of the key has its folder; a stand-in for Python says how it was started."""
    stand_in = tmp_path / "python"
    stand_in.write_text('#!/bin/sh\necho "$@"\n')
    stand_in.chmod(0o755)
    environment = os.environ | {"PYTHON": str(stand_in), "SLURM_ARRAY_TASK_ID": "3", "SLURM_CPUS_PER_TASK": "6"}
    environment |= {"SLURM_SUBMIT_DIR": str(ROOT), "BUNDLE": "camel", "OUT": "runs", "VARY": "fold", "OVERLAYS": overlays}
    said = subprocess.run(
        ["bash", ROOT / "scripts/slurm/train.sbatch", "--num_folds", "5"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    expected = "--output_dir runs/fold_3 --fold 3 --num_workers 6 --num_folds 5"
    assert said == f"-m monai.bundle run --config_file {configs} {expected}\n"


@pytest.mark.parametrize(("ending", "is_queued_again"), [("exit 0", False), ("exit 143", True)])
def test_a_command_that_ends_well_when_it_is_told_to_is_not_queued_again(tmp_path, ending, is_queued_again):
    """The command has ended before the shell asks for its status: sending the signal takes a while here."""
    (tmp_path / "command.sh").write_text(f"trap 'kill $!; {ending}' TERM\ntouch begun\nsleep 600 >/dev/null & wait $!\n")
    (tmp_path / "job.sh").write_text(
        f"""
        set -euo pipefail
        kill() {{ builtin kill "$@"; sleep 1; }}
        scontrol() {{ echo "$*"; }}
        . {ROOT}/scripts/slurm/until_the_limit.sh
        until_the_limit bash command.sh
        """
    )
    job = subprocess.Popen(
        ["bash", "job.sh"], cwd=tmp_path, env=os.environ | {"SLURM_JOB_ID": "4711"}, stdout=subprocess.PIPE, text=True
    )
    wait_for(tmp_path / "begun", job)
    job.send_signal(signal.SIGUSR1)
    said, _ = job.communicate(timeout=DEADLINE_S)
    assert job.returncode == 0
    assert said == ("requeue 4711\n" if is_queued_again else "")
