"""Files and data sets as MLflow has them: without a second copy of weights on the same disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag

# Smaller files are copied: one that a user edits in place stays in MLflow as it was.
LINKED_BYTES = 1_000_000
_CONTEXT = "mlflow.data.context"


def log_file(client: MlflowClient, run_id: str, path: Path) -> None:
    """Log a file or a folder to a run.

    Where MLflow keeps its artefacts on the disk that a large file is on, it gets a second name there (a hard link) instead of a
    second copy. A file that is replaced later, as all files of this project are, stays in MLflow as it was.
    """
    folder = _local_folder(client, run_id)
    if path.is_dir():
        client.log_artifacts(run_id, str(path), path.name)
    elif folder is None or path.stat().st_size < LINKED_BYTES or not link_file(path, folder / path.name):
        client.log_artifact(run_id, str(path))


def link_file(path: Path, name: Path) -> bool:
    """Give a file a second name, which may be that of another file so far; False where the file systems cannot."""
    try:
        name.parent.mkdir(parents=True, exist_ok=True)
        if name.exists() and name.samefile(path):
            return True
        name.unlink(missing_ok=True)
        os.link(path, name)
    except OSError:
        return False
    return True


def dataset_of(file: str | Path, context: str) -> dict[str, Any]:
    """A table of data, as `log_dataset` takes it: MLflow's entity, and what the run did with it.

    Args:
        file: a CSV; MLflow shows its name, its path, the beginning of its SHA-256 and its number of lines.
        context: such as ``training``.
    """
    file = Path(file)
    rows = max(0, len(file.read_bytes().splitlines()) - 1)
    return {
        "name": file.name,
        "digest": sha256(file)[:16],
        "source_type": "local",
        "source": f'{{"uri": "{file.absolute().as_uri()}"}}',
        "profile": f'{{"num_rows": {rows}}}',
        "context": context,
    }


def sha256(file: str | Path) -> str:
    """SHA-256 of a file's contents."""
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def log_dataset(client: MlflowClient, run_id: str, dataset: Mapping[str, Any]) -> None:
    """Log what `dataset_of` gives as an input of a run; the same one twice is one input."""
    entity = Dataset(**{name: value for name, value in dataset.items() if name != "context"})
    client.log_inputs(run_id, datasets=[DatasetInput(entity, [InputTag(_CONTEXT, dataset["context"])])])


def _local_folder(client: MlflowClient, run_id: str) -> Path | None:
    """Where the artefacts of a run are, if they are on a file system of this machine."""
    uri = str(client.get_run(run_id).info.artifact_uri)
    parts = urlparse(uri)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(url2pathname(parts.path))
    return Path(uri) if not parts.scheme else None
