"""The threshold of a tile classifier, from validation slides without pixel labels; and what batch normalisation does to it."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..data.bag_dataset import SlideBagDataset
from ..data.record import label_of
from ..engines.batches import SlideBags
from ..engines.distributed import barrier, over_dataset, rank, unwrap
from ..engines.inferers import BagInferer, fast_inferer
from ..engines.stage import CALIBRATION, WEIGHTS
from ..evaluation.maps.feature_maps import FeatureMaps
from ..evaluation.maps.split_maps import SplitMaps
from ..evaluation.report import number
from ..handlers.tracking import Tracking
from ..metrics.bag_ranking import bag_scores, top_share_of_histogram
from ..metrics.ranking import youden_threshold_of_histograms
from ..writers.atomic import atomic_path
from .carried_threshold import carried_threshold, carry_threshold
from .temperature import temperature_of

logger = logging.getLogger(__name__)


class Calibration:
    """Chooses the threshold for tumour, once, and keeps it in a file next to the weights, and in these (`carry_threshold`).

    The paper chooses it on validation slides, of which only the slides' labels are known. Here the validation slides are mapped
    as the test slides will be, the pixels of normal slides' tissue stand against the top alpha share of those of tumour slides,
    and the threshold has the largest sensitivity + specificity on them. Each slide counts as much as any other.

    A bag holds tiles of one slide, so batch normalisation learns with the statistics of single slides and predicts with their
    running mean. Both are measured: scores in eval mode, as everything later uses them, and in train mode, bag by bag.

    Args:
        file: JSON to write: ``threshold``, and for ``eval`` and ``train`` mode the scores of `shared.metrics.bag_scores`, and
            ``mode_gap``, the mean absolute difference of a tile's probability between the modes.
        dataset: of the validation slides; with ``with_shares``, tiles are also scored against the masks.
        network: trained; not changed.
        alpha: share of a tumour slide's tiles, and of its map, that is taken for tumour.
        device: to compute on.
        maps: the same slides, to be mapped by the network as it makes maps; of stored features `FeatureMaps`, which writes
            none.
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
        maps: SplitMaps | FeatureMaps,
        num_workers: int = 0,
        tracking: Tracking | None = None,
    ) -> None:
        self.file, self.dataset, self.network, self.alpha, self.maps = Path(file), dataset, network, alpha, maps
        self.device, self.num_workers, self.tracking = torch.device(device), num_workers, tracking

    def run(self) -> dict[str, Any]:
        """Score the slides and write the file; where it exists, read it. The weights beside it carry the threshold then.

        A stage that publishes other weights there removes the file, see `Stage.save_weights`. MLflow gets what the file holds
        either way: the run may have been killed before it was logged.
        """
        if not self.file.is_file():
            rows, histograms = self._score(), self.maps.tissue_histograms()
            if rank() == 0:
                labels = [label_of(record) for record in self.maps.records]
                self._write({"threshold": map_threshold(histograms, labels, self.alpha), **self.summarise(rows)})
        barrier()
        result = read_calibration(self.file)
        self._track(result)
        return result

    def summarise(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Scores of both modes, from one row per slide: ``label``, probabilities ``eval`` and ``train``, ``tumour_share``."""
        labels = [row["label"] for row in rows]
        shares = [row["tumour_share"] for row in rows]
        known = None if any(share is None for share in shares) else shares
        result: dict[str, Any] = {}
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

        def of_slide(batch: dict[str, Any]) -> list[dict[str, Any]]:
            tiles, _ = prepare(batch, self.device)
            share = batch["tumour_share"][0] if "tumour_share" in batch else None
            probabilities = {mode: _probabilities(infer(tiles, network)) for mode, network in modes.items()}
            return [{"label": int(batch["label"]), "tumour_share": share, **probabilities}]

        return over_dataset(self.dataset, of_slide, 1, self.num_workers, "calibration", "slide")

    def _write(self, result: dict[str, Any]) -> None:
        with atomic_path(self.file) as temporary:
            temporary.write_text(json.dumps(result, indent=2) + "\n")
        logger.info(f"calibration: threshold {result['threshold']:.4f}, mode gap {result['mode_gap']:.4f}; {self.file}")

    def _track(self, result: dict[str, Any]) -> None:
        if self.tracking is not None:
            flat = {f"{mode}.{name}": value for mode in ("eval", "train") for name, value in result.get(mode, {}).items()}
            flat |= {name: result.get(name) for name in ("threshold", "mode_gap")}
            logged = {name: value for name, value in flat.items() if value is not None}
            self.tracking.log_stage("calibration", logged, [self.file])
            self.tracking.finish_stage("calibration")


def map_threshold(histograms: Sequence[Tensor], labels: Sequence[int], alpha: float) -> float:
    """The threshold that separates normal slides' maps from the top of tumour slides' best, see `Calibration`.

    Args:
        histograms: of each slide's tissue pixels by the map's values, ``(256,)``; a slide without any is passed over.
        labels: of the slides, 0 or above.
        alpha: share of a tumour slide's map that is taken for tumour, in (0, 1].

    Returns:
        a multiple of 1/255, above 0: a map has no other values, and 0 is what it says of glass.

    Raises:
        ValueError: if no normal or no tumour slide has tissue.
    """
    totals = torch.zeros(2, 256, dtype=torch.float64)
    for histogram, label in zip(histograms, labels, strict=True):
        part = top_share_of_histogram(histogram, alpha) if label > 0 else histogram
        if part.sum():
            totals[int(label > 0)] += part / part.sum()
    # Back to counts, fine enough to tell single pixels apart: the choice is made in integers.
    counts = (totals * 2**31).round().long()
    return max(1, youden_threshold_of_histograms(counts)) / 255


def read_calibration(file: Path) -> dict[str, Any]:
    """What the file of a calibration holds, once the weights beside it carry its threshold; called by every process."""
    result = dict(json.loads(file.read_text()))
    if rank() == 0 and "threshold" in result:
        carry_threshold(file.with_name(WEIGHTS), result["threshold"])
    barrier()
    return result


def load_threshold(
    checkpoints: Sequence[str | Path], temperature: float | str | Path = 1.0, default: float | None = None
) -> float:
    """The threshold that a `Calibration` or an `ImageCalibration` has written next to a network's weights, or into them.

    ``calibration.json`` next to the weights decides, as it can be read and edited; weights that were copied without it carry
    the threshold themselves. Where the two differ, the log says so.

    Args:
        checkpoints: the network's ``model.pt``, in a list; of several networks that answer together none has the threshold.
        temperature: see `with_temperature`: of the network that makes the maps now. The threshold moves with the probabilities.
        default: for weights without a threshold, of a training that chose none; the log says so. None: there must be one.

    Raises:
        ValueError: for several networks, or if there is no threshold and no default, or the file holds none.
    """
    if len(checkpoints) != 1:
        raise ValueError(
            f"{len(checkpoints)} networks are averaged, and each has its own threshold: give --threshold a number, for "
            "instance one that looks right on validation slides (evaluate.json with --split val)"
        )
    file = Path(checkpoints[0]).parent / CALIBRATION
    carried = carried_threshold(checkpoints[0])
    if not file.is_file():
        if carried is not None:
            return _at_temperature(carried, temperature)
        if default is None:
            raise ValueError(
                f"{file} does not exist: train first (the last stage but one writes it), or give --threshold a number"
            )
        logger.warning(f"{file} does not exist: this training chose no threshold, so {default:g} is used (--threshold)")
        return _at_temperature(default, temperature)
    try:
        threshold = float(json.loads(file.read_text())["threshold"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} holds no threshold ({error!r}): delete it and run the training again") from error
    if carried is not None and carried != threshold:
        logger.warning(
            f"{file} has a threshold of {threshold:g}, and {checkpoints[0]} carries {carried:g}: the file decides. Unless it was "
            "edited, it belongs to other weights"
        )
    return _at_temperature(threshold, temperature)


def _at_temperature(threshold: float, temperature: float | str | Path) -> float:
    if temperature == 1:
        return threshold
    return float((torch.tensor(threshold, dtype=torch.float64).logit() / temperature_of(temperature)).sigmoid())


def _probabilities(logits: Tensor) -> Tensor:
    return logits[0].sigmoid().cpu()
