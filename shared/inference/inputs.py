"""What to map: one image or slide, a folder, or a manifest."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..data.manifest import load_manifest
from ..data.manifest_file import FILES, ManifestFile, read_manifest_file
from ..writers.storage import check_inputs_stay
from ..wsi.file_names import comparable
from ..wsi.formats import is_image, known_suffixes, unreadable_format
from ..wsi.image_search import RESULTS, find_image_files


@dataclass(frozen=True)
class ImageInput:
    """One image: its path, the name its results get, and its level-0 mpp where the manifest gives one."""

    path: Path
    name: str
    mpp: float | None = None


def find_images(
    source: str | Path, split: str | None = None, output_dir: str | Path | None = None, suffixes: Sequence[str] = ()
) -> list[ImageInput]:
    """List the images that `source` names, in order of path (a manifest's: in its own order).

    Args:
        source: an image or slide; a folder, searched with its subfolders, see `find_image_files`; or a manifest
            (``*.csv``), of which every distinct image is taken once and as a whole, whatever regions its rows name. One that
            is not there is listed too, and fails when it is opened: the others of a cohort need not wait for it.
        split: of a manifest, the rows of this split only.
        output_dir: gets the results. It is not searched, where it lies inside `source`.
        suffixes: endings of the files of an image there that a run writes or replaces.

    Raises:
        ValueError: if nothing is there (of a manifest: none of its images), the format is unknown, `output_dir` is the source
            itself, two images would give their results the same name (the file's name without its ending), or a result would
            replace an image, or the manifest or anything that it names, in whatever split.
    """
    source = Path(source).expanduser()
    if not source.exists() and not source.is_symlink():
        raise ValueError(f"{source} does not exist: give an image, a slide, a folder or a manifest (.csv).")
    manifest = read_manifest_file(source) if source.suffix.lower() == ".csv" else None
    if manifest is not None:
        images = _from_manifest(manifest, split)
    elif split is not None:
        raise ValueError(f"split={split!r} needs a manifest (.csv), got {source}")
    elif source.is_dir() and unreadable_format(source) is None:
        if output_dir is not None and source.resolve() == Path(output_dir).resolve():
            raise ValueError(f"the results must be written to another folder than the images: {output_dir}")
        found = find_image_files(source, None if output_dir is None else Path(output_dir))
        images = [ImageInput(path, image_name(path)) for path in found]
    elif is_image(source):
        images = [ImageInput(source, image_name(source))]
    else:
        raise ValueError(f"{source} has an unsupported format; supported are {known_suffixes()}, folders and .csv.")
    if not images:
        raise ValueError(f"{source} contains no image in a supported format: {known_suffixes()}.")
    _check_names(images)
    if output_dir is not None:
        written = (f"{image.name}{suffix}" for image in images for suffix in suffixes)
        check_inputs_stay(output_dir, (*RESULTS, *written), _files_read(images, manifest))
    return images


def _files_read(images: Iterable[ImageInput], manifest: ManifestFile | None) -> set[str]:
    """The images, and the manifest with all that its rows name, of other splits too."""
    found = {str(image.path) for image in images}
    if manifest is not None:
        folder = str(manifest.path.parent)
        cells = {row.cells[name] for row in manifest.rows for name in FILES} - {None}
        # A Path of each of hundreds of thousands takes seconds.
        found |= {str(manifest.path), *(os.path.join(folder, str(cell)) for cell in cells)}  # noqa: PTH118
    return found


def _from_manifest(manifest: ManifestFile, split: str | None) -> list[ImageInput]:
    path, mpp_of = manifest.path, dict[str, float | None]()
    for record in load_manifest(manifest, split=split, require=(), num_classes=2**31, check_files=False):
        image, mpp = record["image"], record["mpp"]
        known = mpp_of.get(image)
        if mpp is not None and known is not None and not math.isclose(mpp, known):
            raise ValueError(f"{path}, row {record['row']}: {image} has mpp {mpp:g} here and {known:g} before.")
        mpp_of[image] = known if mpp is None else mpp
    images = [ImageInput(Path(image), image_name(Path(image)), mpp) for image, mpp in mpp_of.items()]
    if not any(image.path.is_file() for image in images):
        raise ValueError(
            f"{path}: none of its {len(images)} images exists; the first is {images[0].path}; paths are relative to the CSV."
        )
    return images


def _check_names(images: Iterable[ImageInput]) -> None:
    first: dict[str, ImageInput] = {}
    for image in images:
        # An accent can be a letter of its own, and some file systems take both spellings for one.
        other = first.setdefault(comparable(image.name).casefold(), image)
        if other is not image:
            raise ValueError(
                f"{other.path} and {image.path} would both write their results as {image.name}.*: "
                "rename one of them, or map them into different folders."
            )


def image_name(path: Path) -> str:
    """The name that an image's results get: its file's without the ending."""
    stem = path.stem
    return stem[: -len(".ome")] if stem.lower().endswith(".ome") else stem
