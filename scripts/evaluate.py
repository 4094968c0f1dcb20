"""Scores finished tumour maps against masks or annotation files: pixels, AUC with and without background, FROC of lesions.

python scripts/evaluate.py --maps maps --manifest slides.csv --split test

--maps is a folder that scripts/infer.py has filled, with any bundle. The manifest's column `mask` names an image or an annotation
file of ImageScope, ASAP or QuPath; slides with label 0 need none. Writes metrics.json and slides.csv into --out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pandas as pd

from shared.data import TissueCache, load_manifest
from shared.engines.map_scores import MapScores
from shared.inference.cohort import SETTINGS_NAME
from shared.writers import atomic_path

COLUMNS = {
    "auc": "AUC",
    "precision": "Precision",
    "sensitivity": "Recall",
    "specificity": "Specificity",
    "f1": "F1",
    "iou": "IoU",
}


def threshold_of(maps: Path) -> float:
    """That of the run that made the maps."""
    try:
        return float(json.loads((maps / SETTINGS_NAME).read_text())["threshold"])
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{maps / SETTINGS_NAME} does not tell the maps' threshold ({error}): give --threshold") from error


def table(metrics: Mapping[str, Any]) -> str:
    """The scores for a person, in per cent."""
    lines = ["Pixels (%)".ljust(20) + "".join(f"{title:>13}" for title in COLUMNS.values())]
    for title, part in (("tissue only", "pixels_tissue"), ("with background", "pixels_all")):
        lines.append(title.ljust(20) + "".join(_cell(metrics[part][name]) for name in COLUMNS))
    lesions = metrics["lesions"]
    lines += ["", f"Slides, AUC of the tumour share (%){_cell(metrics['slides']['auc'])}"]
    lines.append(f"{lesions['num_lesions']} lesions, FROC (%)".ljust(35) + _cell(lesions["froc"]))
    for number, sensitivity in (lesions["sensitivity_at"] or {}).items():
        lines.append(f"  found at {number} false alarms a slide".ljust(35) + _cell(sensitivity))
    left_out = {"without a finished map": metrics["num_missing"], "without mask or label 0": metrics["num_without_truth"]}
    said = "".join(f"; {number} left out {reason}" for reason, number in left_out.items() if number)
    return "\n".join([*lines, "", f"{metrics['num_slides']} slides, threshold {metrics['threshold']:g}{said}"])


def _cell(share: float | None) -> str:
    return f"{'-':>13}" if share is None else f"{100 * share:13.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", type=Path, required=True, help="folder of the maps")
    parser.add_argument("--manifest", type=Path, required=True, help="of whole slides, with masks")
    parser.add_argument("--split", help="of the manifest: train, val or test; all rows without it")
    parser.add_argument("--out", type=Path, help="folder to write to (default: evaluation, in --maps)")
    parser.add_argument("--threshold", type=float, help="from which a pixel is tumour (default: that of the maps)")
    parser.add_argument("--froc_mpp", type=float, default=16.0, help="micrometres per pixel for lesions (default 16)")
    parser.add_argument("--tissue", type=Path, help="folder of tissue maps, kept for other runs (default: tissue, in --out)")
    parser.add_argument("--allow_missing", action="store_true", help="leave out slides that have no finished map")
    arguments = parser.parse_args()
    out = arguments.out or arguments.maps / "evaluation"
    try:
        threshold = arguments.threshold if arguments.threshold is not None else threshold_of(arguments.maps)
        records = load_manifest(arguments.manifest, split=arguments.split, require=())
        tissue = TissueCache(arguments.tissue or out / "tissue")
        scores = MapScores(arguments.maps, records, tissue, threshold, arguments.froc_mpp, arguments.allow_missing)
        metrics, rows = scores.run()
    except ValueError as error:
        sys.exit(f"error: {error}")
    with atomic_path(out / "metrics.json") as temporary:
        temporary.write_text(json.dumps(metrics, indent=2) + "\n")
    with atomic_path(out / "slides.csv") as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False)
    print(table(metrics))


if __name__ == "__main__":
    main()
