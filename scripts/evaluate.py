"""Scores finished maps against masks or annotation files.

python scripts/evaluate.py --maps maps --manifest slides.csv --split test

--maps is a folder that scripts/infer.py has filled, with any bundle. The manifest's column `mask` names an image or an annotation
file of ImageScope, ASAP or QuPath; slides with label 0 need none. Where annotations are of several classes, --tumour_classes (or
the column of that name) says which are tumour. Writes metrics.json and slides.csv into --out.

Maps of tumour: pixels, AUC with and without background, FROC of lesions. As in CAMELYON16, regions of isolated tumour cells
(longest axis below 200 um) are no lesions; the table says how many there are. Without a lesion there is no FROC.

Maps of several classes (class_names in their settings.json): accuracies, F1, IoU and BACH score of the likeliest class, scores of
each class, the confusion matrix, and the AUC of all other classes against the first one. Annotations are of these class names,
pixels of a mask image their indices. Glass is of the first class whatever the map says, and counts "with background" alone. FROC
is for maps of tumour only.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.preparation.annotation_options import add_annotation_options
from shared.front_door import begin_script


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", type=Path, required=True, help="folder of the maps")
    parser.add_argument("--manifest", type=Path, required=True, help="of whole slides, with masks")
    parser.add_argument("--split", help="of the manifest: train, val or test; all rows without it")
    parser.add_argument("--out", type=Path, help="folder to write to (default: evaluation, in --maps)")
    parser.add_argument("--threshold", type=float, help="from which a pixel is tumour (default: that of the maps)")
    parser.add_argument("--froc_mpp", type=float, help="micrometres per pixel for lesions (default 16)")
    add_annotation_options(parser)
    parser.add_argument(
        "--tissue", type=Path, help="folder of tissue masks, found as for the maps (default: the maps' own, or tissue in --out)"
    )
    parser.add_argument("--allow_missing", action="store_true", help="leave out slides that have no finished map")
    return parser.parse_args()


if __name__ == "__main__":
    # Before torch and MONAI are imported, which takes seconds: --help, and what is wrong with the options.
    begin_script()
    parsed()

import pandas as pd

from shared.data import TissueCache, load_manifest
from shared.data.record import Record
from shared.evaluation.maps.cohort import MapCohort
from shared.evaluation.maps.lesion_froc import ISOLATED_UM
from shared.evaluation.maps.report import FROC_MPP, class_map_report, tumour_map_report
from shared.evaluation.table import score_blocks
from shared.inference.cohort.cohort import SETTINGS_NAME
from shared.writers import atomic_path

COLUMNS = {
    "auc": "AUC",
    "precision": "Precision",
    "sensitivity": "Recall",
    "specificity": "Specificity",
    "f1": "F1",
    "iou": "IoU",
}
PARTS = (("tissue only", "pixels_tissue"), ("with background", "pixels_all"))
# Metrics, and a row per slide.
Report = tuple[dict[str, Any], list[dict[str, Any]]]


def settings_of(maps: Path) -> dict[str, Any]:
    """Those of the run that made the maps; none where the file cannot be read."""
    try:
        return dict(json.loads((maps / SETTINGS_NAME).read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def tissue_of(settings: Mapping[str, Any], given: Path | None, otherwise: Path) -> TissueCache:
    """The slides' tissue as the maps' run found it, edited masks among it where their folder is at hand."""
    used = settings.get("tissue_dir")
    folder = given or (Path(used) if used is not None and Path(used).is_dir() else otherwise)
    kept = {name: settings[f"tissue_{name}"] for name in ("method", "mpp") if settings.get(f"tissue_{name}") is not None}
    return TissueCache(folder, **kept)


def tumour_report(arguments: argparse.Namespace, settings: Mapping[str, Any], tissue: TissueCache) -> Report:
    """Of maps of tumour, at the threshold that is asked for or with which they were made."""
    threshold = arguments.threshold
    if threshold is None:
        if settings.get("threshold") is None:
            raise ValueError(f"{arguments.maps / SETTINGS_NAME} does not tell the maps' threshold: give --threshold")
        threshold = float(settings["threshold"])
    cohort = MapCohort(arguments.maps, _records(arguments), tissue, allow_missing=arguments.allow_missing)
    return tumour_map_report(cohort, threshold, FROC_MPP if arguments.froc_mpp is None else arguments.froc_mpp)


def class_report(arguments: argparse.Namespace, settings: Mapping[str, Any], tissue: TissueCache) -> Report:
    """Of maps of several classes."""
    for name in ("threshold", "froc_mpp", "tumour_classes"):
        if getattr(arguments, name) is not None:
            raise ValueError(f"--{name} is for maps of tumour, and those in {arguments.maps} are of several classes")
    names = settings["class_names"]
    cohort = MapCohort(arguments.maps, _records(arguments, len(names)), tissue, names, arguments.allow_missing)
    return class_map_report(cohort, str(settings.get("network", "Maps")))


def _records(arguments: argparse.Namespace, num_classes: int = 2) -> list[Record]:
    return load_manifest(
        arguments.manifest,
        split=arguments.split,
        require=(),
        num_classes=num_classes,
        tumour_classes=arguments.tumour_classes,
        annotation_frame=arguments.annotation_frame,
    )


def tumour_table(metrics: Mapping[str, Any]) -> list[str]:
    """The scores of maps of tumour for a person, in per cent."""
    lesions = metrics["lesions"]
    lines = [*_pixel_lines("Pixels (%)", metrics), "", f"Slides, AUC of the tumour share (%){_cell(metrics['slides']['auc'])}"]
    lines.append(f"{lesions['num_lesions']} lesions, FROC (%)".ljust(35) + _cell(lesions["froc"]))
    for number, sensitivity in (lesions["sensitivity_at"] or {}).items():
        lines.append(f"  found at {number} false alarms a slide".ljust(35) + _cell(sensitivity))
    if lesions.get("num_isolated"):
        lines.append(f"  {lesions['num_isolated']} of isolated tumour cells (below {ISOLATED_UM} um) do not count")
    return [*lines, "", f"{metrics['num_slides']} slides, threshold {metrics['threshold']:g}{_left_out(metrics)}"]


def class_table(metrics: Mapping[str, Any]) -> list[str]:
    """The scores of maps of several classes for a person, in per cent."""
    names = metrics["class_names"]
    # Those of tumour have lines of their own.
    blocks = score_blocks({kind: metrics[kind] for kind in ("class_pixels", "class_pixels_all", "classes")})
    lines = [*blocks, *_confusion_lines(names, metrics["confusion"]), ""]
    lines += [*_pixel_lines(f"Not {names[0]} (%)", metrics), ""]
    absent = ", ".join(metrics["classes_without_truth"])
    said = f"; no pixel of a mask is {absent}" if absent else ""
    return [*lines, f"{metrics['num_slides']} slides; tissue only, unless said otherwise{_left_out(metrics)}{said}"]


def _pixel_lines(title: str, metrics: Mapping[str, Any]) -> list[str]:
    lines = [title.ljust(20) + "".join(f"{column:>13}" for column in COLUMNS.values())]
    return lines + [name.ljust(20) + "".join(_cell(metrics[part][column]) for column in COLUMNS) for name, part in PARTS]


def _confusion_lines(names: Sequence[str], confusion: Sequence[Sequence[int]]) -> list[str]:
    """Of each true class the shares that were given to each class."""
    width = max(15, *(len(name) + 2 for name in names))
    lines = ["True class, % given to".ljust(width + 9) + "".join(f"{name:>{width}}" for name in names) + f"{'Pixels':>{width}}"]
    for name, counts in zip(names, confusion, strict=True):
        total = sum(counts)
        cells = (f"{'-' if not total else format(100 * count / total, '.1f'):>{width}}" for count in counts)
        lines.append(name.ljust(width + 9) + "".join(cells) + f"{total:>{width}}")
    return lines


def _left_out(metrics: Mapping[str, Any]) -> str:
    left_out = {"without a finished map": metrics["num_missing"], "without mask or label 0": metrics["num_without_truth"]}
    return "".join(f"; {number} left out {reason}" for reason, number in left_out.items() if number)


def _cell(share: float | None) -> str:
    return f"{'-':>13}" if share is None else f"{100 * share:13.1f}"


def main() -> None:
    begin_script()
    arguments = parsed()
    out = arguments.out or arguments.maps / "evaluation"
    try:
        settings = settings_of(arguments.maps)
        tissue = tissue_of(settings, arguments.tissue, out / "tissue")
        has_classes = bool(settings.get("class_names"))
        metrics, rows = (class_report if has_classes else tumour_report)(arguments, settings, tissue)
    except ValueError as error:
        sys.exit(f"error: {error}")
    with atomic_path(out / "metrics.json") as temporary:
        temporary.write_text(json.dumps(metrics, indent=2) + "\n")
    with atomic_path(out / "slides.csv") as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False)
    print("\n".join((class_table if has_classes else tumour_table)(metrics)))


if __name__ == "__main__":
    main()
