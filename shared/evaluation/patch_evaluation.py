"""A tile classifier on PatchCamelyon: what ``patch_camelyon.json`` of the alpha/beta bundle runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.inferers import SimpleInferer
from torch import Tensor, nn

from ..data.public.patch_camelyon import PATCH_SIZE_PX, PatchCamelyonDataset, upsample_and_pad
from ..engines.distributed import unwrap
from ..engines.inferers import fast_inferer
from ..metrics.binary import binary_counts
from ..metrics.ranking import roc_auc
from .image_evaluation import ImageEvaluation, ImageRow, Panels
from .report import number, pooled_scores
from .table import LABEL_COLUMNS, score_block

COLUMNS = {"auc": "AUC", **LABEL_COLUMNS}
# The pixels of a patch that its label speaks of.
CENTRE = slice(32, 64)


@dataclass(kw_only=True, eq=False)
class PatchCamelyonEvaluation(ImageEvaluation):
    """`ImageEvaluation` of a tile classifier on PatchCamelyon, as the paper scores it.

    Patches become tiles by `upsample_and_pad`; a tile's score is its logit, or the mean of a dense network's. ``images.csv`` has
    the columns ``index``, ``label`` and ``probability``, not rounded; the figure lays label and probability over the centre of
    32 x 32 px that they speak of. On CUDA, and on CPUs that are faster so, the network computes in bfloat16; patches with the
    same logit then share their ranks in the AUC.

    Args:
        dataset: the patches of a split.
        network: RGB ``(B, 3, 224, 224)``, float32, 0 to 255, to tumour logits ``(B, 1)`` or ``(B, 1, h, w)``.
        threshold: least probability that is decided to be tumour, in [0, 1]; the AUC does not depend on it.

    Raises:
        ValueError: if the threshold is out of range; in `run`, if the network's output has another shape or is NaN.

    Reference:
        Lerousseau et al., MICCAI 2020, section 4: AUC .802 with (alpha, beta) = (0.2, 0.2), .963 fully supervised.
    """

    dataset: PatchCamelyonDataset
    network: nn.Module
    batch_size: int = 64
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold must be a probability; got {self.threshold}")

    def count(self, batch: Mapping[str, Any]) -> Iterator[tuple[ImageRow, float]]:
        """A patch's row, still without its probability, and its logit."""
        network = unwrap(self.network).to(self.device).eval()
        tiles = upsample_and_pad(batch["image"].to(self.device)).contiguous(memory_format=torch.channels_last)
        logits = tile_logits(fast_inferer(SimpleInferer(), self.device)(tiles, network)).tolist()
        for index, label, logit in zip(batch["index"].tolist(), batch["label"].tolist(), logits, strict=True):
            yield {"index": index, "label": label}, logit

    def metrics(self, rows: Sequence[ImageRow], counts: Sequence[float]) -> dict[str, Any]:
        logits, labels = torch.tensor(counts, dtype=torch.float64), self.dataset.labels
        probability = logits.sigmoid()
        for row, value in zip(rows, probability.tolist(), strict=True):
            row["probability"] = value
        # Ranked as logits: probabilities close to 1 are equal before these are.
        auc = number(roc_auc(logits, labels))
        scores = {"auc": auc, **pooled_scores(binary_counts(probability >= self.threshold, labels))}
        return {"num_images": len(rows), "threshold": self.threshold, "images": {self.method: scores}}

    def panels(self, example: Mapping[str, Any], row: ImageRow, counts: Any) -> Panels:
        return {"label": _centre_map(row["label"]), self.method: _centre_map(row["probability"])}

    def example_title(self, row: ImageRow) -> str:
        return f"patch {row['index']}\nlabel {row['label']}, {row['probability']:.2f}"

    def text(self, metrics: Mapping[str, Any]) -> str:
        table = score_block("PatchCamelyon (%)", metrics["images"], COLUMNS)
        return (
            f"{table}\n{metrics['num_images']} patches, counted as tumour from a probability of {self.threshold:g}; "
            f"metrics.json, images.csv and examples.png are in {self.folder}"
        )


def tile_logits(outputs: Tensor) -> Tensor:
    """One logit a tile: the network's own, or the mean over its map.

    Args:
        outputs: ``(B, 1)`` or ``(B, 1, h, w)``.

    Returns:
        float32 ``(B,)``.

    Raises:
        ValueError: if the shape is another.

    >>> tile_logits(torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]]))
    tensor([3.])
    """
    if outputs.ndim not in (2, 4) or outputs.shape[1] != 1:
        raise ValueError(f"the network's logits must be (B, 1) or (B, 1, h, w); got {tuple(outputs.shape)}")
    return outputs.float().flatten(1).mean(1)


def _centre_map(share: float) -> np.ndarray:
    """``(96, 96)``: `share` in the centre, 0 around it."""
    shares = np.zeros((PATCH_SIZE_PX, PATCH_SIZE_PX), dtype=np.float32)
    shares[CENTRE, CENTRE] = share
    return shares
