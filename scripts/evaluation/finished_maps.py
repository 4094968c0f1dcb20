"""Scores of finished maps, of tumour or of several classes: files for other programs, a table for a person."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from shared.data import TissueCache, load_manifest
from shared.data.record import Record
from shared.evaluation.maps.agreement import compare_maps
from shared.evaluation.maps.cohort import MapCohort
from shared.evaluation.maps.lesion_froc import ISOLATED_UM
from shared.evaluation.maps.map_folder import MapFolder, slide_name
from shared.evaluation.maps.picture_maps import PictureMaps
from shared.evaluation.maps.report import FROC_MPP, class_map_report, tumour_map_report
from shared.evaluation.table import score_blocks
from shared.inference.cohort.finished import fingerprint
from shared.inference.cohort.folder_settings import SETTINGS_NAME
from shared.inference.cohort.row_store import TABLE_NAME
from shared.inference.inputs import ImageInput
from shared.writers import atomic_path, check_inputs_stay

logger = logging.getLogger(__name__)

COLUMNS = {
    "auc": "AUC",
    "precision": "Precision",
    "sensitivity": "Recall",
    "specificity": "Specificity",
    "f1": "F1",
    "iou": "IoU",
}
# Of maps of tumour.
SLIDE_COLUMNS = {"mean_slide_auc": "AUC, per slide", "mean_slide_iou": "IoU, per slide"}
CLASS_KINDS = ("class_pixels", "class_pixels_all", "class_pixels_of_slides", "class_pixels_all_of_slides", "classes")
PARTS = (("tissue only", "pixels_tissue"), ("with background", "pixels_all"))
# Files with a row per slide, and with the metrics.
SCORES = ("slides.csv", "metrics.json")
COMPARED = ("compared_slides.csv", "comparison.json")
# Metrics, and a row per slide.
Report = tuple[dict[str, Any], list[dict[str, Any]]]


def settings_of(maps: Path) -> dict[str, Any]:
    """Settings of the run that made the maps; empty if the file cannot be read."""
    try:
        return dict(json.loads((maps / SETTINGS_NAME).read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def tissue_of(settings: Mapping[str, Any], given: Path | None, otherwise: Path) -> TissueCache:
    """The slides' tissue as the maps' run found it, edited masks among it if their folder is available.

    Raises:
        ValueError: if the given folder is not there: edited masks in the one that is meant would not be used.
    """
    if given is not None and not given.is_dir():
        raise ValueError(f"--tissue {given}: expected a folder of tissue masks, found none of this name; nothing was written")
    used = settings.get("tissue_dir")
    folder = given or (Path(used) if used is not None and Path(used).is_dir() else otherwise)
    kept = {name: settings[f"tissue_{name}"] for name in ("method", "mpp") if settings.get(f"tissue_{name}") is not None}
    return TissueCache(folder, **kept)


def tumour_report(arguments: argparse.Namespace, settings: Mapping[str, Any], tissue: TissueCache) -> Report:
    """Report on maps of tumour, at the given threshold or that with which they were made."""
    threshold = _threshold(arguments, settings)
    cohort = MapCohort(arguments.maps, _records(arguments), tissue, allow_missing=arguments.allow_missing)
    return tumour_map_report(cohort, threshold, FROC_MPP if arguments.froc_mpp is None else arguments.froc_mpp)


def _threshold(arguments: argparse.Namespace, settings: Mapping[str, Any]) -> float:
    if arguments.threshold is not None:
        return float(arguments.threshold)
    if settings.get("threshold") is None:
        raise ValueError(f"{arguments.maps / SETTINGS_NAME} does not state the maps' threshold: give --threshold")
    return float(settings["threshold"])


def class_report(arguments: argparse.Namespace, settings: Mapping[str, Any], tissue: TissueCache) -> Report:
    """Report on maps of several classes."""
    for name in ("threshold", "froc_mpp", "tumour_classes"):
        if getattr(arguments, name) is not None:
            raise ValueError(f"--{name} is for maps of tumour, and those in {arguments.maps} have several classes")
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
        lines.append(f"  found at {number} false positives per slide".ljust(35) + _cell(sensitivity))
    if lesions.get("num_isolated"):
        lines.append(f"  {lesions['num_isolated']} of isolated tumour cells (below {ISOLATED_UM} um) are not counted")
    return [*lines, "", f"{metrics['num_slides']} slides, threshold {metrics['threshold']:g}{_left_out(metrics)}"]


def class_table(metrics: Mapping[str, Any]) -> list[str]:
    """The scores of maps of several classes for a person, in per cent."""
    names = metrics["class_names"]
    # Those of tumour have their own lines.
    blocks = score_blocks({kind: metrics[kind] for kind in CLASS_KINDS})
    lines = [*blocks, *_confusion_lines(names, metrics["confusion"]), ""]
    lines += [*_pixel_lines(f"Not {names[0]} (%)", metrics), ""]
    absent = ", ".join(metrics["classes_without_truth"])
    said = f"; no mask contains {absent}" if absent else ""
    return [*lines, f"{metrics['num_slides']} slides; tissue only, unless stated otherwise{_left_out(metrics)}{said}"]


def _pixel_lines(title: str, metrics: Mapping[str, Any]) -> list[str]:
    lines = [title.ljust(20) + "".join(f"{column:>13}" for column in COLUMNS.values())]
    lines += [name.ljust(20) + "".join(_cell(metrics[part][column]) for column in COLUMNS) for name, part in PARTS]
    means = {column: name for column, name in SLIDE_COLUMNS.items() if column in metrics[PARTS[0][1]]}
    lines[0] += "".join(f"{name:>16}" for name in means.values())
    for index, (_, part) in enumerate(PARTS if means else (), start=1):
        lines[index] += "".join(f"   {_cell(metrics[part][column])}" for column in means)
    return lines


def _confusion_lines(names: Sequence[str], confusion: Sequence[Sequence[int]]) -> list[str]:
    """The shares of each true class that were assigned to each class."""
    width = max(15, *(len(name) + 2 for name in names))
    lines = ["True class, % given to".ljust(width + 9) + "".join(f"{name:>{width}}" for name in names) + f"{'Pixels':>{width}}"]
    for name, counts in zip(names, confusion, strict=True):
        total = sum(counts)
        cells = (f"{'-' if not total else format(100 * count / total, '.1f'):>{width}}" for count in counts)
        lines.append(name.ljust(width + 9) + "".join(cells) + f"{total:>{width}}")
    return lines


def _compared(arguments: argparse.Namespace, out: Path) -> str:
    """Compare the maps with another program's, write ``comparison.json`` and ``compared_slides.csv``, and return the table."""
    settings = settings_of(arguments.maps)
    if settings.get("class_names"):
        raise ValueError(f"--compare_with is for maps of tumour, and those in {arguments.maps} have several classes")
    thresholds = _threshold(arguments, settings), arguments.compare_threshold
    tissue = tissue_of(settings, arguments.tissue, out / "tissue")
    maps, others = MapFolder(arguments.maps), PictureMaps(arguments.compare_with)
    metrics, rows = compare_maps(maps, others, _records(arguments), tissue, thresholds, arguments.allow_missing)
    table, scores = COMPARED
    with atomic_path(out / table) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False)
    with atomic_path(out / scores) as temporary:
        temporary.write_text(json.dumps(metrics, indent=2) + "\n")
    return "\n".join(comparison_table(metrics))


def comparison_table(metrics: Mapping[str, Any]) -> list[str]:
    """The agreement of two sets of maps for a person, in per cent."""
    lines = [f"{name.replace('_', ' ')} (%)".ljust(35) + _cell(score) for name, score in metrics["agreement"].items()]
    if metrics["num_with_truth"]:
        lines = [*lines, "", "Pixels (%)".ljust(30) + "".join(f"{column:>13}" for column in COLUMNS.values())]
        for part, kind in PARTS:
            for name, scores in metrics[kind].items():
                lines.append(f"{name}, {part}".ljust(30) + "".join(_cell(scores[column]) for column in COLUMNS))
    thresholds = ", ".join(f"{name} {threshold:g}" for name, threshold in metrics["thresholds"].items())
    missing = f"; {metrics['num_missing']} left out without a map" if metrics["num_missing"] else ""
    said = f"{metrics['num_slides']} slides, {metrics['num_with_truth']} of them with a truth; thresholds: {thresholds}"
    return [*lines, "", said + missing]


def _left_out(metrics: Mapping[str, Any]) -> str:
    left_out = {"without a finished map": metrics["num_missing"], "without mask or label 0": metrics["num_without_truth"]}
    return "".join(f"; {number} left out {reason}" for reason, number in left_out.items() if number)


def _cell(share: float | None) -> str:
    return f"{'-':>13}" if share is None else f"{100 * share:13.1f}"


def check_maps(folder: Path) -> None:
    """Refuse a folder that no inference has filled."""
    if (folder / TABLE_NAME).is_file():
        return
    maps = sum(1 for _ in folder.glob("*.ome.tif")) if folder.is_dir() else 0
    found = "no such folder" if not folder.is_dir() else f"{maps} files *.ome.tif without it" if maps else "no maps"
    raise ValueError(f"{folder}: expected maps and their table {TABLE_NAME}, as scripts/infer.py writes them; found {found}")


def _warn_of_other_settings(arguments: argparse.Namespace, settings: Mapping[str, Any]) -> None:
    """Log a warning if some maps were not made with the settings that the folder names, which are those of its last run."""
    maps, others = MapFolder(arguments.maps), []
    for record in _records(arguments, len(settings.get("class_names") or (0, 1))):
        made = maps.row(record).get("fingerprint") if maps.is_finished(record) else None
        image = ImageInput(Path(record["image"]), slide_name(record))
        if made and made not in {fingerprint(settings, replace(image, mpp=mpp)) for mpp in (None, record["mpp"])}:
            others.append(slide_name(record))
    if others:
        logger.warning(
            "%s: %d maps, such as %s, were made with other settings than those in %s, or of other files: network, threshold or "
            "pixel size may differ, and all are scored as one. The command that made the maps, given again, makes these anew",
            arguments.maps,
            len(others),
            others[0],
            SETTINGS_NAME,
        )


def evaluate(arguments: argparse.Namespace) -> str:
    """Score the maps, write ``metrics.json`` and ``slides.csv``, and return the table.

    Raises:
        ValueError: for whatever is wrong, naming the file and the row.
    """
    check_maps(arguments.maps)
    out = arguments.out or arguments.maps / "evaluation"
    names = SCORES if arguments.compare_with is None else COMPARED
    # Not the table of the maps either.
    check_inputs_stay(out, names, (arguments.manifest, arguments.maps / TABLE_NAME))
    if arguments.compare_with is not None:
        return _compared(arguments, out)
    settings = settings_of(arguments.maps)
    tissue = tissue_of(settings, arguments.tissue, out / "tissue")
    has_classes = bool(settings.get("class_names"))
    _warn_of_other_settings(arguments, settings)
    metrics, rows = (class_report if has_classes else tumour_report)(arguments, settings, tissue)
    table, scores = SCORES
    with atomic_path(out / table) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False)
    # Last: where it is, the other is of the same maps.
    with atomic_path(out / scores) as temporary:
        temporary.write_text(json.dumps(metrics, indent=2) + "\n")
    return "\n".join((class_table if has_classes else tumour_table)(metrics))
