"""A small process that outlives a training and records in MLflow that it was killed.

Of a process that ends by kill -9, by the kernel for want of memory or by a crash of native code no other process could record
that: its runs would be running for ever. Until then this process imports nothing but the standard library and sleeps.

It reads lines of JSON: a run that is watched, or the id of one that has ended by itself.
"""

from __future__ import annotations

import json
import os
import select
import sys
from pathlib import Path
from typing import Any

PROCESS_TAG = "process"
PARENT_TAG = "mlflow.parentRunId"
_POLL_S = 1.0


def main() -> None:
    parent = int(sys.argv[1])
    watched: dict[str, dict[str, Any]] = {}
    begun = b""
    while True:
        # Processes that were forked from the training may keep the pipe open a while.
        if not select.select([0], [], [], _POLL_S)[0]:
            if os.getppid() != parent:
                break
            continue
        read = os.read(0, 65536)
        if not read:
            break
        *lines, begun = (begun + read).split(b"\n")
        for line in lines:
            entry = json.loads(line)
            if "ended" in entry:
                watched.pop(entry["ended"], None)
            else:
                watched[entry["run_id"]] = entry
    for entry in watched.values():
        mark_killed(**entry)


def mark_killed(uri: str, run_id: str, process: str, database: str | None) -> None:
    """Mark a run, and those of its stages that are running, as killed; not one that another process continues.

    Args:
        uri: of MLflow.
        run_id: of the parent run.
        process: which has been killed, as the run's tag names it.
        database: a file that must be there still; None for a server.
    """
    if database is not None and not Path(database).is_file():
        return
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    run = client.get_run(run_id)
    if run.data.tags.get(PROCESS_TAG) != process or run.info.status != "RUNNING":
        return
    for stage in client.search_runs([run.info.experiment_id], f"tags.`{PARENT_TAG}` = '{run_id}'"):
        # A sweep's trainings are below it, and have their own watchdogs.
        if stage.info.status == "RUNNING" and PROCESS_TAG not in stage.data.tags:
            client.set_terminated(stage.info.run_id, "KILLED")
    if client.get_run(run_id).data.tags.get(PROCESS_TAG) == process:
        client.set_terminated(run_id, "KILLED")


if __name__ == "__main__":
    # Python puts this folder first, and its code.py would be taken for that of the standard library. Python 3.10 knows no -P.
    sys.path[:] = [folder for folder in sys.path if folder != str(Path(__file__).parent)]
    main()
