"""How well maps find single lesions: CAMELYON16's FROC, computed by MONAI, of maps and masks that are read in strips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from monai.apps.pathology.metrics import LesionFROC
from monai.metrics import compute_froc_curve_data

from ...data.record import Record
from ...writers.ome_tiff import reduced_strips
from .map_folder import MapFolder

# Longest axis of a lesion; below it there are isolated tumour cells.
ISOLATED_UM = 200
# Of a detection, unless the maps call less than this tumour.
SMALLEST_PROBABILITY = 0.5
FALSE_POSITIVES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True)
class FrocSlide:
    """One slide on a grid of square pixels of `mpp` micrometres; both arrays are made when they are needed.

    Args:
        mpp: micrometres per pixel of the grid.
        probability: float ``(H, W)`` in [0, 1].
        mask: uint8 ``(H, W)``, 1 where tumour.
    """

    mpp: float
    probability: Callable[[], np.ndarray]
    mask: Callable[[], np.ndarray]


def froc_slide(folder: MapFolder, record: Record, mpp: float) -> FrocSlide:
    """A slide with a finished map of tumour, both reduced to about `mpp` micrometres per pixel."""
    map_mpp = float(folder.row(record)["map_mpp"])
    factor = max(1, round(mpp / map_mpp))

    def probability() -> np.ndarray:
        with folder.open(record) as source:
            return np.concatenate(list(reduced_strips(source, factor))) / np.float32(255)

    def mask() -> np.ndarray:
        with folder.open(record) as source:
            grid = folder.grid(record, source)
        shape = (-(-grid.shape[0] // factor), -(-grid.shape[1] // factor))
        coarse = replace(grid, pixel_px=grid.pixel_px * factor, shape=shape)
        return np.concatenate([coarse.truth(*strip) for strip in coarse.strips()])

    return FrocSlide(map_mpp * factor, probability, mask)


class _MaskReader:
    """The interface through which `LesionFROC` reads masks."""

    def read(self, slide: FrocSlide) -> FrocSlide:
        return slide

    def get_data(self, slide: FrocSlide, level: int) -> tuple[np.ndarray, dict[str, Any]]:
        return slide.mask()[None], {}


class MapFROC(LesionFROC):
    """`monai.apps.pathology.LesionFROC` of slides that are not lists of files of one scanner.

    Detections are local maxima of the probability; lesions are regions of the mask grown by 37.5 um; both as MONAI has it, with
    its defaults. As in CAMELYON16, isolated tumour cells are neither lesions to find nor false alarms: regions whose longest
    axis is below 200 um, 275 um when grown.

    Deviation: MONAI's curve, like CAMELYON16's own script, leaves out the lowest of all thresholds, so that a map that finds
    the only lesion, without a false alarm, scores 0. Here that threshold's false alarms and sensitivity follow at the curve's
    end.

    Args:
        slides: to score; one is in memory at a time.
        smallest_probability: of a detection.
    """

    def __init__(self, slides: Sequence[FrocSlide], smallest_probability: float = SMALLEST_PROBABILITY) -> None:
        data = [{"slide": slide, "tumor_mask": slide, "level": 0, "pixel_spacing": slide.mpp} for slide in slides]
        # Its own reader is never used; of the kinds that it can have this one is there everywhere.
        super().__init__(data, itc_diameter=ISOLATED_UM, nms_prob_threshold=smallest_probability, image_reader_name="tifffile")
        self.image_reader: Any = _MaskReader()
        self._num_isolated = 0

    def prepare_inference_result(self, sample: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Probability, row and column of each detection."""
        # Maxima are erased one after the other, in a separate copy.
        found = self.nms(sample["slide"].probability().copy(), resolution_level=0)
        probabilities, rows, columns = (np.array([one[index] for one in found]) for index in range(3))
        return probabilities, rows.astype(np.int64), columns.astype(np.int64)

    def prepare_ground_truth(self, sample: dict[str, Any]) -> tuple[np.ndarray, list[int]]:
        """Numbered regions ``(H, W)``, and which of them are isolated tumour cells."""
        mask = sample["tumor_mask"].mask()
        if not mask.any():
            # MONAI would find a region at the corner: its distances are to pixels that are not there.
            return np.zeros(mask.shape, np.int64), []
        regions, isolated = super().prepare_ground_truth(
            {**sample, "tumor_mask": replace(sample["tumor_mask"], mask=lambda: mask)}
        )
        self._num_isolated += len(isolated)
        return regions, isolated

    def scores(self) -> dict[str, Any]:
        """The score, None without a lesion, and the sensitivity at each number of false positives a slide.

        Where there are isolated tumour cells, ``num_isolated`` is the number of their regions, which are left out.
        """
        self._num_isolated = 0
        false, true, num_lesions, num_slides = self.compute_fp_tp()
        left_out = {"num_isolated": self._num_isolated} if self._num_isolated else {}
        if num_lesions == 0:
            return {"froc": None, "num_lesions": 0, "num_slides": num_slides, "sensitivity_at": None, **left_out}
        at = _sensitivities(false, true, num_lesions, num_slides)
        return {
            "froc": float(at.mean()),
            "num_lesions": int(num_lesions),
            "num_slides": num_slides,
            "sensitivity_at": {f"{number:g}": float(value) for number, value in zip(FALSE_POSITIVES, at, strict=True)},
            **left_out,
        }


def _sensitivities(false: np.ndarray, true: np.ndarray, num_lesions: int, num_slides: int) -> np.ndarray:
    """Sensitivity at each of `FALSE_POSITIVES`, from the probabilities of false alarms and of lesions, 0 where none was found."""
    per_slide, sensitivity = compute_froc_curve_data(false, true, num_lesions, num_slides)
    at = np.interp(FALSE_POSITIVES, per_slide[::-1], sensitivity[::-1])
    # What the curve leaves out: every detection counts, also at just as many false alarms as the curve's last.
    most, highest = len(false) / num_slides, np.count_nonzero(true) / num_lesions
    beyond = np.array(FALSE_POSITIVES) >= per_slide[0]
    at[beyond] = np.interp(FALSE_POSITIVES, [per_slide[0], most], [sensitivity[0], highest])[beyond]
    return at
