"""The finished maps of a folder, and what their pixels count to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ...data.image_dataset import record_error
from ...data.record import Record
from ...data.tissue_cache import TissueCache
from ...inference.cohort.finished import FINISHED
from ...inference.cohort.row_store import TABLE_NAME
from ...inference.inputs import image_name
from ...inference.outputs.map_file import MapFile
from ...writers.table import read_rows
from ...wsi.file_names import comparable, existing_file
from ...wsi.slide import Slide
from .counts import MapCounts, count_pixels
from .scoring_grid import ScoringGrid, read_truth


class MapFolder:
    """The maps in a folder that `SlideMapper` has filled.

    Args:
        folder: with its ``slides.csv``.
        class_names: the maps' classes, see `ScoringGrid`; None for maps of tumour.
    """

    def __init__(self, folder: str | Path, class_names: Sequence[str] | None = None) -> None:
        self.folder, self.class_names = Path(folder), class_names
        # Slides may have been mapped from another folder, in which their accents are written in another way.
        self.table = {comparable(name): row for name, row in read_rows(self.folder / TABLE_NAME).items()}

    def status(self, record: Record) -> str:
        """Status of a record's map."""
        return self.table.get(comparable(slide_name(record)), {}).get("status", "not begun")

    def is_finished(self, record: Record) -> bool:
        return self.status(record) in FINISHED

    def row(self, record: Record) -> dict[str, str]:
        """The row of the record's image in the table."""
        return self.table[comparable(slide_name(record))]

    def open(self, record: Record) -> MapFile:
        """The map of the record's image."""
        num_classes = 2 if self.class_names is None else len(self.class_names)
        return MapFile(existing_file(self.folder / f"{slide_name(record)}.ome.tif"), num_classes)

    def grid(self, record: Record, source: MapFile) -> ScoringGrid:
        """The pixels of a slide's map."""
        return ScoringGrid.of_map(record, self.row(record), source.shape, self.class_names)

    def count(self, record: Record, tissue: TissueCache) -> MapCounts:
        """The pixels of a slide's map, in tissue and with the background.

        Raises:
            ValueError: naming manifest, row and file of a mask, a map or a slide that cannot be read.
        """
        try:
            with self.open(record) as source:
                grid = self.grid(record, source)
                return count_pixels(grid, source, grid.slide_tissue(tissue))
        except (ValueError, OSError) as error:
            raise record_error(record, error) from error


def check_whole(record: Record) -> None:
    """Refuse a region of a slide, which has no map of its own.

    Raises:
        ValueError: naming manifest and row.
    """
    if record.get("x") is not None:
        raise record_error(record, ValueError("only maps of whole slides are scored, and this row is a region of a slide"))


def check_maps_of_one_slide(records: Sequence[Record], map_of: Callable[[Record], object]) -> None:
    """Refuse two slides that have one map, because their names are the same.

    Args:
        records: of whole slides.
        map_of: what tells the map of a record from others; None where it has none.

    Raises:
        ValueError: naming manifest, row and both slides.
    """
    first: dict[object, Record] = {}
    for record in records:
        of_record = map_of(record)
        other = record if of_record is None else first.setdefault(of_record, record)
        if other["image"] != record["image"]:
            found = f"maps are found by the slides' names, and by its name its map is also that of {other['image']}"
            raise record_error(
                record, ValueError(f"{found} (row {other.get('row')}): score one of them, or rename it and map it again")
            )


def check_mask(record: Record, class_names: Sequence[str] | None = None) -> None:
    """Open a slide's mask, if it has one, so that a wrong one is found before hours of work.

    Raises:
        ValueError: naming manifest, row and file.
    """
    if record.get("mask") is None:
        return
    try:
        with Slide(record["image"], mpp=record.get("mpp")) as slide:
            read_truth(record, (0, 0), (1, 1), slide.size_px, 1.0, class_names)
    except (ValueError, OSError) as error:
        raise record_error(record, error) from error


def slide_name(record: Record) -> str:
    """Name of a slide in the maps' folder."""
    return image_name(Path(record["image"]))
