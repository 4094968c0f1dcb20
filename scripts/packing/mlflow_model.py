"""A packed bundle, logged to the MLflow run of its training as a model that can be registered, loaded and served."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow import MlflowClient
from mlflow.entities import RunInfo
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types.schema import Schema, TensorSpec

from .archive import unpack
from .contents import TRACKING

CODE = Path(__file__).with_name("logged_model.py")
NAME = "model"
EXAMPLE_PX = 64


def log_model(archive: Path, training: Path, registered_name: str | None = None) -> str:
    """Log a packed bundle to the run of its training.

    Args:
        archive: zip of the bundle.
        training: output folder, whose ``mlflow.json`` names run and server; ``MLFLOW_TRACKING_URI`` goes before that server.
        registered_name: of the model of which this becomes a new version; None to register nothing.

    Returns:
        the address that MLflow loads it by: ``runs:/<run>/model``, or ``models:/<name>/<version>``.

    Raises:
        ValueError: if the training has no run in MLflow.
    """
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    uri, run = _run_of(training)
    client = MlflowClient(uri)
    with tempfile.TemporaryDirectory(prefix="model-") as temporary:
        folder = unpack(archive, Path(temporary) / "packed")
        saved = Path(temporary) / NAME
        save_model(folder, saved)
        client.log_artifacts(run.run_id, str(saved), NAME)
    return f"runs:/{run.run_id}/{NAME}" if registered_name is None else _register(client, run, registered_name)


def save_model(bundle: Path, path: Path) -> None:
    """Write an unpacked bundle as MLflow's models are written, with signature, input example and requirements."""
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    mlflow.pyfunc.save_model(
        str(path),
        python_model=str(CODE),
        artifacts={"bundle": str(bundle)},
        signature=ModelSignature(
            inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3))]),
            outputs=Schema([TensorSpec(np.dtype(np.float32), _output_shape(metadata))]),
        ),
        input_example=np.random.default_rng(0).integers(0, 256, (1, EXAMPLE_PX, EXAMPLE_PX, 3), dtype=np.uint8),
        pip_requirements=_requirements(metadata),
        metadata={name: metadata[name] for name in ("name", "version", "shared_version", "intended_use")},
    )


def _output_shape(metadata: dict[str, Any]) -> tuple[int, ...]:
    classes = metadata["network_data_format"]["outputs"]["pred"]["num_channels"]
    return (-1, -1, -1) if classes <= 2 else (-1, classes, -1, -1)


def _requirements(metadata: dict[str, Any]) -> list[str]:
    versions = {"torch": metadata["pytorch_version"], "monai": metadata["monai_version"], "numpy": metadata["numpy_version"]}
    return [f"{name}=={version}" for name, version in {**versions, **metadata["required_packages_version"]}.items()]


def _run_of(training: Path) -> tuple[str, RunInfo]:
    note = training / TRACKING
    if not note.is_file():
        raise ValueError(f"{note} does not exist: expected the note of a training that was logged to MLflow (tracking::enabled)")
    saved = json.loads(note.read_text())
    uri = os.environ.get("MLFLOW_TRACKING_URI") or saved["tracking_uri"]
    try:
        return uri, MlflowClient(uri).get_run(saved["run_id"]).info
    except MlflowException as error:
        raise ValueError(f"{note}: MLflow at {uri} has no run {saved['run_id']}: {error}") from error


def _register(client: MlflowClient, run: RunInfo, name: str) -> str:
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version = client.create_model_version(name, f"{run.artifact_uri}/{NAME}", run.run_id)
    return f"models:/{name}/{version.version}"
