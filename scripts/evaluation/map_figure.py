"""One picture of the finished maps of several methods next to the truth."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shared.data import load_manifest
from shared.data.image_dataset import record_error
from shared.data.record import Record, region_of
from shared.evaluation.maps.counts import least_value
from shared.evaluation.maps.map_folder import MapFolder
from shared.evaluation.maps.scoring_grid import ScoringGrid
from shared.evaluation.report import example_indices, example_title
from shared.inference.inputs import image_name
from shared.writers.figures.examples import ExampleRow, write_examples
from shared.writers.storage import check_inputs_stay
from shared.wsi.file_names import comparable
from shared.wsi.slide_pool import open_slide

from .finished_maps import check_maps, settings_of


@dataclass(frozen=True)
class Column:
    """The maps of one method.

    Attributes:
        title: above them.
        folder: that holds them.
        threshold: from which a pixel is drawn as tumour; None to draw its probability.
    """

    title: str
    folder: MapFolder
    threshold: float | None

    @classmethod
    def of(cls, text: str, shades: bool) -> Column:
        """The column of ``TITLE=FOLDER``.

        Raises:
            ValueError: for another form, and for a folder without maps of tumour or without their threshold.
        """
        title, _, name = text.rpartition("=")
        if not title or not name:
            raise ValueError(f"--maps {text}: expected TITLE=FOLDER, such as Ours=maps/ours")
        folder = Path(name)
        check_maps(folder)
        settings = settings_of(folder)
        if settings.get("class_names"):
            raise ValueError(f"--maps {text}: expected maps of tumour, found maps of the classes {settings['class_names']}")
        if not shades and settings.get("threshold") is None:
            raise ValueError(f"--maps {text}: expected the threshold of the maps in {folder / 'settings.json'}; give --shades")
        return cls(title, MapFolder(folder), None if shades else float(settings["threshold"]))

    def check(self, record: Record) -> None:
        """See that there is a finished map of an image.

        Raises:
            ValueError: naming the row, if there is none.
        """
        if not self.folder.is_finished(record):
            status = self.folder.status(record)
            raise record_error(record, ValueError(f"{self.folder.folder} has no finished map of it ({status}): map it first"))

    def panel(self, record: Record, shape: tuple[int, int], pixel_px: float) -> np.ndarray:
        """What the method says of an image, in [0, 1], ``(H, W)``, at pixels of so many level-0 pixels."""
        # Of methods that take a plain image to have another pixel size, too.
        grid = ScoringGrid(record, self.folder.row(record), pixel_px, shape)
        with self.folder.open(record) as source:
            values = grid.decisions(source, 0, shape[0])[0]
        shades = values / np.float32(255) if self.threshold is None else values >= least_value(self.threshold)
        return shades.astype(np.float32)


def draw(arguments: argparse.Namespace) -> str:
    """Write the picture, and return the line that says where.

    Raises:
        ValueError: for whatever is wrong, naming the file and the row.
    """
    columns = [Column.of(text, arguments.shades) for text in arguments.maps]
    titles = [column.title for column in columns]
    if len({"image", "truth", *titles}) < 2 + len(titles):
        raise ValueError(
            f"--maps: expected a title of its own for each column, besides image and truth; found {', '.join(titles)}"
        )
    records = load_manifest(
        arguments.manifest,
        split=arguments.split,
        require=(),
        tumour_classes=arguments.tumour_classes,
        annotation_frame=arguments.annotation_frame,
    )
    named = (path for record in records for path in (record["image"], record["mask"]) if path is not None)
    check_inputs_stay(arguments.out.parent, [arguments.out.name], [arguments.manifest, *named])
    chosen = _named(records, arguments.images) if arguments.images else _spread(records, arguments.num_images)
    write_examples([_row(record, columns, arguments.side_px) for record in chosen], arguments.out, arguments.title)
    return f"{len(chosen)} images, {len(columns)} maps of each: {arguments.out}"


def _spread(records: Sequence[Record], count: int) -> list[Record]:
    labels = [1 if (label := record.get("label")) is None else label for record in records]
    return [records[index] for index in example_indices(labels, min(count, len(labels)))]


def _named(records: Sequence[Record], names: Sequence[str]) -> list[Record]:
    """Every row of the images of these names: all the regions of a slide."""
    by_name: dict[str, list[Record]] = {}
    for record in records:
        by_name.setdefault(comparable(image_name(Path(record["image"]))), []).append(record)
    missing = [name for name in names if comparable(name) not in by_name]
    if missing:
        raise ValueError(f"--images: no row of the manifest has an image called {', '.join(missing)}")
    return [record for name in names for record in by_name[comparable(name)]]


def _row(record: Record, columns: Sequence[Column], side_px: int) -> ExampleRow:
    for column in columns:
        column.check(record)
    row = columns[0].folder.row(record)
    # With which the maps were made: a plain image knows none of its own.
    own_mpp = float(row["mpp"])
    slide = open_slide(record["image"], mpp=own_mpp)
    mpp = own_mpp * max(1.0, max(region_of(record, slide.size_px)[2:]) / side_px)
    grid = ScoringGrid.of_mpp(record, row, mpp)
    height, width = grid.shape
    picture = slide.read_region(grid.origin, (width, height), mpp=mpp, exact=True)
    panels = {column.title: column.panel(record, grid.shape, mpp / own_mpp) for column in columns}
    has_truth = record.get("mask") is not None or record.get("label") == 0
    truth = (grid.truth(0, height) > 0).astype(np.float32) if has_truth else None
    return ExampleRow(example_title(record), picture, {"truth": truth, **panels})
