"""The trainings of a grid of alpha and beta, each scored on PatchCamelyon."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from shared.engines.run_record import trained_with
from shared.sweeps.child_process import run_child
from shared.writers.atomic import atomic_path

FOLDER = "patch_camelyon"
# Records next to the scores the folder of the patches to which they belong.
SOURCE = "source.json"
# Keys of the network, which patch_camelyon.json needs with the values of the training.
NETWORK_KEYS = ("backbone", "norm", "dense_stride", "mpp")


def score_on_patches(runs: Sequence[Path], bundle: Path, patches: Path) -> None:
    """Run the bundle's ``patch_camelyon.json`` for each training that has not been scored on these patches yet.

    Args:
        runs: folders of trainings.
        bundle: folder of the bundle that trained them.
        patches: folder of PatchCamelyon's files.

    Raises:
        RuntimeError: naming the trainings whose scoring failed, and their logs.
    """
    failed = []
    for run in tqdm(runs, desc="PatchCamelyon", unit="run", disable=None):
        folder = run / FOLDER
        if not math.isnan(patch_auc(run)) and json.loads((folder / SOURCE).read_text()) == str(patches.resolve()):
            continue
        folder.mkdir(exist_ok=True)
        (folder / "metrics.json").unlink(missing_ok=True)
        with atomic_path(folder / SOURCE) as temporary:
            temporary.write_text(json.dumps(str(patches.resolve())) + "\n")
        keys = {name: trained_with(run, name) for name in NETWORK_KEYS}
        options = {"config_file": bundle / "configs/patch_camelyon.json", "output_dir": run, "dataset_dir": patches, **keys}
        named = (text for name, value in options.items() if value is not None for text in (f"--{name}", str(value)))
        with (folder / "log.txt").open("a") as log:
            code = run_child([sys.executable, "-m", "monai.bundle", "run", *named], log)
        if code or math.isnan(patch_auc(run)):
            failed.append(f"{run.name}: exit status {code}, see {folder / 'log.txt'}")
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(runs)} runs could not be scored on PatchCamelyon:\n" + "\n".join(failed))


def patch_auc(run: Path) -> float:
    """The AUC of a training on PatchCamelyon; NaN if it was not scored, or if all patches are of one class."""
    file = run / FOLDER / "metrics.json"
    if not (file.is_file() and (run / FOLDER / SOURCE).is_file()):
        return math.nan
    (scores,) = json.loads(file.read_text())["images"].values()
    return math.nan if scores["auc"] is None else float(scores["auc"])
