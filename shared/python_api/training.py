"""A training of a bundle, in a separate process."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from .code_of_bundle import load_code
from .network import Network, load_network

_FOR_USERS, _ERROR = re.compile(r"error: "), re.compile(r"[\w.]+(Error|Exception|Interrupt|Exit|Failures)(: |$)")
LOG, WEIGHTS, METRICS = "log.txt", "model.pt", Path("evaluation") / "metrics.json"
# Keys of the same name that mean something else in inference.json, or what need not be as in training.
_OF_TRAINING = frozenset({"batch_size", "num_workers", "device", "dataset_dir", "manifest", "output_dir", "threshold", "split"})


@dataclass(frozen=True)
class Training:
    """A training that has ended. `train` makes it.

    Attributes:
        bundle: folder of the bundle.
        folder: all that the training wrote, ``model.pt`` and ``log.txt`` among it.
        overlays: configurations after ``train.json``.
        keys: of ``train.json``, as they were given.
        scores: of the test images as in ``evaluation/metrics.json``, the names of groups before those of scores, with dots;
            empty where there was nothing to score.
    """

    bundle: Path
    folder: Path
    overlays: tuple[str, ...]
    keys: dict[str, Any]
    scores: dict[str, float | None]

    @property
    def checkpoint(self) -> Path:
        """The trained weights."""
        return self.folder / WEIGHTS

    def network(self, **keys: Any) -> Network:
        """The trained network, with the overlays and keys of the training, see `load_network`."""
        known = json.loads((self.bundle / "configs" / "inference.json").read_text(encoding="utf-8"))
        own = {key: value for key, value in self.keys.items() if key.split("::")[0] in known and key not in _OF_TRAINING}
        return load_network(self.bundle, self.checkpoint, self.overlays, **(own | keys))


def train(
    bundle: str | Path,
    manifest: str | Path,
    overlays: Sequence[str | Path] = (),
    output_dir: str | Path | None = None,
    **keys: Any,
) -> Training:
    """Train a bundle to the end, in a separate process; its output goes to ``log.txt`` in its folder.

    The same call resumes where an interrupted one stopped, and returns at once what is finished.

    Args:
        bundle: its folder.
        manifest: of the images or slides, see the bundle's documentation.
        overlays: configurations after ``train.json``: names in the bundle's ``configs``, such as ``features``, or paths.
        output_dir: gets the model and everything else; None: ``runs/<bundle>`` in the working directory.
        keys: of ``train.json`` with their values, such as ``num_epochs=20``. Nested ones as in ``**{"cmil::num_epochs": 5}``.

    Raises:
        ValueError: for a bundle, manifest or overlay that is not there.
        RuntimeError: if the training ends without a model, with what it said last.
    """
    bundle, manifest = Path(bundle).expanduser().absolute(), Path(manifest).expanduser().absolute()
    load_code(bundle, "shared.front_door")
    if not manifest.is_file():
        raise ValueError(f"the manifest {manifest} does not exist")
    folder = (Path("runs") / bundle.name if output_dir is None else Path(output_dir).expanduser()).absolute()
    files = [str(bundle / "configs" / "train.json"), *(str(_overlay(bundle, overlay)) for overlay in overlays)]
    # Features and the like are kept next to the manifest.
    values = {"dataset_dir": str(manifest.parent)} | keys | {"manifest": str(manifest), "output_dir": str(folder)}
    _run(values | {"config_file": files}, folder)
    if not (folder / WEIGHTS).is_file():
        raise RuntimeError(f"the training wrote no {WEIGHTS} in {folder}: see {folder / LOG}")
    metrics = json.loads((folder / METRICS).read_text(encoding="utf-8")) if (folder / METRICS).is_file() else {}
    return Training(bundle, folder, tuple(map(str, overlays)), dict(keys), _leaves(metrics))


def _overlay(bundle: Path, overlay: str | Path) -> Path:
    named = bundle / "configs" / f"{overlay}.json"
    path = named if named.is_file() else Path(overlay).expanduser().absolute()
    if not path.is_file():
        raise ValueError(f"the overlay {overlay} is neither a file nor the name of one in {named.parent}: there is no {named}")
    return path


def _run(arguments: dict[str, Any], folder: Path) -> None:
    """``python -m monai.bundle run`` with these arguments; Python's values as they are, through a file."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="training-") as temporary, (folder / LOG).open("a+", encoding="utf-8") as log:
        file = Path(temporary) / "arguments.json"
        file.write_text(json.dumps(arguments, default=_plain), encoding="utf-8")
        begin = log.seek(0, 2)
        command = [sys.executable, "-m", "monai.bundle", "run", "--args_file", str(file)]
        process = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False)
        if process.returncode:
            log.seek(begin)
            raise RuntimeError(f"the training failed: {_last_message(log.read())} ({folder / LOG} has the full log)")


def _plain(value: Any) -> Any:
    """A value that JSON does not know: NumPy's numbers as Python's, what else there is, such as a path, as its text.

    >>> json.dumps([np.int64(5), np.bool_(False), Path("a")], default=_plain)
    '[5, false, "a"]'
    """
    return value.item() if isinstance(value, np.generic) else str(value)


def _last_message(text: str) -> str:
    """The message of a failed run for its user, or else the first error of its traceback, which is the cause of the others."""
    lines = [line for line in text.splitlines() if line.strip()]
    for begins in (_FOR_USERS, _ERROR):
        begin = next((index for index, line in enumerate(lines) if begins.match(line)), None)
        if begin is not None:
            return _FOR_USERS.sub("", "\n".join(lines[begin:]) if begins is _FOR_USERS else lines[begin])
    return lines[-1] if lines else "it printed no message"


def _leaves(scores: dict[str, Any], group: str = "") -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name, value in scores.items():
        if isinstance(value, dict):
            found |= _leaves(value, f"{group}{name}.")
        elif value is None or isinstance(value, int | float):
            found[f"{group}{name}"] = value
    return found
