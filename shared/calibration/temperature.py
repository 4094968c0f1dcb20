"""One temperature for a trained network's logits, fitted on validation labels, kept next to its weights, applied by inference."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..data.image_dataset import RegionDataset
from ..data.patches.tissue_regions import slide_regions
from ..data.record import Record
from ..inference.cohort.weights_hash import weights_sha256
from ..inference.mapper_options import WHOLE_IMAGE_PX
from ..inference.slide_mapper import SlideMapper
from ..inference.tiles.image_sizes import ImageSizes, mirrored_to
from ..metrics.calibration_error import LARGEST_TEMPERATURE, Reliability
from ..networks.probabilities import to_map_pixels
from ..networks.scaled_logits import ScaledLogits
from ..writers.atomic import atomic_path
from ..writers.figures.reliability import ReliabilityCurve, write_reliability
from ..wsi.formats import is_plain_picture
from ..wsi.slide_pool import open_slide
from .logit_samples import ClassPixels, ImageLabels, LogitSamples, TumourPixels

logger = logging.getLogger(__name__)


TEMPERATURE = "temperature.json"
LABELS = ("mask", "label")
# Of the largest and the smallest temperature that is tried, by which one counts as found at the end of the search.
AT_AN_END = 1e-3
SAMPLED_PIXELS = 2**22


def with_temperature(network: nn.Module, temperature: float | str | Path) -> nn.Module:
    """A network whose logits are divided by a temperature.

    Args:
        network: from images to logits.
        temperature: a number, 1 leaving the network as it is; or a ``temperature.json``, see `write_temperature`.

    Raises:
        ValueError: for a number that is not positive, or a file that cannot be read or was fitted for other weights.
    """
    value = _read(Path(temperature), network) if isinstance(temperature, str | Path) else temperature
    return network if value == 1 else ScaledLogits(network, value).eval()


def temperature_of(temperature: float | str | Path) -> float:
    """The temperature that `with_temperature` applies, as a number, for thresholds; its weights are not compared.

    Raises:
        ValueError: naming the file, if it cannot be read.
    """
    return _read(Path(temperature)) if isinstance(temperature, str | Path) else temperature


def collect_logits(
    mapper: SlideMapper, records: Sequence[Record], labels: str = "mask", regions_per_slide: int = 100
) -> LogitSamples:
    """The logits of a mapper's network on images with labels.

    Images that the mapper gives to its network whole are seen so, see `SlideMapper.sees_whole`; others, and slides, are seen in
    the mapper's tiles with tissue, whose margins do not count.

    Args:
        mapper: of a bundle, without a temperature.
        records: of a manifest.
        labels: ``"mask"`` for pixels, of images with a mask or with label 0; ``"label"`` for images, by the generalised mean of
            their pixels, which slides do not have.
        regions_per_slide: drawn from each slide's tissue, the same each time.

    Raises:
        ValueError: if there is nothing to fit to, naming manifest and split, or for what cannot be read, naming manifest, row
            and file.
    """
    if labels not in LABELS:
        raise ValueError(f"labels must be one of {', '.join(LABELS)}; got {labels!r}")
    if regions_per_slide < 1:
        raise ValueError(f"regions_per_slide must be at least 1, got {regions_per_slide}")
    known = [record for record in records if labels == "label" or record.get("mask") is not None or record.get("label") == 0]
    if not known:
        raise ValueError(f"{_of(records)}no image has a mask or label 0: give a manifest with masks, or use --labels label")
    seen = [part for record in known for part in _parts(record, mapper, labels, regions_per_slide)]
    if not seen:
        raise ValueError(
            f"{_of(known)}no region of tissue of {mapper.tiles.tile_size_px} px at {mapper.mpp:g} um per pixel in any of "
            f"{len({record['image'] for record in known})} slides: name another split, or a manifest of slides with more tissue"
        )
    samples = _samples(mapper, labels, len(seen))
    num_classes = len(mapper.class_names) if mapper.class_names else 2
    names = mapper.class_names if num_classes > 2 else None
    dataset = RegionDataset(
        seen, mpp=mapper.mpp, pixel_labels="mask" if labels == "mask" else None, num_classes=num_classes, class_names=names
    )
    for example in tqdm((dataset[index] for index in range(len(dataset))), "logits", len(dataset), unit="image", disable=None):
        logits = _logits(mapper, example["image"])
        if isinstance(samples, ImageLabels):
            samples.add(logits, example["label"])
        else:
            is_tile = seen[example["index"]].get("is_tile", False)
            samples.add(*_without_margin(logits, example["mask"][0], mapper.tiles.margin_px if is_tile else 0))
    return samples


def fit_temperature(network: nn.Module, samples: LogitSamples, notes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Fit a temperature for a network's weights; nothing is written.

    Args:
        network: whose weights these are: inference refuses the temperature for others.
        samples: of validation data.
        notes: what else the file of the temperature is to hold.

    Returns:
        what `write_temperature` writes: ``temperature``, scores (``ece``, ``mce``, ``nll``) ``before`` and ``after``,
        ``weights_sha256``.

    Raises:
        ValueError: if the data has no best temperature, or one beyond all that are tried.
    """
    temperature = samples.fit()
    _check_found(temperature)
    return {
        "temperature": temperature,
        **(notes or {}),
        "before": samples.reliability(1.0).scores(),
        "after": samples.reliability(temperature).scores(),
        "weights_sha256": weights_sha256(network),
    }


def write_temperature(folder: str | Path, fitted: Mapping[str, Any]) -> None:
    """Keep a temperature, of `fit_temperature`, next to the ``model.pt`` in a folder, as ``temperature.json``."""
    with atomic_path(Path(folder) / TEMPERATURE) as temporary:
        temporary.write_text(json.dumps(fitted, indent=2) + "\n")
    logger.info(f"temperature {fitted['temperature']:.3f}: {Path(folder) / TEMPERATURE}")


def write_reliability_report(
    folder: str | Path, samples: LogitSamples, temperature: float, title: str, notes: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The reliability curve as trained and with a temperature: ``reliability.json`` and ``reliability.png``.

    Args:
        folder: to write to, such as an evaluation's.
        samples: of the data to report, such as the test split.
        temperature: fitted on other data.
        title: of the figure.
        notes: what else to write to the file.

    Returns:
        what ``reliability.json`` holds: for ``before`` and ``after`` the scores and, a value a bin, ``counts``, ``confidence``
        and ``frequency`` (null where the bin is empty).
    """
    curves = {"before": samples.reliability(1.0), "after": samples.reliability(temperature)}
    result = {"temperature": temperature, **(notes or {}), **{name: _listed(curve) for name, curve in curves.items()}}
    names = {"before": "as trained", "after": f"temperature {temperature:.2f}"}
    drawn = {
        names[name]: ReliabilityCurve(curve.counts.tolist(), curve.confidence.tolist(), curve.frequency.tolist(), curve.ece)
        for name, curve in curves.items()
    }
    write_reliability(drawn, Path(folder) / "reliability.png", samples.quantity, title)
    with atomic_path(Path(folder) / "reliability.json") as temporary:
        temporary.write_text(json.dumps(result, indent=2) + "\n")
    return result


def _check_found(temperature: float) -> None:
    if abs(math.log(temperature)) < math.log(LARGEST_TEMPERATURE) - AT_AN_END:
        return
    why = "sharper: the network makes no mistake on these images"
    if temperature > 1:
        why = "flatter: the network's probabilities do not predict these labels, or predict the opposite"
    raise ValueError(
        f"no temperature fits: the search ended at {temperature:.4g}, its limit, because the likelihood only "
        f"grows as probabilities become {why}. No temperature.json was written: fit on other or more images (--fit_split), or "
        "check the labels and the pixel size"
    )


def _read(file: Path, network: nn.Module | None = None) -> float:
    if not file.is_file():
        raise ValueError(f"{file} does not exist: scripts/calibrate.py writes it; or give --temperature a number")
    try:
        saved = json.loads(file.read_text())
        temperature, weights = float(saved["temperature"]), saved["weights_sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} holds no temperature ({error!r}): run scripts/calibrate.py again") from error
    if network is not None and weights != weights_sha256(network):
        raise ValueError(f"{file} was fitted for other weights: run scripts/calibrate.py again, or give --temperature a number")
    return temperature


def _of(records: Sequence[Record]) -> str:
    """The manifest and the split of records, as an error begins with them; empty where no manifest names them."""
    if not records or records[0].get("manifest") is None:
        return ""
    split = records[0].get("split")
    return f"{records[0]['manifest']}{'' if split is None else f', split {split!r}'}: "


def _parts(record: Record, mapper: SlideMapper, labels: str, regions_per_slide: int) -> list[Record]:
    """The record itself, or, of what is too large, regions of it in tissue."""
    if record.get("width_px") is not None:
        return [record]
    slide = open_slide(record["image"], mpp=record.get("mpp"))
    is_plain = is_plain_picture(record["image"])
    if not slide.has_mpp and is_plain:
        # As it is stored: inference takes it so.
        record = {**record, "mpp": mapper.mpp}
    downsample = mapper.mpp / slide.mpp if slide.has_mpp else 1.0
    # An image's own label is of all of it, whatever its maps are made of.
    is_labelled_image = labels == "label" and is_plain and max(slide.size_px) / downsample <= WHOLE_IMAGE_PX
    if is_labelled_image or mapper.sees_whole(slide, downsample):
        return [record]
    if labels == "label":
        raise ValueError(
            f"{record['image']} is a slide of {slide.size_px[0]} x {slide.size_px[1]} px, but --labels label is for images"
        )
    num_classes = len(mapper.class_names) if mapper.class_names else 2
    tile_size_px, names = mapper.tiles.tile_size_px, mapper.class_names
    regions = slide_regions(record, tile_size_px, mapper.mpp, num_classes=num_classes, class_names=names)
    drawn = np.random.default_rng(0).permutation(len(regions))[:regions_per_slide]
    chosen = [regions[index] for index in sorted(drawn)]
    for region in chosen:
        region["is_tile"] = True
    return chosen


def _samples(mapper: SlideMapper, labels: str, num_images: int) -> LogitSamples:
    if labels == "label":
        if mapper.class_names:
            raise ValueError("--labels label is for tumour, and this network distinguishes several classes: give masks")
        return ImageLabels()
    return ClassPixels(max(1, SAMPLED_PIXELS // max(1, num_images))) if mapper.class_names else TumourPixels()


@torch.inference_mode()
def _logits(mapper: SlideMapper, image: Tensor) -> Tensor:
    """``(C, h, w)`` float32 on the CPU, of an image uint8 ``(3, H, W)``, in the precision in which the mapper maps."""
    height, width = image.shape[1:]
    shape = ImageSizes.of_network(mapper.network).accepted((height, width))
    device = mapper.compute.torch_device
    images = mirrored_to(image[None].to(device).float(), shape).contiguous(memory_format=torch.channels_last)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=mapper.compute.is_bfloat16):
        logits = mapper.network(images)
    logits = (logits[:, :, None, None] if logits.ndim == 2 else logits).float()
    if shape != (height, width) and logits.shape[2:] != (1, 1):
        logits = to_map_pixels(logits, shape)[:, :, :height, :width]
    return logits[0].cpu()


def _without_margin(logits: Tensor, mask: Tensor, margin_px: int) -> tuple[Tensor, Tensor]:
    """The core of a tile: of its logits ``(C, h, w)`` as many as lie wholly inside, and their part of the mask ``(H, W)``."""
    if margin_px == 0 or logits.shape[1] == 1:
        return logits, mask
    step = mask.shape[0] / logits.shape[1]
    first = int(np.ceil(margin_px / step - 1e-9))
    edge = round(first * step)
    return logits[:, first:-first, first:-first], mask[edge:-edge, edge:-edge]


def _listed(curve: Reliability) -> dict[str, Any]:
    lists = {name: getattr(curve, name).tolist() for name in ("counts", "confidence", "frequency")}
    return {**curve.scores(), **{name: [None if value != value else value for value in values] for name, values in lists.items()}}
