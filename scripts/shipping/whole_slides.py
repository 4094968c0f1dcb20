"""An evaluation of maps of whole slides in the words of one of images: the pixels in tissue count, a slide is a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd


def as_images(metrics: Mapping[str, Any], slides: pd.DataFrame) -> tuple[dict[str, Any], pd.DataFrame]:
    """Scores and rows of a `shared.evaluation.MapEvaluation`.

    Args:
        metrics: with ``pixels_tissue`` and ``slides``.
        slides: a row per test slide, named in ``slide``.

    Returns:
        ``pixels`` and ``images`` (the AUC of the slides' labels) of the method in addition to what else `metrics` has, and the
        rows with the slide's name in ``image``.

    Raises:
        ValueError: if some slides were left out of the scores of pixels.
    """
    if "num_slides_scored_by_pixel" in metrics:
        raise ValueError(
            f"only {metrics['num_slides_scored_by_pixel']} of {metrics['num_slides']} test slides have masks: a card has the "
            "scores of all, so score a split whose tumour slides all have masks, with truth mask"
        )
    # Those of groups and locations follow.
    method = next(iter(metrics["slides"]))
    images = {method: metrics["slides"][method]}
    return {**metrics, "pixels": metrics["pixels_tissue"], "images": images}, slides.rename(columns={"slide": "image"})
