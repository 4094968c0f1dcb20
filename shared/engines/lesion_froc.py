"""How well maps find single lesions: CAMELYON16's FROC, computed by MONAI, of maps and masks that are read in strips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from monai.apps.pathology.metrics import LesionFROC
from monai.metrics import compute_froc_curve_data, compute_froc_score

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


class _MaskReader:
    """What `LesionFROC` asks for its masks."""

    def read(self, slide: FrocSlide) -> FrocSlide:
        return slide

    def get_data(self, slide: FrocSlide, level: int) -> tuple[np.ndarray, dict[str, Any]]:
        return slide.mask()[None], {}


class MapFROC(LesionFROC):
    """`monai.apps.pathology.LesionFROC` of slides that are not lists of files of one scanner.

    Detections are local maxima of the probability; lesions are regions of the mask grown by 37.5 um, without isolated tumour
    cells; both as MONAI has it, with its defaults.

    Args:
        slides: to score; one is in memory at a time.
        smallest_probability: of a detection.
    """

    def __init__(self, slides: Sequence[FrocSlide], smallest_probability: float = 0.5) -> None:
        data = [{"slide": slide, "tumor_mask": slide, "level": 0, "pixel_spacing": slide.mpp} for slide in slides]
        # Its own reader is never used; of the kinds that it can have this one is there everywhere.
        super().__init__(data, nms_prob_threshold=smallest_probability, image_reader_name="tifffile")
        self.image_reader: Any = _MaskReader()

    def prepare_inference_result(self, sample: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Probability, row and column of each detection."""
        # Maxima are erased one after the other, in a copy of its own.
        found = self.nms(sample["slide"].probability().copy(), resolution_level=0)
        probabilities, rows, columns = (np.array([one[index] for one in found]) for index in range(3))
        return probabilities, rows.astype(np.int64), columns.astype(np.int64)

    def scores(self) -> dict[str, Any]:
        """The score, None without a lesion, and the sensitivity at each number of false positives a slide."""
        false, true, num_lesions, num_slides = self.compute_fp_tp()
        if num_lesions == 0:
            return {"froc": None, "num_lesions": 0, "num_slides": num_slides, "sensitivity_at": None}
        per_slide, sensitivity = compute_froc_curve_data(false, true, num_lesions, num_slides)
        at = np.interp(FALSE_POSITIVES, per_slide[::-1], sensitivity[::-1])
        return {
            "froc": float(compute_froc_score(per_slide, sensitivity, FALSE_POSITIVES)),
            "num_lesions": int(num_lesions),
            "num_slides": num_slides,
            "sensitivity_at": {f"{number:g}": float(value) for number, value in zip(FALSE_POSITIVES, at, strict=True)},
        }
