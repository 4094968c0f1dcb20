"""Tissue of slides, found once and kept in a folder that may be copied to another machine with the slides."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile, PngInfo

from ..writers.atomic import contended_path
from ..wsi.file_names import comparable, existing_file
from ..wsi.slide import Slide
from ..wsi.slide_files import mirax_files
from ..wsi.slide_pool import open_slide
from ..wsi.tissue.tissue_map import TissueMap, find_tissue, tissue_mask_shape

logger = logging.getLogger(__name__)

# Raise it when `tissue_mask` gives other masks: those in the cache are then found again.
TISSUE_VERSION = 2
_NUM_CHUNKS, _CHUNK_BYTES = 16, 2**16
_LARGEST_WHOLE_BYTES, _READ_BYTES = 2**26, 2**20
# In compressed files a change alters all that comes after it, and their size. Reading thousands of them whole takes minutes.
_COMPRESSED = frozenset({".png", ".jpg", ".jpeg"})
# A text in the PNG: the hash of the pixels as they were found, by which a mask that was edited is known.
_FOUND = "found"


class TissueCache:
    """Tissue maps as PNG files, ``<slide>.<key>.png``; the key identifies the content and the parameters.

    A slide that is moved, renamed or copied keeps its key up to the name; one that changes gets another (see `content_key`).
    Files are written under another name and renamed, so that several processes, and machines, may share the folder. A file may
    be edited and saved in black and white or in grey (tissue above the middle grey); one that is damaged, in colour or of
    another size is replaced.

    Args:
        folder: of the files, made when needed.
        mpp: micrometres per pixel, see `shared.wsi.find_tissue`.
        method: see `shared.wsi.tissue_mask`.
        keep: write what is found to the folder; False only reads what is there, edited masks among it.
    """

    def __init__(self, folder: str | Path, mpp: float = 8.0, method: str = "otsu", keep: bool = True) -> None:
        self.folder, self.mpp, self.method, self.keep = Path(folder), mpp, method, keep

    def get(self, path: str | Path, slide_mpp: float | None = None) -> TissueMap:
        """The tissue of the slide at `path`, from the folder or found now.

        Args:
            path: of the slide.
            slide_mpp: micrometres per level-0 pixel, where the file does not say.

        Raises:
            ValueError: if the slide cannot be read or has no pixel size.
        """
        known = self._read(open_slide(path, mpp=slide_mpp))
        if known is not None:
            return known
        # Not from the slide that this process holds open: its file may have been replaced meanwhile.
        with Slide(path, mpp=slide_mpp) as fresh:
            return self._find(fresh)

    def of(self, slide: Slide) -> TissueMap:
        """`get` of a slide that was opened just now, by whichever thread.

        Raises:
            ValueError: if the slide cannot be read or has no pixel size.
        """
        known = self._read(slide)
        return self._find(slide) if known is None else known

    def _read(self, slide: Slide) -> TissueMap | None:
        mask = _read_mask(self.file(slide.path, slide.mpp), tissue_mask_shape(slide, self.mpp))
        return None if mask is None else TissueMap(mask, max(slide.size_px) / max(mask.shape))

    def _find(self, slide: Slide) -> TissueMap:
        tissue = find_tissue(slide, self.mpp, self.method)
        for version in range(1, TISSUE_VERSION):
            old, new = (self.file(slide.path, slide.mpp, which) for which in (version, None))
            if old.is_file():
                logger.warning(
                    "%s is from an earlier version: the tissue is detected again. If it was edited, rename it to %s", old, new
                )
        if edited_mask_key(self.folder, slide.path) is not None:
            logger.warning(
                "%s: a tissue mask of it in %s was edited or is from an earlier version, but is not of method %s at %g um per "
                "pixel, or not of the slide as it is now: the tissue is detected again",
                *(slide.path, self.folder, self.method, self.mpp),
            )
        if self.keep:
            found = PngInfo()
            found.add_text(_FOUND, _pixel_hash(tissue.mask))
            with contended_path(self.file(slide.path, slide.mpp)) as temporary:
                Image.fromarray(tissue.mask).save(temporary, format="png", pnginfo=found)
        return tissue

    def file(self, path: str | Path, slide_mpp: float, version: int | None = None) -> Path:
        """Where the tissue of the slide at `path` is kept, by this version of the rules or an earlier one."""
        version = TISSUE_VERSION if version is None else version
        parameters = [slide_content_key(path), round(slide_mpp, 6), self.mpp, self.method, version]
        key = hashlib.sha256(json.dumps(parameters).encode()).hexdigest()[:16]
        return existing_file(self.folder / f"{Path(path).stem}.{key}.png")


def edited_mask_key(folder: str | Path, slide: str | Path) -> str | None:
    """What the tissue masks of a slide in a folder look like that are not as they were found; None where none was edited.

    By the slide's name alone, whatever method and pixel size the masks are of.
    """
    folder, prefix = Path(folder), comparable(f"{Path(slide).stem}.")
    if not folder.is_dir():
        return None
    files = _png_files(str(folder), folder.stat().st_mtime_ns)
    own = [name for name, plain in files.items() if plain.startswith(prefix) and plain.count(".", len(prefix)) == 1]
    hashes = [_edited_hash(folder / name) for name in own]
    edited = [one for one in hashes if one is not None]
    return hashlib.sha256("".join(edited).encode()).hexdigest()[:16] if edited else None


@functools.lru_cache(maxsize=8)
def _png_files(folder: str, modified_ns: int) -> dict[str, str]:
    """The names of the files, in order, with their comparable forms."""
    return {name: comparable(name) for name in sorted(path.name for path in Path(folder).glob("*.png"))}


def _edited_hash(file: Path) -> str | None:
    """Hash of a mask's pixels unless it is the one that was written into the file when they were found."""
    try:
        status = file.stat()
    except OSError:  # another process is replacing it
        return None
    return _hash_if_edited(str(file), status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=100_000)
def _hash_if_edited(file: str, _size: int, _modified_ns: int) -> str | None:
    try:
        with PngImageFile(file) as image:
            pixels = np.asarray(image)
            now = _pixel_hash(pixels if image.mode == "1" else pixels > 127)
            return None if image.text.get(_FOUND) == now else now
    except (OSError, SyntaxError, ValueError):  # what is damaged is replaced
        return None


def _pixel_hash(mask: NDArray[np.bool_]) -> str:
    return hashlib.sha256(np.packbits(mask).tobytes()).hexdigest()


def slide_content_key(path: str | Path) -> str:
    """`content_key` of the file of a slide, and for ``.mrxs``, whose file is only a preview, of the files in its folder."""
    path = Path(path)
    status = path.stat()
    companions: tuple[tuple[str, int], ...] = ()
    if path.suffix.lower() == ".mrxs":
        companions = tuple((file.name, file.stat().st_size) for file in mirax_files(path))
    return content_key(str(path), status.st_size, status.st_mtime_ns, companions)


def image_content_key(path: str | Path) -> str:
    """What the file of an image holds: a hash of all of it up to 64 MiB; `slide_content_key` of larger ones, PNG and JPEG.

    A sample tells slides apart, but not an uncompressed image from one in which a few rows have changed. Up to 1 MiB the sample
    is the whole file, and both keys are the same.
    """
    path = Path(path)
    status = path.stat()
    is_sampled = path.suffix.lower() in {".mrxs", *_COMPRESSED}
    if is_sampled or not _NUM_CHUNKS * _CHUNK_BYTES < status.st_size <= _LARGEST_WHOLE_BYTES:
        return slide_content_key(path)
    return _whole_key(str(path), status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=100_000)
def _whole_key(path: str, _size: int, _modified_ns: int) -> str:
    with Path(path).open("rb") as file:
        digest = hashlib.sha256()
        while part := file.read(_READ_BYTES):
            digest.update(part)
    return digest.hexdigest()


@functools.lru_cache(maxsize=100_000)
def content_key(path: str, size: int, modified_ns: int, companions: tuple[tuple[str, int], ...] = ()) -> str:
    """What a file of any size holds, in a hash of its size and of 16 parts of 64 KiB evenly spaced from its begin to its end.

    A sample, 1 MiB of what may be gigabytes: a change between these parts that keeps the size is not seen. It tells slides
    apart, which differ everywhere, and finds a slide again; it is no check of a file's integrity.

    Args:
        path: of the file.
        size: of the file in bytes.
        modified_ns: when it was changed; only so that a changed file is read again.
        companions: names and sizes of other files that belong to it; their content is not read.
    """
    digest = hashlib.sha256(str(size).encode())
    if companions:
        digest.update(json.dumps(companions).encode())
    with Path(path).open("rb") as file:
        for index in range(_NUM_CHUNKS):
            file.seek(max(0, size - _CHUNK_BYTES) * index // (_NUM_CHUNKS - 1))
            digest.update(file.read(_CHUNK_BYTES))
    return digest.hexdigest()


def _read_mask(file: Path, shape: tuple[int, int]) -> NDArray[np.bool_] | None:
    """The mask in a PNG, bool ``(H, W)``; None where there is no such file, it is damaged, or it is no mask of this shape."""
    try:
        # Not by `Image.open`, which refuses large images as an attack: here the size is known before a pixel is decoded.
        with PngImageFile(file) as image:
            if image.size == shape[::-1] and image.mode in ("1", "L"):
                pixels = np.asarray(image)
                return pixels if image.mode == "1" else pixels > 127
            found = f"{image.size[0]} x {image.size[1]} px in mode {image.mode}"
    except FileNotFoundError:
        return None
    except (OSError, SyntaxError, ValueError) as error:  # damaged, which Pillow calls by any of these
        found = str(error) or type(error).__name__
    logger.warning(
        "%s is not a tissue mask of %d x %d px in mode 1 or L (%s): the tissue is detected again", file, shape[1], shape[0], found
    )
    return None
