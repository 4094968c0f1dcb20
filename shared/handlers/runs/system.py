"""CPU, memory, disk, network and GPU of a training's machine, in MLflow."""

from __future__ import annotations

import importlib.util
from typing import Any


def start_system_metrics(uri: str, run_id: str) -> Any:
    """Log the machine's use to a run, every ten seconds, from a thread of MLflow's own; its ``finish`` ends that.

    ``MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL`` changes the seconds. A run that is resumed continues with the next step.

    Raises:
        ValueError: where the package psutil is not installed.
    """
    if importlib.util.find_spec("psutil") is None:
        raise ValueError("system_metrics needs the package psutil: pip install psutil (and nvidia-ml-py for GPUs)")
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monitor = SystemMetricsMonitor(run_id, resume_logging=True, tracking_uri=uri)
    monitor.start()
    return monitor
