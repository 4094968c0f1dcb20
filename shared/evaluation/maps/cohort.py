"""Which slides of a manifest have a finished map and a truth to score it by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from ...data.record import Record, has_known_mask
from ...data.record_masks import DoubtfulMasks
from ...data.tissue_cache import TissueCache
from ...wsi.file_names import comparable
from .counts import MapCounts
from .map_folder import MapFolder, check_maps_of_one_slide, check_mask, check_whole, slide_name


class MapCohort:
    """The slides of a manifest that can be scored: those with a finished map in a folder, and with a mask or label 0.

    Args:
        maps: folder that `SlideMapper` has filled, with its ``slides.csv``.
        records: of whole slides, see `load_manifest`. Those with neither a mask nor label 0 are left out.
        tissue: where the slides' tissue is found.
        class_names: the maps' classes, see `ScoringGrid`; None for maps of tumour.
        allow_missing: leave out slides that have no finished map; they are an error otherwise.

    Attributes:
        folder: of the maps.
        records: what is left to score.
        num_missing: slides that were left out for want of a map.
        num_without_truth: slides that were left out for want of a mask.

    Raises:
        ValueError: for rows that are no whole slides, slides of one name, maps that are missing, and where nothing is left to
            score.
    """

    def __init__(
        self,
        maps: str | Path,
        records: Sequence[Record],
        tissue: TissueCache,
        class_names: Sequence[str] | None = None,
        allow_missing: bool = False,
    ) -> None:
        self.folder, self.tissue = MapFolder(maps, class_names), tissue
        for record in records:
            check_whole(record)
        check_maps_of_one_slide(records, lambda record: comparable(slide_name(record)))
        with_truth = [record for record in records if has_known_mask(record)]
        self.num_without_truth = len(records) - len(with_truth)
        self.records = [record for record in with_truth if self.folder.is_finished(record)]
        missing = [record for record in with_truth if not self.folder.is_finished(record)]
        if missing and not allow_missing:
            raise ValueError(
                f"{len(missing)} of {len(with_truth)} slides have no finished map in {maps}, the first is "
                f"{missing[0]['image']} ({self.folder.status(missing[0])}): map them, or leave them out with --allow_missing"
            )
        self.num_missing = len(missing)
        if not self.records:
            raise ValueError(f"nothing to score: no slide has both a map in {maps} and a mask or label 0")

    def check_masks(self) -> None:
        """Open every mask, so that a wrong one is found before hours of scoring.

        Raises:
            ValueError: naming manifest, row and file.
        """
        for record in tqdm(self.records, "checking masks", unit="slide", disable=None, leave=False):
            check_mask(record, self.folder.class_names)

    def counts(self) -> Iterator[tuple[Record, MapCounts]]:
        """The counts of each slide, one after the other, once every mask was checked.

        After the last one a warning says how many masks of slides with tumour show none at the maps' pixel size.

        Raises:
            ValueError: naming manifest, row and file of a mask, a map or a slide that cannot be read, and of a mask that
                contradicts its label.
        """
        self.check_masks()
        doubtful = DoubtfulMasks()
        for record in tqdm(self.records, "scoring maps", unit="slide", disable=None):
            counts = self.folder.count(record, self.tissue)
            if self.folder.class_names is None:
                doubtful.add(record, bool(counts.histograms["all"][1].any()))
            yield record, counts
        doubtful.warn()
