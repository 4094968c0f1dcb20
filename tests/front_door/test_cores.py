"""How many processes read: as many as there are cores for them."""

import subprocess
import sys

import pytest

from shared.front_door import reading_processes


@pytest.mark.parametrize(
    ("cores", "processes_a_machine", "expected"),
    [(1, None, 0), (2, None, 2), (3, None, 3), (64, None, 8), (64, "4", 8), (8, "4", 2), (4, "4", 0), (2, "4", 0)],
)
def test_as_many_read_as_there_are_cores_for_each_process(cores, processes_a_machine, expected, monkeypatch):
    monkeypatch.setattr("shared.front_door.cores.available_cores", lambda: cores)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if processes_a_machine is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes_a_machine)
    assert reading_processes() == expected


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux says which cores a process has")
def test_a_process_that_is_held_to_one_core_reads_itself():
    says = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); "
    says += "from shared.front_door import reading_processes; print(reading_processes())"
    process = subprocess.run([sys.executable, "-c", says], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "0"
