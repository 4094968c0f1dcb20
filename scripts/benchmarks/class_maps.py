"""One picture of the class maps of a sweep: the same images or slides with few and many masks, with and without labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from monai.bundle import ConfigParser, ConfigWorkflow

from scripts.benchmarks.slides_of_runs import MAPS, SLIDES
from scripts.evaluation.finished_maps import settings_of
from shared.data import load_manifest
from shared.data.record import Record, has_known_mask, region_of
from shared.evaluation.maps.map_folder import MapFolder
from shared.evaluation.maps.scoring_grid import ScoringGrid
from shared.evaluation.report import example_indices, example_title
from shared.sweeps.sweep import Sweep
from shared.writers.figures.examples import ExampleRow, write_examples
from shared.wsi import open_slide

# The largest share of masks in figure C.7 of Ciga and Martel.
LARGEST_SHARE = 0.1
# Of a picture, and of a slide in which its lesions are looked for.
SIDE_PX = 400
# Around the lesions, as a share of their extent.
MARGIN = 0.1


def write_class_maps(sweep: Sweep, num_images: int, path: Path) -> None:
    """Draw test images with their truth and the maps of all finished runs of the first seed, up to a tenth of the masks.

    Args:
        sweep: sweep over ``masked_share`` and ``mode``.
        num_images: number of images, the rows of the picture.
        path: path of the PNG.
    """
    rows: list[ExampleRow] = []
    for title, values in _drawn_runs(sweep):
        evaluator = _evaluation(sweep, values)
        evaluator.num_examples, records = num_images, evaluator.dataset.data
        made = evaluator.examples(records, [None] * len(records))
        rows = rows or [replace(row, panels={"truth": row.panels["truth"]}) for row in made]
        for row, with_map in zip(rows, made, strict=True):
            # The truth comes first, then the method's map.
            row.panels[title] = list(with_map.panels.values())[1]
    if rows:
        write_examples(rows, path, title="class maps of the first seed")


def write_slide_maps(sweep: Sweep, num_slides: int, path: Path) -> None:
    """Draw test slides, cut to their lesions, with their truth and the maps of the same runs, as the paper does.

    Args:
        sweep: sweep over ``masked_share`` and ``mode``; `SlidesOfRuns` has mapped the slides of its finished runs.
        num_slides: number of slides, the rows of the picture; all if there are fewer.
        path: path of the PNG.

    Raises:
        ValueError: for a slide, a map or a mask that cannot be read.
    """
    folders = {title: sweep.folder(values) for title, values in _drawn_runs(sweep)}
    if not folders:
        return
    names = settings_of(next(iter(folders.values())) / MAPS)["class_names"]
    maps = {title: MapFolder(folder / MAPS, names) for title, folder in folders.items()}
    # Runs of one seed have the same test slides.
    records = load_manifest(next(iter(folders.values())) / SLIDES, require=(), num_classes=len(names))
    labels = [1 if (label := record.get("label")) is None else label for record in records]
    chosen = [records[index] for index in example_indices(labels, min(num_slides, len(labels)))]
    write_examples([_slide_row(record, maps) for record in chosen], path, title="class maps of the first seed")


def _drawn_runs(sweep: Sweep) -> Iterator[tuple[str, dict[str, Any]]]:
    """Title and values of the finished runs of the first seed, the smallest share first."""
    first = sweep.combinations[0]["seed"]
    for values in sorted(sweep.combinations, key=lambda values: values["masked_share"]):
        share = values["masked_share"]
        if values["seed"] == first and share <= LARGEST_SHARE and sweep.is_finished(values):
            yield f"{values['mode']}, {100 * share:g} % of the masks", values


def _slide_row(record: Record, maps: Mapping[str, MapFolder]) -> ExampleRow:
    first = next(iter(maps.values()))
    own_mpp = float(first.row(record)["mpp"])
    slide = open_slide(record["image"], mpp=own_mpp)
    part = _around_lesions(record, first, own_mpp * max(1.0, max(slide.size_px) / SIDE_PX))
    mpp = own_mpp * max(1.0, max(region_of(part, slide.size_px)[2:]) / SIDE_PX)
    grid = ScoringGrid.of_mpp(part, first.row(record), mpp, first.class_names)
    height, width = grid.shape
    panels: dict[str, np.ndarray | None] = {"truth": _truth(grid) if has_known_mask(record) else None}
    for title, folder in maps.items():
        of_run = replace(grid, row=folder.row(record))
        with folder.open(record) as source:
            panels[title] = of_run.decisions(source, 0, height)[1]
    return ExampleRow(example_title(record), slide.read_region(grid.origin, (width, height), mpp=mpp, exact=True), panels)


def _around_lesions(record: Record, maps: MapFolder, mpp: float) -> Record:
    """The part of a slide that shows all of its annotated lesions, found at `mpp`; the whole slide if it has none."""
    grid = ScoringGrid.of_mpp(record, maps.row(record), mpp, maps.class_names)
    lesions = np.argwhere(_truth(grid) > 0)
    if not len(lesions):
        return record
    first, last = lesions.min(axis=0), lesions.max(axis=0) + 1
    margin = MARGIN * (last - first).max()
    top, left = np.maximum((first - margin) * grid.pixel_px, 0).astype(int).tolist()
    row = maps.row(record)
    ends = np.minimum((last + margin) * grid.pixel_px, (int(row["height_px"]), int(row["width_px"])))
    bottom, right = ends.astype(int).tolist()
    part: Record = {**record, "x": left, "y": top, "width_px": right - left, "height_px": bottom - top}
    return part


def _truth(grid: ScoringGrid) -> np.ndarray:
    return np.concatenate([grid.truth(*strip) for strip in grid.strips()])


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
