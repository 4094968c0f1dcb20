"""The closing table of CDWS-MIL, and of its ``evaluate.json``: regions, boundaries and pixels of every map against the masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from monai.inferers import SimpleInferer
from torch import Tensor, nn

from ..data.image_dataset import RegionDataset
from ..engines.distributed import num_processes, unwrap
from ..engines.inferers import fast_inferer
from ..front_door.cores import available_cores
from ..losses.power_mean import log_generalized_mean
from ..losses.superpixels import superpixel_means
from ..metrics.binary import binary_counts
from ..metrics.boundary import BOUNDARY_THRESHOLDS, boundary_counts, ods_of_counts
from ..metrics.region import region_f_measure
from .image_evaluation import ImageEvaluation, ImageRow, Panels
from .report import COUNTS, everything_is_tumour, image_columns, image_table, number, pixel_scores, pooled_scores
from .score_pool import ScorePool

THRESHOLD = 0.5


@dataclass(kw_only=True, eq=False)
class RegionEvaluation(ImageEvaluation):
    """`ImageEvaluation` of every side output and of their fusion, as the paper scores them.

    The rows of ``images.csv`` are of the fusion. Region F is a mean over images, of tumour images (CA), of the others (NC) and
    of all; boundary ODS is of tumour images; pixels are pooled over all images, and "everything is tumour" is scored on them
    too.

    Args:
        dataset: with ``pixel_labels: mask``; without, only the images' labels are scored. With super-pixels, a map's values are
            their means.
        network: with ``maps(images)``, the probabilities ``(B, T + 1, H, W)`` of T side outputs and, last, of their fusion; a
            segmentation network as `shared.evaluation.ProbabilityMaps`. Where it has ``image_probability(images)``, ``(B,)``,
            that decides the image's label, else the generalised mean of the fusion.
        method: the fusion's name in the table.
        generalized_mean_r: r of an image's own probability (equation 2).
        amp: compute maps in bfloat16 where the device is faster so, as `shared.inference.Compute` does.
        pool: scores maps in as many processes as there are cores, where that is worth starting them; the scores are the same.

    Reference:
        Jia et al., IEEE TMI 2017, section V.B and tables II to VI.
    """

    dataset: RegionDataset
    network: nn.Module
    generalized_mean_r: float = 4.0
    amp: bool = True
    pool: ScorePool = field(default_factory=lambda: ScorePool(max(1, available_cores() // num_processes())))

    def count(self, batch: Mapping[str, Any]) -> Iterator[tuple[ImageRow, list[dict[str, Any]]]]:
        """An image's row, and what each of its maps scores, see `score_map`; nothing without a mask."""
        maps = self._maps(batch["image"], batch.get("superpixels"))
        image_probability = self._image_probability(batch["image"], maps)
        all_scores = iter(self._scores(maps, batch))
        for position, index in enumerate(batch["index"].tolist()):
            row = image_columns(self.dataset.data[index])
            row["max_probability"] = float(maps[position, -1].max())
            row["image_probability"] = round(float(image_probability[position]), 6)
            scores = []
            if "mask" in batch:
                scores = next(all_scores)
                row |= dict(zip(COUNTS, scores[-1]["counts"], strict=True))
                row["region_f"] = round(scores[-1]["f"], 6)
            yield row, scores

    def run(self) -> dict[str, Any]:
        with self.pool:
            return super().run()

    def _scores(self, maps: Tensor, batch: Mapping[str, Any]) -> list[list[dict[str, Any]]]:
        """`score_map` of every map of every image that has a mask."""
        if "mask" not in batch:
            return []
        masks = batch["mask"][:, 0].numpy()
        labels = [self.dataset.data[index]["label"] for index in batch["index"].tolist()]
        arguments = [
            (map_, mask, label) for of_image, mask, label in zip(maps.numpy(), masks, labels, strict=True) for map_ in of_image
        ]
        scores, num_maps = self.pool.map(score_map, arguments), maps.shape[1]
        return [scores[start : start + num_maps] for start in range(0, len(scores), num_maps)]

    def metrics(self, rows: Sequence[ImageRow], counts: Sequence[list[dict[str, Any]]]) -> dict[str, Any]:
        is_tumour = torch.tensor([row["label"] > 0 for row in rows])
        decided = torch.tensor([row["image_probability"] for row in rows]) >= THRESHOLD
        metrics: dict[str, Any] = {
            "split": self.split,
            "num_images": len(rows),
            "images": {self.method: pooled_scores(binary_counts(decided, is_tumour))},
        }
        if self.dataset.pixel_labels is not None:
            names = self._names(len(counts[0]))
            scores = {name: [image[index] for image in counts] for index, name in enumerate(names)}
            metrics["regions"] = {name: region_scores(images, is_tumour) for name, images in scores.items()}
            metrics["boundaries"] = {name: _boundary_scores(images) for name, images in scores.items()}
            pixels = {name: torch.tensor([image["counts"] for image in images]) for name, images in scores.items()}
            metrics["pixels"] = {name: pixel_scores(values) for name, values in pixels.items()}
            metrics["pixels"]["Everything is tumour"] = pixel_scores(everything_is_tumour(pixels[self.method]))
        return metrics

    def panels(self, example: Mapping[str, Any], row: ImageRow, counts: Any) -> Panels:
        superpixels = example["superpixels"][None] if "superpixels" in example else None
        maps = self._maps(example["inputs"][None], superpixels)[0].numpy()
        truth = example["mask"][0].numpy() if "mask" in example else None
        return {"truth": truth} | dict(zip(self._names(len(maps)), maps, strict=True))

    def image_rows(self, rows: Sequence[ImageRow]) -> pd.DataFrame:
        return image_table(rows)

    def _names(self, num_maps: int) -> list[str]:
        """Names of the maps in the table; a single side output is its own fusion."""
        stages: Any = unwrap(self.network).side_outputs
        return [*(f"Side output {stage}" for stage in stages if num_maps > 1), self.method]

    def _image_probability(self, images: Tensor, maps: Tensor) -> Tensor:
        """``(B,)``, by the network's own word or from its maps ``(B, T + 1, H, W)``."""
        network: Any = unwrap(self.network)
        if hasattr(network, "image_probability"):
            return self._infer(images, network.image_probability).cpu()
        log_fusion = maps[:, -1].clamp_min(torch.finfo(maps.dtype).tiny).log()
        return log_generalized_mean(log_fusion, self.generalized_mean_r).exp()

    def _maps(self, images: Tensor, superpixels: Tensor | None) -> Tensor:
        """``(B, T + 1, H, W)`` on the CPU, or ``(B, 1, H, W)`` of a network with one side output."""
        network: Any = unwrap(self.network).to(self.device).eval()
        maps = self._infer(images, network.maps)
        maps = maps[:, -1:] if maps.shape[1] == 2 else maps
        if superpixels is not None:
            maps = _superpixel_maps(maps, superpixels.to(self.device))
        return maps.float().cpu()

    def _infer(self, images: Tensor, answer: Callable[[Tensor], Tensor]) -> Tensor:
        infer = fast_inferer(SimpleInferer(), self.device) if self.amp else SimpleInferer()
        values: Tensor = infer(self.on_device(images), answer)
        return values


def _superpixel_maps(maps: Tensor, superpixels: Tensor) -> Tensor:
    """Every pixel of ``(B, C, H, W)`` gets the mean of its super-pixel, whose ids are ``(B, 1, H, W)``."""
    means, _ = superpixel_means(maps, superpixels)
    ids = superpixels.long().flatten(2).expand(-1, maps.shape[1], -1)
    return means.gather(2, ids).reshape(maps.shape)


def score_map(map_: np.ndarray, truth: np.ndarray, label: int) -> dict[str, Any]:
    """The scores of one map ``(H, W)`` of one image: pixel counts, region F, mean probability and, of tumour, boundary counts."""
    probability, mask = torch.from_numpy(map_), torch.from_numpy(truth)
    decided = probability >= THRESHOLD
    return {
        "counts": binary_counts(decided, mask).tolist(),
        "f": float(region_f_measure(decided, mask, torch.tensor(int(label > 0)))),
        "mean_probability": float(probability.mean()),
        "boundary": boundary_counts(map_, truth) if label > 0 else None,
    }


def region_scores(images: Sequence[dict[str, Any]], is_tumour: Tensor) -> dict[str, float | None]:
    """Means over images of what `score_map` gives: region F of CA, NC and all images; of CA also predicted and true areas, and
    the mean probability, which is what the area constraint bounds."""
    f = torch.tensor([image["f"] for image in images], dtype=torch.float64)
    means = torch.tensor([image["mean_probability"] for image in images], dtype=torch.float64)
    counts = torch.tensor([image["counts"] for image in images], dtype=torch.float64)
    tp, fp, fn, _ = counts.unbind(1)
    pixels = counts.sum(1)
    return {
        "f_ca": number(f[is_tumour].mean()),
        "f_nc": number(f[~is_tumour].mean()),
        "f_all": number(f.mean()),
        "predicted_area_ca": number(((tp + fp) / pixels)[is_tumour].mean()),
        "mean_probability_ca": number(means[is_tumour].mean()),
        "true_area_ca": number(((tp + fn) / pixels)[is_tumour].mean()),
    }


def _boundary_scores(images: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    counts = [image["boundary"] for image in images if image["boundary"] is not None]
    if not counts:
        return {"ods": None, "precision": None, "recall": None, "threshold": None}
    score = ods_of_counts(np.sum(counts, axis=0), BOUNDARY_THRESHOLDS)
    return {"ods": score.f, "precision": score.precision, "recall": score.recall, "threshold": score.threshold}
