"""How far two sets of maps of the same slides agree, and what each is worth where there is a truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ...data.image_dataset import record_error
from ...data.record import Record, has_known_mask
from ...data.tissue_cache import TissueCache
from .counts import PARTS, MapCounts, count_pixels, least_value
from .map_folder import MapFolder, check_maps_of_one_slide, check_mask, check_whole, slide_name
from .picture_maps import PictureMaps, at_pixels

OURS, THEIRS = "ours", "theirs"


class _Sampled:
    """A picture at the pixels of a map, in place of a `MapFile`."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.shape = values, values.shape

    def read_decisions(self, start: int, stop: int) -> np.ndarray:
        return self.values[None, start:stop]


@dataclass(frozen=True)
class Agreement:
    """Counts of a slide's map pixels under both maps.

    Attributes:
        joint: how often our value (row) and theirs (column) stand together in tissue, int64 ``(256, 256)``.
        counts: of ours and of theirs against the truth; empty where there is none.
    """

    joint: Tensor
    counts: dict[str, MapCounts]

    @classmethod
    def pooled(cls, slides: Sequence[Agreement]) -> Agreement:
        """The sum over slides; of the counts over those that have a truth."""
        with_truth = [one for one in slides if one.counts]
        counts = {name: MapCounts.pooled([one.counts[name] for one in with_truth]) for name in (OURS, THEIRS) if with_truth}
        return cls(torch.stack([one.joint for one in slides]).sum(0), counts)

    def scores(self, threshold: float, their_threshold: float) -> dict[str, float | None]:
        """`correlation` (Pearson's), `mean_difference` (absolute, of probabilities), and of tumour by each one's own threshold
        `iou` and the shares of the tissue, `share_ours` and `share_theirs`; None where a score has no value.

        Raises:
            ValueError: for thresholds out of (0, 1].
        """
        _check_thresholds(threshold, their_threshold)
        joint, value = self.joint.double(), torch.linspace(0, 1, 256, dtype=torch.float64)
        total = joint.sum()
        if not total:
            return dict.fromkeys(("correlation", "mean_difference", "iou", "share_ours", "share_theirs"))
        ours, theirs = value[:, None], value[None, :]
        mean = [(joint * one).sum() / total for one in (ours, theirs)]
        deviations = ours - mean[0], theirs - mean[1]
        covariance, *variances = (
            (joint * product).sum() / total for product in (deviations[0] * deviations[1], deviations[0] ** 2, deviations[1] ** 2)
        )
        scale = float((variances[0] * variances[1]).sqrt())
        rows, columns = least_value(threshold), least_value(their_threshold)
        share = [float(part.sum() / total) for part in (joint[rows:], joint[:, columns:])]
        both = float(joint[rows:, columns:].sum() / total)
        either = share[0] + share[1] - both
        return {
            "correlation": float(covariance) / scale if scale > 0 else None,
            "mean_difference": float((joint * (ours - theirs).abs()).sum() / total),
            "iou": both / either if either > 0 else None,
            "share_ours": share[0],
            "share_theirs": share[1],
        }


def compare_slide(record: Record, maps: MapFolder, others: PictureMaps, tissue: TissueCache) -> Agreement:
    """Count the pixels of a slide's map, and of another program's at the same places.

    Raises:
        ValueError: naming manifest, row and file of a mask, a map or a slide that cannot be read.
    """
    try:
        with maps.open(record) as source:
            row, grid = maps.row(record), maps.grid(record, source)
            size_px = int(row["width_px"]), int(row["height_px"])
            picture = _Sampled(at_pixels(others.read(record["image"], size_px), size_px, source.shape, grid.pixel_px))
            is_tissue = grid.slide_tissue(tissue)
            joint = torch.zeros(256 * 256, dtype=torch.int64)
            for top, height in grid.strips():
                seen = is_tissue(top, height)
                ours, theirs = (
                    of_map.read_decisions(top, top + height)[0][seen].astype(np.int64) for of_map in (source, picture)
                )
                joint += torch.bincount(torch.from_numpy(ours * 256 + theirs), minlength=256 * 256)
            counts = {}
            if has_known_mask(record):
                counts = {name: count_pixels(grid, of_map, is_tissue) for name, of_map in ((OURS, source), (THEIRS, picture))}
    except (ValueError, OSError) as error:
        raise record_error(record, error) from error
    return Agreement(joint.reshape(256, 256), counts)


def compare_maps(
    maps: MapFolder,
    others: PictureMaps,
    records: Sequence[Record],
    tissue: TissueCache,
    thresholds: tuple[float, float],
    allow_missing: bool = False,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Compare our maps of tumour with another program's, of the same slides.

    Pixels are those of our maps, on the tissue that was found for them. Where a slide has a mask or label 0, both are scored
    against it, in tissue and with the background, which scores 0.

    Args:
        maps: ours.
        others: theirs.
        records: of whole slides.
        tissue: where the slides' tissue is found.
        thresholds: least probability of tumour, of ours and of theirs, in (0, 1].
        allow_missing: leave out slides that either has no map of; they are an error otherwise.

    Returns:
        metrics of the cohort, and a row per slide.

    Raises:
        ValueError: for thresholds out of (0, 1]; naming what is missing or cannot be read, a region of a slide, and two
            slides of one map.
    """
    _check_thresholds(*thresholds)
    for record in records:
        check_whole(record)
    check_maps_of_one_slide(records, lambda record: others.path_of(record["image"]))
    there = [record for record in records if maps.is_finished(record) and others.path_of(record["image"]) is not None]
    if not there or (len(there) < len(records) and not allow_missing):
        first = next((record["image"] for record in records if record not in there), maps.folder)
        raise ValueError(
            f"{len(records) - len(there)} of {len(records)} slides lack a finished map in {maps.folder} or one in "
            f"{others.folder}, such as {first}: add them, or leave them out by --allow_missing"
        )
    for record in there:
        check_mask(record)
    slides = [compare_slide(record, maps, others, tissue) for record in tqdm(there, "comparing maps", unit="slide", disable=None)]
    pooled = Agreement.pooled(slides)
    metrics = {
        "num_slides": len(there),
        "num_missing": len(records) - len(there),
        "num_with_truth": sum(bool(one.counts) for one in slides),
        "thresholds": dict(zip((OURS, THEIRS), thresholds, strict=True)),
        "agreement": pooled.scores(*thresholds),
    }
    for part in PARTS if pooled.counts else ():
        of_both = zip((OURS, THEIRS), thresholds, strict=True)
        metrics[f"pixels_{part}"] = {name: pooled.counts[name].scores(part, least_value(one)) for name, one in of_both}
    rows = []
    for record, one in zip(there, slides, strict=True):
        aucs = {f"auc_{name}": one.counts[name].auc("tissue") for name in (OURS, THEIRS)} if one.counts else {}
        rows.append({"slide": slide_name(record), "label": record.get("label"), **one.scores(*thresholds), **aucs})
    return metrics, rows


def _check_thresholds(threshold: float, their_threshold: float) -> None:
    if not (0 < threshold <= 1 and 0 < their_threshold <= 1):
        raise ValueError(f"need thresholds in (0, 1], got {threshold} for ours and {their_threshold} for theirs")
