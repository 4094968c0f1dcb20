"""Instances of embedded images, cut from the features of the whole image: what they border on has had its influence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ..data.labels.lattice import gather_instances, instance_region
from ..data.record import Record, record_error
from ..data.seeded import draw_key
from ..wsi.slide_pool import open_slide
from .copies import turned
from .images import EmbeddedImages


class EmbeddedInstances(Dataset):
    """Labelled instances as features ``(C, h / N, w / N)``: items ``image``, ``label`` and ``index``.

    Where the images have copies, an item is the instance in one of them.

    Args:
        images: the training images that the instances are part of.
        data: records of the instances, as `shared.engines.Construct` writes them.
        instances_per_side: N.

    Raises:
        ValueError: naming the row of an instance that belongs to none of these images.
    """

    def __init__(self, images: EmbeddedImages, data: Sequence[Record], instances_per_side: int) -> None:
        self.images, self.data, self.instances_per_side = images, data, instances_per_side
        self.epoch = 0
        places: dict[tuple[str, tuple[Any, ...]], tuple[int, int]] = {}
        for index, record in enumerate(images.data):
            size_px = open_slide(record["image"], mpp=record.get("mpp")).size_px
            for instance in range(instances_per_side**2):
                places[record["image"], instance_region(record, size_px, instance, instances_per_side)] = index, instance
        self._places = []
        for record in data:
            region = (record["x"], record["y"], record["width_px"], record["height_px"])
            if (record["image"], region) not in places:
                what = f"x, y, width and height {region} are not an instance of a training image with N = {instances_per_side}"
                raise record_error(record, ValueError(f"{what}: expected the instances of this run's construct stage"))
            self._places.append(places[record["image"], region])

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.draw(index)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch (from 0) whose copies the next items are."""
        self.epoch = epoch

    def draw(self, index: int, occurrence: int = 0) -> dict[str, Any]:
        """Item `index`, from a copy of its image."""
        image, instance = self._places[index]
        rng = np.random.default_rng(draw_key(self.images.images.seed, self.epoch, index, occurrence))
        features, turn = self.images.copy_of(image, rng)
        n = self.instances_per_side
        place = int((turned(torch.arange(n * n).view(n, n), turn).flatten() == instance).nonzero())
        cut = gather_instances(features[None], torch.tensor([[place]]), n)[0, 0]
        return {"image": cut, "label": self.data[index]["label"], "index": index}
