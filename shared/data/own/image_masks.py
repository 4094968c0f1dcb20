"""Which mask belongs to which of your own images: by name and, where several have the same name, by their folders."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...wsi.annotations.annotation_file import annotation_stem, is_annotation_file
from ...wsi.file_names import comparable

_SUFFIXES = (".png", ".bmp", ".tif", ".tiff")
# Masks of others that an error lists.
_SHOWN = 3


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
        self._images = set(images)
        self._masks = _by_name(folder.resolve())
        self._folders = {image: _folders(image, source.resolve()) for image in images}
        self._folders |= {mask: _folders(mask, folder.resolve()) for masks in self._masks.values() for mask in masks}
        self._root = comparable(folder.resolve().name).lower()
        self._candidates: dict[Path, list[Path]] = {}
        self._owners: dict[Path, list[Path]] = defaultdict(list)
        by_name: dict[str, list[Path]] = defaultdict(list)
        for image in images:
            by_name[_name(image)].append(image)
        for name, alike in by_name.items():
            self._pair(alike, self._masks.get(name, []))

    def of(self, image: Path) -> Path | None:
        """The mask of an image; None where there is none.

        Raises:
            ValueError: for an image with several masks, and for one whose mask may be that of another image.
        """
        possible = [mask for mask in self._candidates[image] if image in self._owners[mask]]
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
        alike = [mask for mask in self._masks.get(_name(image), []) if self._may_be(image, mask)]
        taken = [f"{mask} is that of {', '.join(map(str, self._owners[mask]))}" for mask in alike[:_SHOWN]]
        taken += [f"and {len(alike) - _SHOWN} more"] if len(alike) > _SHOWN else []
        return f": {'; '.join(taken)}" if taken else ""

    def _pair(self, images: Sequence[Path], masks: Sequence[Path]) -> None:
        """Find the owners of masks of one name: the images in the same folders, and of the others those that agree best."""
        masks_in: dict[tuple[str, ...], list[Path]] = defaultdict(list)
        for mask in masks:
            masks_in[self._folders[mask]].append(mask)
        for image in images:
            self._candidates[image] = [mask for mask in masks_in.get(self._folders[image], ()) if self._may_be(image, mask)]
            for mask in self._candidates[image]:
                self._owners[mask].append(image)
        # Only these are compared with each other: thousands of folders may hold the same names.
        left, free = [image for image in images if not self._candidates[image]], [m for m in masks if m not in self._owners]
        for image in left:
            self._candidates[image] = [mask for mask in free if self._may_be(image, mask)]
        for mask in free:
            self._owners[mask] = _nearest(
                {image: self._agreement(image, mask) for image in left if self._may_be(image, mask)},
            )

    def _may_be(self, image: Path, mask: Path) -> bool:
        """Whether a file of its name can be the mask of an image: an image is a mask for its neighbours at most."""
        return mask != image and (mask not in self._images or mask.parent == image.parent)

    def _agreement(self, image: Path, mask: Path) -> int:
        """How well their folders agree: best if they are the same, or else by the names that both have."""
        of_image, of_mask = self._folders[image], self._folders[mask]
        if of_image == of_mask:
            return len(of_image) + 1
        return len({self._root, *of_mask}.intersection(of_image))


def _nearest(agreements: Mapping[Path, int]) -> list[Path]:
    """Those that agree best: all of them if the folders do not tell them apart."""
    best = max(agreements.values(), default=0)
    return [path for path, agreement in agreements.items() if agreement == best]


def _name(image: Path) -> str:
    return comparable(image.stem).lower()


def _folders(path: Path, root: Path) -> tuple[str, ...]:
    return tuple(comparable(part).lower() for part in path.relative_to(root).parts[:-1])


def _by_name(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.rglob("*")):
        is_annotations = is_annotation_file(path)
        if (is_annotations or path.suffix.lower() in _SUFFIXES) and path.is_file():
            stem = annotation_stem(path) if is_annotations else path.stem
            found[comparable(stem).lower().removesuffix("_mask")].append(path)
    return found
