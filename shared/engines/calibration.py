"""The threshold of a tile classifier, from validation slides without pixel labels; and what batch normalisation does to it."""

from __future__ import annotations

import copy
import json
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from ..data import SlideBagDataset
from ..handlers import Tracking
from ..metrics.bag_ranking import bag_scores, proxy_tiles
from ..metrics.ranking import youden_threshold
from ..writers import atomic_path
from .distributed import barrier, gather_in_order, num_processes, rank, unwrap
from .evaluation_report import number
from .inferers import fast_inferer
from .slide_bags import BagInferer, SlideBags

logger = logging.getLogger(__name__)


class Calibration:
    """Chooses the threshold for tumour, once, and keeps it in a file beside the weights.

    The paper chooses it on validation slides, of which only the slides' labels are known. Here the tiles of normal slides stand
    against the top alpha tiles of tumour slides, and the threshold has the largest sensitivity + specificity on them.

    A bag holds tiles of one slide, so batch normalisation learns with the statistics of single slides and predicts with their
    running mean. Both are measured: scores in eval mode, as everything later uses them, and in train mode, bag by bag.

    Args:
        file: JSON to write: ``threshold``, and for ``eval`` and ``train`` mode the scores of `shared.metrics.bag_scores`, and
            ``mode_gap``, the mean absolute difference of a tile's probability between the modes.
        dataset: of the validation slides; with ``with_shares``, tiles are also scored against the masks.
        network: trained; not changed.
        alpha: share of a tumour slide's tiles that are taken for tumour.
        device: to compute on.
        num_workers: processes that read.
        tracking: MLflow runs to log to.
    """

    def __init__(
        self,
        file: str | Path,
        dataset: SlideBagDataset,
        network: nn.Module,
        alpha: float,
        device: torch.device | str,
        num_workers: int = 0,
        tracking: Tracking | None = None,
    ) -> None:
        self.file, self.dataset, self.network, self.alpha = Path(file), dataset, network, alpha
        self.device, self.num_workers, self.tracking = torch.device(device), num_workers, tracking

    def run(self) -> dict[str, Any]:
        """Score the slides and write the file; where it exists, read it."""
        if not self.file.is_file():
            rows = self._score()
            if rank() == 0:
                self._write(self.summarise(rows))
        barrier()
        return dict(json.loads(self.file.read_text()))

    def summarise(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """What the file holds, from a row a slide: ``label``, ``eval`` and ``train`` probabilities, ``tumour_share`` or None."""
        labels = [row["label"] for row in rows]
        shares = [row["tumour_share"] for row in rows]
        known = None if any(share is None for share in shares) else shares
        threshold = youden_threshold(*proxy_tiles([row["eval"] for row in rows], labels, self.alpha))
        # Maps are of 255 steps, and a probability of 0 is what they say of glass.
        result: dict[str, Any] = {"threshold": min(1.0, max(1 / 255, threshold))}
        for mode in ("eval", "train"):
            scores = bag_scores([row[mode] for row in rows], labels, self.alpha, known)
            result[mode] = {name: number(torch.tensor(value)) for name, value in scores.items()}
        gaps = torch.cat([(row["eval"] - row["train"]).abs() for row in rows])
        return result | {"mode_gap": float(gaps.mean()), "num_slides": len(rows)}

    @torch.inference_mode()
    def _score(self) -> list[dict[str, Any]]:
        plain = unwrap(self.network).to(self.device)
        # A copy, because train mode changes the running statistics.
        modes = {"eval": plain.eval(), "train": copy.deepcopy(plain).train()}
        infer, prepare = fast_inferer(BagInferer(per_tile=True), self.device), SlideBags()
        share = Subset(self.dataset, range(rank(), len(self.dataset), num_processes()))
        rows = []
        for batch in tqdm(DataLoader(share, 1, num_workers=self.num_workers), desc="calibration", unit="slide", disable=None):
            tiles, _ = prepare(batch, self.device)
            row: dict[str, Any] = {"label": int(batch["label"]), "tumour_share": None}
            if "tumour_share" in batch:
                row["tumour_share"] = batch["tumour_share"][0]
            row |= {mode: _probabilities(infer(tiles, network)) for mode, network in modes.items()}
            rows.append(row)
        return gather_in_order(rows)

    def _write(self, result: dict[str, Any]) -> None:
        with atomic_path(self.file) as temporary:
            temporary.write_text(json.dumps(result, indent=2) + "\n")
        logger.info(f"calibration: threshold {result['threshold']:.4f}, mode gap {result['mode_gap']:.4f}; {self.file}")
        if self.tracking is not None:
            flat = {f"{mode}.{name}": value for mode in ("eval", "train") for name, value in result[mode].items()}
            logged = {name: value for name, value in flat.items() if value is not None}
            logged |= {name: result[name] for name in ("threshold", "mode_gap")}
            self.tracking.log_stage("calibration", logged, [self.file])
            self.tracking.finish_stage("calibration")


def load_threshold(file: str | Path) -> float:
    """The threshold that a `Calibration` has written.

    Raises:
        ValueError: if there is no such file, or it holds no threshold.
    """
    file = Path(file)
    if not file.is_file():
        raise ValueError(f"{file} does not exist: train first (its last stage but one writes it), or give --threshold a number")
    try:
        return float(json.loads(file.read_text())["threshold"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} holds no threshold ({error!r}): delete it and run the training again") from error


def _probabilities(logits: Tensor) -> Tensor:
    return logits[0].sigmoid().cpu()
