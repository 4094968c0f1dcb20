"""Tissue of slides, found once and kept in a folder that may be copied to another machine with the slides."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path

import numpy as np
from PIL import Image

from ..writers import contended_path
from ..wsi import Slide, TissueMap, find_tissue, open_slide

# Raise it when `tissue_mask` gives other masks: those in the cache are then found anew.
TISSUE_VERSION = 1
_NUM_CHUNKS, _CHUNK_BYTES = 16, 2**16


class TissueCache:
    """Tissue maps as PNG files, ``<slide>.<key>.png``; the key says of which content and with which parameters.

    A slide that is moved, renamed or copied keeps its key up to the name; one that changes gets another. Files are written under
    another name and renamed, so that several processes, and machines, may share the folder.

    Args:
        folder: of the files, made when needed.
        mpp: micrometres per pixel, see `shared.wsi.find_tissue`.
        method: see `shared.wsi.tissue_mask`.
    """

    def __init__(self, folder: str | Path, mpp: float = 8.0, method: str = "otsu") -> None:
        self.folder, self.mpp, self.method = Path(folder), mpp, method

    def get(self, path: str | Path, slide_mpp: float | None = None) -> TissueMap:
        """The tissue of the slide at `path`, from the folder or found now.

        Args:
            path: of the slide.
            slide_mpp: micrometres per level-0 pixel, where the file does not say.

        Raises:
            ValueError: if the slide cannot be read or has no pixel size.
        """
        slide = open_slide(path, mpp=slide_mpp)
        file = self.file(path, slide.mpp)
        try:
            with Image.open(file) as image:
                mask = np.asarray(image.convert("1"))
        except (OSError, SyntaxError, ValueError):  # none yet, or damaged, which Pillow calls by any of these
            # Not from the slide that this process holds open: its file may have been replaced meanwhile.
            with Slide(path, mpp=slide_mpp) as fresh:
                tissue = find_tissue(fresh, self.mpp, self.method)
            with contended_path(file) as temporary:
                Image.fromarray(tissue.mask).save(temporary, format="png")
            return tissue
        return TissueMap(mask, max(slide.size_px) / max(mask.shape))

    def file(self, path: str | Path, slide_mpp: float) -> Path:
        """Where the tissue of the slide at `path` is kept."""
        status = Path(path).stat()
        content = content_key(str(path), status.st_size, status.st_mtime_ns)
        parameters = [content, round(slide_mpp, 6), self.mpp, self.method, TISSUE_VERSION]
        key = hashlib.sha256(json.dumps(parameters).encode()).hexdigest()[:16]
        return self.folder / f"{Path(path).stem}.{key}.png"


@functools.lru_cache(maxsize=100_000)
def content_key(path: str, size: int, modified_ns: int) -> str:
    """What a file of any size holds, in a hash of its size and of 16 parts of 64 KiB evenly spaced from its begin to its end.

    Args:
        path: of the file.
        size: of the file in bytes.
        modified_ns: when it was changed; only so that a changed file is read again.
    """
    digest = hashlib.sha256(str(size).encode())
    with Path(path).open("rb") as file:
        for index in range(_NUM_CHUNKS):
            file.seek(max(0, size - _CHUNK_BYTES) * index // (_NUM_CHUNKS - 1))
            digest.update(file.read(_CHUNK_BYTES))
    return digest.hexdigest()
