"""One picture of the class maps of a sweep: the same images with few and many masks, with and without labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow

from shared.sweeps.sweep import METRICS, Sweep
from shared.writers.figures.examples import ExampleRow, write_examples

# The largest share of masks in figure C.7 of Ciga and Martel.
LARGEST_SHARE = 0.1


def write_class_maps(sweep: Sweep, num_images: int, path: Path) -> None:
    """Draw test images with their truth and the maps of all finished runs of the first seed, up to a tenth of the masks.

    Args:
        sweep: sweep over ``masked_share`` and ``mode``.
        num_images: number of images, the rows of the picture.
        path: path of the PNG.
    """
    first = sweep.combinations[0]["seed"]
    rows: list[ExampleRow] = []
    for values in sorted(sweep.combinations, key=lambda values: values["masked_share"]):
        folder, share = sweep.folder(values), values["masked_share"]
        if values["seed"] != first or share > LARGEST_SHARE or not (folder / METRICS).is_file():
            continue
        evaluator = _evaluation(sweep, values)
        evaluator.num_examples, records = num_images, evaluator.dataset.data
        made = evaluator.examples(records, [None] * len(records))
        rows = rows or [replace(row, panels={"truth": row.panels["truth"]}) for row in made]
        for row, with_map in zip(rows, made, strict=True):
            # The truth comes first, then the method's map.
            row.panels[f"{values['mode']}, {100 * share:g} % of the masks"] = list(with_map.panels.values())[1]
    if rows:
        write_examples(rows, path, title="class maps of the first seed")


def _evaluation(sweep: Sweep, values: Mapping[str, Any]) -> Any:
    """The evaluation of a finished run from its bundle's evaluate.json, before it is run."""
    folder = Path(sweep.config_files[0]).parent
    files = [str(folder / "evaluate.json"), *sweep.config_files[1:]]
    known = ConfigParser.load_config_files(files).keys() - {"tracking_uri"}
    keys = {name: value for name, value in {**sweep.fixed, **values}.items() if name.split("::")[0] in known}
    options = {"bundle_root": str(folder.parent), **keys, "output_dir": str(sweep.folder(values))}
    workflow = ConfigWorkflow(config_file=files, workflow_type="infer", logging_file=False, **options)
    workflow.initialize()
    return workflow.parser.get_parsed_content("evaluator")
