"""The maps of a few test slides for every pair of alpha and beta, like the paper's figure 3."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from shared.data.manifest import load_manifest
from shared.data.record import Record, has_known_mask, label_of
from shared.evaluation.maps.map_folder import MapFolder
from shared.evaluation.maps.pictures import slide_picture
from shared.evaluation.report import example_indices, example_title
from shared.writers.figures.map_matrices import MapMatrix, write_map_matrices

Pair = tuple[float, float]
MAPS = Path("evaluation", "maps")
PICTURE_PX = 320


def draw_maps(runs: Mapping[Pair, Path], path: Path, num_slides: int = 2) -> None:
    """Draw the maps of probabilities, without a threshold.

    Args:
        runs: (alpha, beta) -> folder of the finished training.
        path: path of the PNG.
        num_slides: number of test slides to draw; tumour slides if there are enough.

    Raises:
        ValueError: if a training has no map of a slide, or a slide, a map or a mask cannot be read.
    """
    folders = {pair: MapFolder(run / MAPS) for pair, run in runs.items()}
    first = next(iter(folders.values()))
    slides = []
    for record in _chosen(load_manifest(first.folder / "slides_to_map.csv", require=()), num_slides):
        pictures = {pair: slide_picture(record, folder, PICTURE_PX, with_truth=False) for pair, folder in folders.items()}
        seen = slide_picture(record, first, PICTURE_PX, has_known_mask(record))
        maps = {pair: picture.probability for pair, picture in pictures.items()}
        slides.append(MapMatrix(example_title(record), seen.image, seen.truth, maps))
    write_map_matrices(slides, path, title="Tumour maps of test slides, without threshold")


def _chosen(records: list[Record], num_slides: int) -> list[Record]:
    """Tumour slides, with masks if there are enough of them; any slides if there are too few tumour slides."""
    tumour = [record for record in records if label_of(record) > 0]
    with_mask = [record for record in tumour if record.get("mask") is not None]
    pool = next((some for some in (with_mask, tumour) if len(some) >= num_slides), records)
    return [pool[index] for index in example_indices([label_of(record) for record in pool], num_slides)]
