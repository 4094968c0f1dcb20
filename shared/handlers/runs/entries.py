"""One entry of what is logged, brought to a run."""

from __future__ import annotations

from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from ..tracking_backlog import Entry
from .files import log_dataset, log_file

# What an entry may hold several of.
_NAMED = ("metrics", "params", "tags")


def halves(entry: Entry) -> list[Entry]:
    """An entry of several metrics, parameters or tags as two; one that cannot be parted alone.

    >>> halves({"metrics": {"a": 1, "b": 2, "c": 3}, "step": 4})
    [{'metrics': {'a': 1}, 'step': 4}, {'metrics': {'b': 2, 'c': 3}, 'step': 4}]
    """
    kind = next((kind for kind in _NAMED if len(entry.get(kind, ())) > 1), None)
    if kind is None:
        return [entry]
    named = list(entry[kind].items())
    return [{**entry, kind: dict(part)} for part in (named[: len(named) // 2], named[len(named) // 2 :])]


def names_of(entry: Entry) -> set[tuple[str, ...]]:
    """Stage, kind and name of each metric, parameter and tag of an entry."""
    return {(str(entry.get("stage")), kind, name) for kind in _NAMED for name in entry.get(kind, ())}


def apply_entry(client: MlflowClient, run_id: str, entry: Entry, folder: Path) -> None:
    """Bring metrics, parameters, tags, a file, a data set or a status to a run.

    Args:
        client: of the server or database.
        run_id: of the run.
        entry: with ``time_ms``, when it was logged, and one of ``metrics`` and ``step``, ``params``, ``tags``, ``artifact``,
            ``dataset``, ``status``.
        folder: that the paths of artefacts begin at.
    """
    now = entry["time_ms"]
    if "metrics" in entry:
        metrics = [Metric(name, value, now, entry["step"]) for name, value in entry["metrics"].items()]
        client.log_batch(run_id, metrics=metrics)
    elif "params" in entry:
        # A parameter is logged once in a run's life: MLflow refuses a second value.
        logged = client.get_run(run_id).data.params
        new = [Param(name, value) for name, value in entry["params"].items() if name not in logged]
        for start in range(0, len(new), 100):
            client.log_batch(run_id, params=new[start : start + 100])
    elif "artifact" in entry:
        log_file(client, run_id, folder / entry["artifact"])
    elif "tags" in entry:
        client.log_batch(run_id, tags=[RunTag(name, value) for name, value in entry["tags"].items()])
    elif "tag" in entry:  # of a backlog of an earlier version
        client.set_tag(run_id, entry["tag"], entry["value"])
    elif "dataset" in entry:
        log_dataset(client, run_id, entry["dataset"])
    elif entry["status"] == "RUNNING":
        client.update_run(run_id, "RUNNING")
    else:
        client.set_terminated(run_id, entry["status"], end_time=now)
