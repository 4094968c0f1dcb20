"""The checks of a packed bundle, as the public model zoo and a user make them: on the zip alone."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from .archive import checksum, unpack
from .model_info import read_model_info
from .zoo_process import Result, Task, run_tasks

SCHEMA = Path(__file__).resolve().parents[2] / "tests" / "packing" / "meta_schema_20240725.json"
# In this order: the data come before what reads them.
CHECKS = (
    "directory",
    "licence",
    "changelog",
    "metadata",
    "weights",
    "net_in_out",
    "torchscript",
    "shipped",
    "onnx",
    "trial_data",
    "train",
    "properties",
    "inference",
)


def verify(archives: Sequence[Path], model_info: Path, schema: Path = SCHEMA) -> list[Result]:
    """Unpack each zip into an empty folder and check what lies there, with nothing else within reach.

    Args:
        archives: ``<name>_v<version>.zip``.
        model_info: where a version that is listed must have this zip's checksum.
        schema: of ``metadata.json``, under the name by which that refers to it.

    Returns:
        a result for each check of each zip; `CHECKS`, and ``archive`` before them, which a damaged zip does not pass.
    """
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="verifying-") as temporary:
        tasks: list[Task] = []
        for index, archive in enumerate(archives):
            name = archive.stem
            try:
                _check_listed(archive, model_info)
                folder = unpack(archive, Path(temporary, str(index)))
            except ValueError as error:
                results.append(Result(name, "archive", str(error), 0.0))
                continue
            results.append(Result(name, "archive", "", 0.0))
            tasks += tasks_of(name, folder, schema)
        return results + (run_tasks(tasks) if tasks else [])


def tasks_of(name: str, folder: Path, schema: Path = SCHEMA) -> list[Task]:
    """All checks of one unpacked bundle; their output stays in its folder."""
    arguments = {
        "metadata": {"schema": str(schema.resolve())},
        "train": {"output_dir": "trial"},
        "properties": {"output_dir": "trial"},
        "inference": {"output_dir": "maps"},
    }
    return [Task(name, folder, check, arguments.get(check, {})) for check in CHECKS]


def _check_listed(archive: Path, model_info: Path) -> None:
    if not archive.is_file():
        raise ValueError(f"{archive} does not exist")
    listed = read_model_info(model_info).get(archive.stem)
    found = checksum(archive)
    if listed is not None and listed["checksum"] != found:
        raise ValueError(f"{archive} has the checksum {found}, but {model_info} lists {listed['checksum']}: it was altered")
