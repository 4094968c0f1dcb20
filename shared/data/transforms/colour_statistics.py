"""Mean and deviation of the colours of training images, by which networks normalise them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ...writers.atomic import contended_path
from ..image_dataset import RegionDataset, read_image

IMAGENET, TRAINING = "imagenet", "training"


def check_pixel_normalization(of: str, has_encoder: bool = False) -> None:
    """Check by whose colours a network is to normalise its images, before anything is read or written.

    Args:
        of: ``"imagenet"`` or ``"training"``.
        has_encoder: whether the network is a head on an encoder.

    Raises:
        ValueError: for another value, or for training images with an encoder, which normalises colours as its own weights demand.
    """
    if of not in (IMAGENET, TRAINING):
        raise ValueError(f"pixel_normalization must be {IMAGENET} or {TRAINING}; got {of!r}")
    if has_encoder and of != IMAGENET:
        raise ValueError(
            f"pixel_normalization must be {IMAGENET} with features.json and finetune.json, because an encoder normalises colours "
            f"as it was trained; got {of!r}"
        )


def colour_statistics(
    dataset: RegionDataset, file: str | Path, of: str = IMAGENET, num_workers: int = 0
) -> dict[str, list[float]] | None:
    """Mean and standard deviation of red, green and blue over all pixels of a data set; None for those of ImageNet.

    Args:
        dataset: training images, taken as they are read, without their transforms.
        file: JSON that keeps the result of a data set; where it exists it is read.
        of: ``"imagenet"`` or ``"training"``.
        num_workers: processes that read.

    Returns:
        ``mean`` and ``std``, three values each, as shares of 255; None where a network keeps those of ImageNet, which it has.

    Raises:
        ValueError: for another `of`, an image that cannot be read, or images of one colour.

    Reference:
        The released code of Ciga and Martel takes them of the masked training images.
    """
    check_pixel_normalization(of)
    if of == IMAGENET:
        return None
    file = Path(file)
    if file.is_file():
        return dict(json.loads(file.read_text()))
    total = torch.zeros(3, 3, dtype=torch.float64)
    # Not the generator of the process, which a training that finds the file would not have asked.
    generator = torch.Generator()
    loader: DataLoader[Tensor] = DataLoader(_Moments(dataset), batch_size=None, num_workers=num_workers, generator=generator)
    for moments in tqdm(loader, desc="colours of the images", unit="image", disable=None):
        total += moments
    sums, squares, counts = total
    mean = sums / counts
    deviation = (squares / counts - mean**2).clamp(min=0).sqrt()
    if not bool((deviation > 0).all()):
        raise ValueError(f"the {len(dataset)} images have one value of red, green or blue: their colours cannot be normalised")
    found = {"mean": mean.tolist(), "std": deviation.tolist()}
    with contended_path(file) as temporary:
        temporary.write_text(json.dumps(found, indent=2) + "\n")
    return found


class _Moments(Dataset[Tensor]):
    """Item ``i``: of image ``i`` sums, sums of squares and number of pixels of each channel, float64 ``(3, 3)``."""

    def __init__(self, dataset: RegionDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset.data)

    def __getitem__(self, index: int) -> Tensor:
        dataset = self.dataset
        image = read_image(dataset.data[index], dataset.mpp, dataset.size_px, stretch=dataset.stretch)
        pixels = image.flatten(1).double() / 255
        return torch.stack([pixels.sum(1), (pixels**2).sum(1), torch.full((3,), pixels.shape[1], dtype=torch.float64)])
