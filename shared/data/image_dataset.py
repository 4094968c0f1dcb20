"""Images and pixel labels of manifest records: the dataset that every training stage reads from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from monai.data import Dataset
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ..wsi.annotations.annotation_classes import check_classes
from ..wsi.notices import warn_of_enlarged, warn_of_other_mpp
from ..wsi.slide import Slide
from ..wsi.slide_pool import open_slide
from .labels.lattice import check_lattice
from .labels.pixel_targets import downsample_of, is_large, knows_mpp, pixel_target, read_mask
from .pixel_cache import PixelCache
from .record import Record, record_error, region_of
from .record_masks import DoubtfulMasks, check_region_mask
from .seeded import draw_key
from .transforms.geometric import view_changes
from .transforms.view_sampling import defer_views

PIXEL_LABELS = ("instances", "mask", "label")
# Level-0 pixels of an image whose mask is read in full before a training.
_LARGEST_CHECKED_PX = 2**24


class ImageEncoder(Protocol):
    """The facts about an encoder that matter here, see `shared.encoders.Encoder`."""

    name: str
    mpp: float | None
    enlargement: float


class RegionDataset(Dataset):
    """Reads tiles and slide regions, and the labels that a stage requests.

    Item ``i`` is a dictionary: ``image`` uint8 ``(3, H, W)``, ``label`` (int), ``index`` (``i``), and where asked for ``mask``
    uint8 ``(1, H, W)`` in 0..num_classes - 1, ``superpixels`` int32 ``(1, H, W)`` and ``area`` (a float, NaN where the record
    has none).
    Random transforms draw from a stream that depends on (`seed`, epoch, ``i``, occurrence) only, see `draw`: an interrupted and
    resumed training sees what an uninterrupted one does, with any number of workers or processes.

    Args:
        data: manifest records.
        size_px: side in pixels that every image must have at `mpp`; None for any.
        mpp: micrometres per pixel at which files that know theirs are read; files without (tiles) are read as stored.
        transform: of the dictionary, or None.
        pixel_labels: ``"mask"`` for the true mask, ``"label"`` for the image's label on every pixel (image-level FSB),
            ``"instances"`` for the enriched instance labels in the record's ``instances`` (CAMEL), None for no pixel
            labels.
        seed: of the random transforms.
        superpixels: from an image to its super-pixels, such as `Superpixels`; None for none. They are those of the image
            as read, and move with it through the transform.
        with_areas: also give the records' areas. They are those of the image as read, so the transform may not crop, scale or
            rotate it but by quarter turns.
        num_classes: classes of the masks and labels, from 2 to 255. With two, whatever is not 0 is 1.
        class_names: the class of each index in annotation files, see `read_record_mask`.
        cache: keeps what is read of large pictures and of masks; None for none.
        stretch: bring every image to `size_px`, whatever its size and shape, instead of reading it at `mpp`: for labelled
            images, which have no mask that would have to follow.
        multiple_px: images whose sides are no multiples of it are enlarged to the next ones, with their masks: by less than
            `multiple_px` pixels, so that they divide into whole features of an encoder.

    Raises:
        ValueError: naming the manifest, the row and the file of an image or mask that cannot be read or has another size; and
            for a transform after which the areas would be wrong.
    """

    def __init__(
        self,
        data: Sequence[Record],
        size_px: int | None = None,
        mpp: float | None = None,
        transform: Callable[[Any], Any] | None = None,
        pixel_labels: str | None = None,
        seed: int = 0,
        superpixels: Callable[[Tensor], Tensor] | None = None,
        with_areas: bool = False,
        num_classes: int = 2,
        class_names: Sequence[str] | None = None,
        cache: PixelCache | None = None,
        stretch: bool = False,
        multiple_px: int = 1,
    ) -> None:
        if stretch and (size_px is None or pixel_labels == "mask"):
            raise ValueError(f"images are stretched to a size_px, and masks are not: got {size_px=}, {pixel_labels=}")
        if pixel_labels is not None and pixel_labels not in PIXEL_LABELS:
            raise ValueError(f"pixel_labels must be one of {', '.join(PIXEL_LABELS)}, got {pixel_labels!r}")
        super().__init__(data=data, transform=transform)
        if with_areas:
            _check_view(transform)
        self.size_px = size_px
        self.mpp = mpp
        self.pixel_labels = pixel_labels
        self.seed = seed
        self.superpixels = superpixels
        self.with_areas = with_areas
        check_classes(num_classes, class_names)
        self.num_classes = num_classes
        self.class_names = class_names
        self.cache = cache
        self.stretch = stretch
        self.multiple_px = multiple_px
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch (from 0) whose random transforms the next items get."""
        self.epoch = epoch

    def defer_augmentation(self) -> None:
        """Give images as they are read, with the views that `sample_views` then takes of a whole batch, on its device.

        Images of several sizes, which make no batch before they are cropped, are augmented one by one as before.
        """
        if self.size_px is not None:
            self.transform = defer_views(self.transform)

    def _transform(self, index: int) -> dict[str, Any]:
        return self.draw(index)

    def draw(self, index: int, occurrence: int = 0) -> dict[str, Any]:
        """Item `index`, which has occurred `occurrence` times in this epoch, transformed by other random numbers each time."""
        image = read_image(self.data[index], self.mpp, self.size_px, self.cache, self.stretch, self.multiple_px)
        item: dict[str, Any] = {"image": image, **self.targets(index, image.shape[-2:])}
        if self.superpixels is not None:
            item["superpixels"] = self.superpixels(image)
        key = draw_key(self.seed, self.epoch, index, occurrence)
        # MONAI's Dataset has made a Compose of whatever came, which hands a seed to each of its random transforms.
        self.transform.set_random_state(seed=int(key.generate_state(1)[0]))
        return dict(self.transform(item))

    def image_size(self, index: int) -> tuple[int, int]:
        """(height, width) in pixels of an image as it is given, before its transform, without reading it."""
        return image_size(self.data[index], self.mpp, self.size_px, self.stretch, self.multiple_px)

    def targets(self, index: int, size: Sequence[int]) -> dict[str, Any]:
        """The entries of an item other than its image, before its transform; `size`: (height, width) of the image as read."""
        record = self.data[index]
        item: dict[str, Any] = {"label": record.get("label"), "index": index}
        if self.pixel_labels is not None:
            # A mask is read where its image is, and enlarged as that was.
            is_enlarged = self.multiple_px > 1 and self.pixel_labels == "mask"
            read = image_size(record, self.mpp, self.size_px, self.stretch) if is_enlarged else size
            mask = pixel_target(record, self.pixel_labels, read, self.mpp, self.num_classes, self.class_names, self.cache)
            item["mask"] = mask if tuple(read) == tuple(size) else _enlarged(mask, size, Image.Resampling.NEAREST)
        if item["label"] is None:
            del item["label"]
        if self.with_areas:
            item["area"] = math.nan if record.get("area") is None else float(record["area"])
        return item


def read_image(
    record: Record,
    mpp: float | None = None,
    size_px: int | None = None,
    cache: PixelCache | None = None,
    stretch: bool = False,
    multiple_px: int = 1,
) -> Tensor:
    """Read the image of one record.

    Args:
        record: of a manifest; ``x, y, width_px, height_px`` in level-0 pixels, or all None for the whole file.
        mpp: micrometres per pixel wanted; ignored for plain images that do not know theirs.
        size_px: the side in pixels that the result must have.
        cache: keeps what is read of large pictures, which are decoded whole; None for none.
        stretch: bring the image to `size_px`, whatever its size and shape, instead of reading it at `mpp`.
        multiple_px: enlarge it to sides that are multiples of this.

    Returns:
        uint8 ``(3, H, W)``.

    Raises:
        ValueError: naming row and file, if they cannot be read, have another size, or the region lies outside the file.
    """
    try:
        if stretch and size_px is not None:
            mpp = _mpp_of_shorter_side(record, size_px)
        slide, origin, read_px = _locate(record, mpp, None if stretch else size_px)
        mpp = mpp if knows_mpp(slide) else None
        if cache is None or not (slide.is_picture and is_large(slide)):
            pixels = slide.read_region(origin, read_px, mpp=mpp)
        else:
            pixels = _read_kept(record, origin, read_px, mpp, cache)
    except (ValueError, OSError) as error:
        raise record_error(record, error) from error
    if stretch and size_px is not None and pixels.shape[:2] != (size_px, size_px):
        # Its filter takes in all pixels that become one.
        pixels = np.array(Image.fromarray(pixels).resize((size_px, size_px), Image.Resampling.BILINEAR))
    image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)
    size = _whole(image.shape[-2:], multiple_px)
    return image if size == tuple(image.shape[-2:]) else _enlarged(image, size, Image.Resampling.BILINEAR)


def _whole(size: Sequence[int], multiple_px: int) -> tuple[int, int]:
    """(height, width) of an image with this size when its sides have become multiples."""
    height, width = (-(-side // multiple_px) * multiple_px for side in size)
    return height, width


def _enlarged(pixels: Tensor, size: Sequence[int], resampling: Image.Resampling) -> Tensor:
    """uint8 ``(C, H, W)`` with one or three channels, brought to another (height, width)."""
    height, width = size
    channels = pixels.permute(1, 2, 0).numpy()
    image = Image.fromarray(channels[..., 0] if channels.shape[-1] == 1 else channels)
    found = np.array(image.resize((width, height), resampling)).reshape(height, width, -1)
    return torch.from_numpy(found).permute(2, 0, 1).contiguous()


def _mpp_of_shorter_side(record: Record, size_px: int) -> float | None:
    """Micrometres per pixel at which the shorter side of a record's region has `size_px`, or its own where it has fewer; None
    for files that do not know theirs."""
    slide = open_slide(record["image"], mpp=record.get("mpp"))
    shorter_px = min(region_of(record, slide.size_px)[2:])
    return slide.mpp * max(1.0, shorter_px / size_px) if slide.has_mpp else None


def _read_kept(
    record: Record, origin: tuple[int, int], size_px: tuple[int, int], mpp: float | None, cache: PixelCache
) -> NDArray[np.uint8]:
    def settings(of_origin: tuple[int, int], of_size_px: tuple[int, int]) -> list[Any]:
        return [of_origin, of_size_px, mpp, record.get("mpp")]

    def read() -> NDArray[np.uint8]:
        # Not from the slide that this process holds open: its file may have been replaced meanwhile.
        with Slide(record["image"], mpp=record.get("mpp")) as fresh:
            (x, y), (width, height) = origin, size_px
            is_inside = min(origin) >= 0 and x + width <= fresh.size_px[0] and y + height <= fresh.size_px[1]
            # An instance is a part of its image, which is there where a stage before has read it.
            if fresh.downsample(mpp) == 1 and is_inside:
                whole = cache.kept([record["image"]], settings((0, 0), fresh.size_px))
                if whole is not None:
                    return np.array(whole[y : y + height, x : x + width])
            return fresh.read_region(origin, size_px, mpp=mpp)

    return cache.get([record["image"]], settings(origin, size_px), read)


def image_size(
    record: Record, mpp: float | None = None, size_px: int | None = None, stretch: bool = False, multiple_px: int = 1
) -> tuple[int, int]:
    """(height, width) in pixels of what `read_image` reads of a record, without reading it."""
    if stretch and size_px is not None:
        _locate(record, None, None)
        return _whole((size_px, size_px), multiple_px)
    width, height = _locate(record, mpp, size_px)[2]
    return _whole((height, width), multiple_px)


def mpp_as_read(record: Record, mpp: float | None = None, size_px: int | None = None, stretch: bool = False) -> float | None:
    """Micrometres per pixel at which `read_image` reads a record; None for a file that does not know them.

    Raises:
        ValueError, OSError: if the file cannot be opened.
    """
    if stretch and size_px is not None:
        return _mpp_of_shorter_side(record, size_px)
    slide = open_slide(record["image"], mpp=record.get("mpp"))
    return (mpp or slide.mpp) if slide.has_mpp else None


def _check_view(transform: Any) -> None:
    changes = view_changes(transform)
    if changes:
        raise ValueError(
            f"the transform ({', '.join(changes)}) changes which part of the tissue an image shows, so the rough areas would "
            "silently be wrong: expected only flips and quarter turns. Set free_rotation false, max_scale 1 and crop_size_px "
            "null, or switch the area constraint off (etas and eta_fuse 0)"
        )


def check_images(
    datasets: Sequence[RegionDataset | None],
    instances_per_side: int | None = None,
    feature_stride_px: int = 1,
    encoder: ImageEncoder | None = None,
) -> None:
    """Open every image of some data sets, and see whether it can be read, has the right size and a mask that fits.

    Images are opened, not decoded, so that a run fails before its first stage and not in the middle of an epoch. Masks of images
    of up to 2^24 pixels are read; one warning for each manifest says how many do not show what their rows' labels say but may be
    right.

    Args:
        datasets: those that are None are passed over.
        instances_per_side: N; images must divide into N x N instances. None: not checked.
        feature_stride_px: where instances are cut from features, of which there is one every so many pixels: their sides are
            multiples of it.
        encoder: which is given the images: a warning says so where it was trained at another pixel size. None for none.

    Raises:
        ValueError: for the first image that does not fit, naming row and file.
    """
    present = [dataset for dataset in datasets if dataset is not None]
    doubtful = DoubtfulMasks()
    with tqdm(total=sum(len(dataset) for dataset in present), desc="checking images", unit="image", disable=None) as bar:
        for dataset in present:
            for index, record in enumerate(dataset.data):
                _check_image(dataset, index, instances_per_side, feature_stride_px, doubtful)
                if encoder is not None:
                    warn_of_other_mpp(encoder.name, encoder.mpp, _mpp_of(record, dataset), enlargement=encoder.enlargement)
                bar.update()
    doubtful.warn()


def _mpp_of(record: Record, dataset: RegionDataset) -> float | None:
    return mpp_as_read(record, dataset.mpp, dataset.size_px, dataset.stretch)


def _check_image(
    dataset: RegionDataset, index: int, instances_per_side: int | None, feature_stride_px: int, doubtful: DoubtfulMasks
) -> None:
    record = dataset.data[index]
    try:
        height, width = dataset.image_size(index)
        if instances_per_side is not None:
            check_lattice(height, width, instances_per_side)
        _check_stride(height, width, instances_per_side or 1, feature_stride_px)
        if dataset.pixel_labels == "mask" and record.get("mask") is not None:
            _check_mask(dataset, record, doubtful)
    except (ValueError, OSError) as error:
        raise record_error(record, error) from error


def _check_mask(dataset: RegionDataset, record: Record, doubtful: DoubtfulMasks) -> None:
    height, width = image_size(record, dataset.mpp, dataset.size_px, dataset.stretch)
    slide = open_slide(record["image"], mpp=record.get("mpp"))
    # Of a large image it takes too long, as tiled masks are decoded for each of its regions.
    is_small = math.prod(slide.size_px) <= _LARGEST_CHECKED_PX
    mask = read_mask(record, (width, height) if is_small else (1, 1), dataset.mpp, dataset.num_classes, dataset.class_names)
    if is_small and dataset.num_classes == 2:
        check_region_mask(record, mask.numpy())
        doubtful.add(record, bool(mask.any()))


def _check_stride(height: int, width: int, instances_per_side: int, feature_stride_px: int) -> None:
    side = instances_per_side * feature_stride_px
    if height % side or width % side:
        what = (
            f"{instances_per_side} x {instances_per_side} instances of whole features" if instances_per_side > 1 else "features"
        )
        raise ValueError(
            f"the image is read with {width} x {height} px, which do not divide into {what} of {feature_stride_px} px: expected "
            f"multiples of {side}. Choose another feature_stride_px, image_size_px or instances_per_side"
        )


def _locate(record: Record, mpp: float | None, size_px: int | None) -> tuple[Slide, tuple[int, int], tuple[int, int]]:
    """The open slide of a record, its region's top-left corner at level 0, and (width, height) in pixels as read."""
    slide = open_slide(record["image"], mpp=record.get("mpp"))
    if mpp is not None and slide.has_mpp:
        warn_of_enlarged(slide.mpp, mpp)
    downsample = downsample_of(slide, mpp)
    x, y, *region_px = region_of(record, slide.size_px)
    origin = (x, y)
    ends = (origin[0] + region_px[0], origin[1] + region_px[1])
    if min(ends) <= 0 or origin[0] >= slide.size_px[0] or origin[1] >= slide.size_px[1]:
        raise ValueError(
            f"the region at {origin} of {region_px[0]} x {region_px[1]} px lies outside the image of {slide.size_px[0]} x "
            f"{slide.size_px[1]} px: x and y are level-0 pixels"
        )
    read_px = (round(region_px[0] / downsample), round(region_px[1] / downsample))
    if size_px is None:
        return slide, origin, read_px
    # One pixel of rounding is a region's size in micrometres, more is another region.
    if max(abs(side - size_px) for side in read_px) > 1:
        raise ValueError(
            f"the image is {read_px[0]} x {read_px[1]} px{_at(slide, mpp)}, expected {size_px} x {size_px}: "
            "cut the images to that size or set image_size_px"
        )
    return slide, origin, (size_px, size_px)


def _at(slide: Slide, mpp: float | None) -> str:
    return f" at {mpp:g} um per pixel" if mpp is not None and knows_mpp(slide) else ""
