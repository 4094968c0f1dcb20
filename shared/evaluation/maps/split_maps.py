"""The maps of a split's slides: made where there are none, and counted, by all processes of a distributed run together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from ...data.manifest import write_manifest
from ...data.record import Record
from ...data.tissue_cache import TissueCache
from ...engines.distributed import barrier, gather_in_order, num_processes, rank
from ...inference.slide_mapper import SlideMapper
from .counts import MapCounts
from .map_folder import MapFolder, check_mask


class SplitMaps:
    """Maps the slides of a split, and counts the pixels of their maps.

    The processes of a distributed run work in one folder, and each takes the slides that no other has begun: slides differ in
    size, and shares of a fixed number would make all wait for the one with the largest.

    Args:
        folder: gets the maps of `SlideMapper`, in ``maps/``; finished ones are not made again.
        records: of whole slides.
        mapper: makes the maps.
        tissue: where the slides' tissue is found.
        truth: False: the masks are not looked at, and no pixel counts as tumour.

    Raises:
        ValueError: if the mapper looks for tissue in another way than `tissue`.
    """

    def __init__(
        self, folder: str | Path, records: Sequence[Record], mapper: SlideMapper, tissue: TissueCache, truth: bool = True
    ) -> None:
        if mapper.tissue.only and mapper.tissue.found_by != tissue.method:
            raise ValueError(
                f"the maps are made where {mapper.tissue.found_by!r} finds tissue, but would be scored where {tissue.method!r} "
                "does: give both the same tissue_method"
            )
        self.folder, self.mapper, self.tissue = Path(folder), mapper, tissue
        self.records: list[Record] = [record if truth else {**record, "mask": None} for record in records]

    def counts(self) -> list[MapCounts]:
        """Counts of every slide, in order and on every process.

        Raises:
            ValueError: before anything is mapped, naming row and file of a mask that cannot be read or does not fit its slide.
        """
        share = self.records[rank() :: num_processes()]
        problems = gather_in_order([_problem(record) for record in share])
        if any(problems):
            raise ValueError(next(filter(None, problems)))
        self._map()
        found = self.finished
        progress = tqdm(share, "scoring maps", unit="slide", disable=None)
        return gather_in_order([found.count(record, self.tissue) for record in progress])

    def tissue_histograms(self) -> list[Tensor]:
        """The number of tissue pixels of each slide's map with each value: int64 ``(256,)``."""
        return [counts.histograms["tissue"].sum(0) for counts in self.counts()]

    @property
    def finished(self) -> MapFolder:
        """The folder of the maps."""
        return MapFolder(self.folder / "maps")

    def _map(self) -> None:
        """Map what is not mapped yet; returns when all processes have done so."""
        if not self.records:
            return
        slides = self.folder / "maps/slides_to_map.csv"
        if rank() == 0:
            write_manifest(self.records, slides)
        barrier()
        self.mapper.run(slides, slides.parent)
        barrier()


def _problem(record: Record) -> str | None:
    """The problem of a slide's mask, or None."""
    try:
        check_mask(record)
    except ValueError as error:
        return str(error)
    return None
