"""A tile classifier on PatchCamelyon: what ``patch_camelyon.json`` of the alpha/beta bundle runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from monai.inferers import SimpleInferer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from ..data.public.patch_camelyon import PATCH_SIZE_PX, PatchCamelyonDataset, upsample_and_pad
from ..engines.distributed import barrier, gather_in_order, num_processes, rank, unwrap
from ..engines.inferers import fast_inferer
from ..handlers.tracking import Tracking
from ..metrics.binary import binary_counts
from ..metrics.ranking import roc_auc
from ..writers.figures.examples import ExampleRow
from .report import example_indices, number, pooled_scores, write_report
from .table import INSTANCE_COLUMNS

COLUMNS = {"auc": "AUC", **INSTANCE_COLUMNS}
# The pixels of a patch that its label speaks of.
CENTRE = slice(32, 64)


class PatchCamelyonEvaluation:
    """Scores a tile classifier on PatchCamelyon as the paper does; writes numbers, a row a patch and a figure.

    Patches become tiles by `upsample_and_pad`; a tile's score is its logit, or the mean of a dense network's. Into `folder` go
    ``metrics.json``, ``images.csv`` (``index``, ``label``, ``probability``, not rounded) and ``examples.png``, where the label
    and the probability are laid over the centre of 32 x 32 px that they speak of. On CUDA, and on CPUs that are faster so, the
    network computes in bfloat16; patches with the same logit then share their ranks in the AUC.

    Args:
        folder: to write to.
        dataset: the patches of a split.
        network: RGB ``(B, 3, 224, 224)``, float32, 0 to 255, to tumour logits ``(B, 1)`` or ``(B, 1, h, w)``.
        method: the network's name in the table.
        device: to compute on.
        batch_size: patches a forward pass.
        num_workers: processes that read.
        threshold: least probability that is decided to be tumour, in [0, 1]; the AUC does not depend on it.
        num_examples: rows of the figure; 0 for no figure.
        tracking: MLflow runs to log to.

    Raises:
        ValueError: if the threshold is out of range; in `run`, if the network's output has another shape or is NaN.

    Reference:
        Lerousseau et al., MICCAI 2020, section 4: AUC .802 with (alpha, beta) = (0.2, 0.2), .963 fully supervised.
    """

    def __init__(
        self,
        folder: str | Path,
        dataset: PatchCamelyonDataset,
        network: nn.Module,
        method: str,
        device: torch.device | str,
        batch_size: int = 64,
        num_workers: int = 0,
        threshold: float = 0.5,
        num_examples: int = 6,
        tracking: Tracking | None = None,
    ) -> None:
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold must be a probability; got {threshold}")
        self.folder, self.dataset, self.network, self.method = Path(folder), dataset, network, method
        self.device, self.batch_size, self.num_workers = torch.device(device), batch_size, num_workers
        self.threshold, self.num_examples, self.tracking = threshold, num_examples, tracking

    def run(self) -> dict[str, Any]:
        """Evaluate, write the files, print the table; return what ``metrics.json`` holds."""
        logits, labels = self._logits(), self.dataset.labels
        probability = logits.sigmoid()
        # Ranked as logits: probabilities close to 1 are equal before these are.
        auc = number(roc_auc(logits, labels))
        scores = {"auc": auc, **pooled_scores(binary_counts(probability >= self.threshold, labels))}
        metrics: dict[str, Any] = {"num_images": len(labels), "threshold": self.threshold, "images": {self.method: scores}}
        if rank() == 0:
            frame = pd.DataFrame({"index": range(len(labels)), "label": labels, "probability": probability})
            title = f"{self.method}: examples of PatchCamelyon"
            write_report(self.folder, metrics, frame, self._examples(probability), title, self._table(metrics), self.tracking)
        barrier()
        return metrics

    @torch.inference_mode()
    def _logits(self) -> Tensor:
        """Of every patch, in the data set's order: float64 ``(n,)``."""
        network = unwrap(self.network).to(self.device).eval()
        infer = fast_inferer(SimpleInferer(), self.device)
        share = Subset(self.dataset, range(rank(), len(self.dataset), num_processes()))
        loader = DataLoader(share, self.batch_size, num_workers=self.num_workers)
        logits: list[float] = []
        for batch in tqdm(loader, desc="PatchCamelyon", unit="batch", disable=None if rank() == 0 else True, leave=False):
            tiles = upsample_and_pad(batch["image"].to(self.device))
            logits += tile_logits(infer(tiles.contiguous(memory_format=torch.channels_last), network)).tolist()
        return torch.tensor(gather_in_order(logits), dtype=torch.float64)

    def _examples(self, probability: Tensor) -> list[ExampleRow]:
        rows = []
        for index in example_indices(self.dataset.labels.tolist(), self.num_examples):
            item = self.dataset[index]
            panels: dict[str, np.ndarray | None] = {
                "label": _centre_map(item["label"]),
                self.method: _centre_map(float(probability[index])),
            }
            title = f"patch {index}\nlabel {item['label']}, {probability[index]:.2f}"
            rows.append(ExampleRow(title, item["image"].permute(1, 2, 0).numpy(), panels))
        return rows

    def _table(self, metrics: Mapping[str, Any]) -> str:
        """The scores as a text table, in per cent, as `score_table` prints those of the other evaluations."""
        title, scores = "PatchCamelyon (%)", metrics["images"][self.method]
        width = max(len(title), len(self.method)) + 2
        cells = ["-" if scores[name] is None else f"{100 * scores[name]:.1f}" for name in COLUMNS]
        return "\n".join(
            [
                title.ljust(width) + "".join(f"{header:>15}" for header in COLUMNS.values()),
                self.method.ljust(width) + "".join(f"{cell:>15}" for cell in cells),
                "",
                f"{metrics['num_images']} patches, tumour from a probability of {self.threshold:g}; "
                f"metrics.json, images.csv and examples.png are in {self.folder}",
            ]
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
