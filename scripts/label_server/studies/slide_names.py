"""The slides of a studies folder and its subfolders, and their ids."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from shared.inference.inputs import image_name
from shared.wsi.file_names import comparable
from shared.wsi.formats import image_suffixes
from shared.wsi.image_search import find_image_files

logger = logging.getLogger(__name__)

# Separates folders and name in the id of a slide whose name alone is not unique.
SEPARATOR = "~"
_MOST_NAMED = 5


@dataclass(frozen=True)
class FoundSlides:
    """The result of a search for slides.

    Args:
        paths: id -> path in the folder, with ``/`` between folders.
        names: id -> the slide's file name without suffix, for slides whose id differs from it.
    """

    paths: Mapping[str, str]
    names: Mapping[str, str]

    def called(self, name: str) -> list[str]:
        """The ids of the slides that have this name but a different id."""
        return sorted(image_id for image_id, own in self.names.items() if comparable(own) == comparable(name))


def find_slides(folder: Path, known: Mapping[str, str], excluded: Collection[Path] = ()) -> FoundSlides:
    """Find the slides below a folder. Files that are not read, and slides whose id is not their name, are logged.

    A slide's id is its name. If several slides share a name, it is the id of the one in the folder itself; the ids of the others
    begin with their subfolder, as in ``case1~slide``, and two files of one name in one folder keep their suffixes. An id, once
    given, does not change when slides are added.

    Args:
        folder: folder of the slides, searched as by `find_image_files`.
        known: path in the folder -> id, for the slides that have one.
        excluded: folders that are not searched.

    Raises:
        ValueError: if the folder cannot be searched.
    """
    labels = next(iter(excluded), None)
    found = find_image_files(folder, labels)
    left_out = tuple(path.resolve() for path in excluded if not folder.resolve().is_relative_to(path.resolve()))
    there = [path for path in found if path.exists() and not any(path.resolve().is_relative_to(other) for other in left_out)]
    unread = [path for path in there if path.suffix.lower() not in image_suffixes()]
    missing = [path for path in found if not path.exists()]
    for kind, files in (("in an unsupported format", unread), ("broken links, or lack their file", missing)):
        if files:
            logger.warning("%s: %d slides are %s: %s", folder, len(files), kind, _listed([str(path) for path in files]))
    paths = [path.relative_to(folder).as_posix() for path in there if path not in unread]
    return _named(folder, paths, known)


def _named(folder: Path, paths: Sequence[str], known: Mapping[str, str]) -> FoundSlides:
    own = {path: image_name(Path(path)) for path in paths}
    ids = {path: known[path] for path in paths if path in known}
    taken = {*known.values()}
    counts = Counter(own.values())
    at_top = Counter(own[path] for path in paths if "/" not in path)
    for path in sorted(set(paths) - set(ids), key=lambda path: (path.count("/"), path)):
        is_top = "/" not in path
        is_free = counts[own[path]] == 1 or (is_top and at_top[own[path]] == 1)
        within = path.replace("/", SEPARATOR)
        short = f"{within.rpartition(SEPARATOR)[0]}{SEPARATOR}{own[path]}" if not is_top else own[path]
        candidates = [own[path]] * is_free + [short] * (not is_top) + [within]
        image_id = next((one for one in candidates if one not in taken), None)
        if image_id is None or len(image_id.encode()) > 200 or image_id.startswith("."):
            logger.warning(
                "%s: %s is left out, because no valid and unique id can be made from its name: rename it", folder, path
            )
            continue
        ids[path] = image_id
        taken.add(image_id)
    others = {image_id: own[path] for path, image_id in ids.items() if image_id != own[path]}
    if others:
        logger.warning(
            "%s: %d slides share their name with another slide; their ids are %s", folder, len(others), _listed(list(others))
        )
    folders = Counter(PurePosixPath(path).parent.as_posix() for path in ids)
    logger.info("%s: %d slides in %d folders", folder, len(ids), len(folders))
    return FoundSlides({image_id: path for path, image_id in ids.items()}, others)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(sorted(names)[:_MOST_NAMED]) + more
