"""Which mask belongs to which of your own images: by name and, where several have the same name, by their folders."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...wsi.annotations.annotation_file import annotation_stem, is_annotation_file
from ...wsi.file_names import comparable

_SUFFIXES = (".png", ".bmp", ".tif", ".tiff")


class ImageMasks:
    """Masks and annotation files of images, each of one image alone.

    Where several images or masks have the same name, those belong together whose folders are the same, or else have most names
    in common; where that leaves more than one, none is chosen.

    Args:
        folder: of the masks, searched with the folders below it, each named as its image: ``a.png`` or ``a_mask.png`` of
            ``a.jpg``.
        images: all images that have masks in it, absolute.
        source: the folder that the images are in.

    Raises:
        ValueError: if there is no such folder.
    """

    def __init__(self, folder: Path, images: Sequence[Path], source: Path) -> None:
        if not folder.is_dir():
            raise ValueError(f"the folder of masks {folder} does not exist")
        self._folder, self._source = folder.resolve(), source.resolve()
        by_name, all_images = _by_name(self._folder), set(images)
        self._named = {
            image: [
                mask
                for mask in by_name.get(comparable(image.stem).lower(), ())
                # An image is a mask for its neighbours at most.
                if mask != image and (mask not in all_images or mask.parent == image.parent)
            ]
            for image in images
        }
        images_of: dict[Path, list[Path]] = defaultdict(list)
        for image, masks in self._named.items():
            for mask in masks:
                images_of[mask].append(image)
        self._owners = {mask: _nearest({image: self._agreement(image, mask) for image in own}) for mask, own in images_of.items()}

    def of(self, image: Path) -> Path | None:
        """The mask of an image; None where there is none.

        Raises:
            ValueError: for an image with several masks, and for one whose mask may be that of another image.
        """
        possible = [mask for mask in self._named[image] if image in self._owners[mask]]
        own = _nearest({mask: self._agreement(image, mask) for mask in possible if len(self._owners[mask]) == 1})
        if len(own) > 1:
            raise ValueError(f"{image} has several masks: {', '.join(map(str, own))}")
        if own or not possible:
            return own[0] if own else None
        others = ", ".join(str(other) for other in self._owners[possible[0]] if other != image)
        raise ValueError(
            f"{image}: the mask {possible[0]} has its name and that of {others}: put masks into folders named like those of "
            "their images"
        )

    def of_others(self, image: Path) -> str:
        """What an error says of masks that have the name of an image and belong to others; empty where there are none."""
        taken = [f"{mask} is that of {', '.join(map(str, self._owners[mask]))}" for mask in self._named[image]]
        return f": {'; '.join(taken)}" if taken else ""

    def _agreement(self, image: Path, mask: Path) -> int:
        """How well their folders agree: best if they are the same, or else by the names that both have."""
        of_image, of_mask = _folders(image, self._source), _folders(mask, self._folder)
        if of_image == of_mask:
            return len(of_image) + 1
        return len({comparable(self._folder.name).lower(), *of_mask}.intersection(of_image))


def _nearest(agreements: Mapping[Path, int]) -> list[Path]:
    """Those that agree best: all of them if the folders do not tell them apart."""
    return [path for path, agreement in agreements.items() if agreement == max(agreements.values())]


def _folders(path: Path, root: Path) -> list[str]:
    return [comparable(part).lower() for part in path.relative_to(root).parts[:-1]]


def _by_name(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.rglob("*")):
        is_annotations = is_annotation_file(path)
        if (is_annotations or path.suffix.lower() in _SUFFIXES) and path.is_file():
            stem = annotation_stem(path) if is_annotations else path.stem
            found[comparable(stem).lower().removesuffix("_mask")].append(path)
    return found
