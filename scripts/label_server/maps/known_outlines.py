"""The outlines of maps, cached so that each file is read only once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path

import orjson

from shared.wsi.annotations.frames import FRAME_MEMBER, LEVEL0

from ..viewer_frame import frame_origin_of_slide
from .contours import Feature, moved_features

# Size of the files; their parsed content takes about ten times as much memory.
MOST_BYTES = 2**27


class KnownOutlines:
    """A cache of the parsed outlines that were requested last.

    Args:
        most_bytes: total size of the cached files; the last one is cached however large it is.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most = most_bytes
        self._known: OrderedDict[tuple[str, int, int], list[Feature]] = OrderedDict()
        self._lock = threading.Lock()
        self.num_read = 0

    def features(self, file: Path, slide: Path) -> list[Feature]:
        """The outlines in a GeoJSON file, in level-0 pixels; the caller must not change them.

        Args:
            file: GeoJSON file of a map.
            slide: path of its slide.

        Raises:
            Refusal: if the slide cannot be read.
        """
        status = file.stat()
        key = (str(file), status.st_mtime_ns, status.st_size)
        with self._lock:
            if key not in self._known:
                self._known[key] = self._read(file, slide)
                while len(self._known) > 1 and sum(size for _, _, size in self._known) > self._most:
                    self._known.popitem(last=False)
            self._known.move_to_end(key)
            return self._known[key]

    def _read(self, file: Path, slide: Path) -> list[Feature]:
        content = orjson.loads(file.read_bytes())
        self.num_read += 1
        return list(moved_features(content["features"], frame_origin_of_slide(slide, content.get(FRAME_MEMBER, LEVEL0))))
