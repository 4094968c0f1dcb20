"""Every slide of a manifest opened once, and all that is wrong with those that cannot be used."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..writers.atomic import contended_path
from ..wsi.formats import is_plain_picture
from ..wsi.slide import Slide
from .record import Record

logger = logging.getLogger(__name__)

# What is kept of a slide as long as its file stays as it is. Written so often that a killed survey loses seconds.
_KEPT_EVERY = 200


@dataclass(frozen=True)
class SlideFacts:
    """The metadata of a slide.

    Attributes:
        mpp: micrometres per level-0 pixel; None where it does not say.
        magnification: of its objective, such as 20; None where it does not say.
        problem: why it cannot be read; None where it can.
    """

    mpp: float | None = None
    magnification: float | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Survey:
    """The records that can be used, and what is wrong with the others: a row for each, with ``row``, ``image``, ``problem``."""

    usable: list[Record]
    problems: list[dict[str, Any]]


def survey_slides(
    records: Sequence[Record], cache_file: str | Path, mpp_of_magnification: bool = False, num_threads: int = 4
) -> Survey:
    """Open the slides of a manifest that have not been opened before.

    Args:
        records: of the manifest, as `load_manifest` gives them with ``check_files`` False.
        cache_file: keeps what was found of each file with its size and time, so that the next survey opens new files alone,
            and those with which something was wrong.
        mpp_of_magnification: a slide that states no pixel size, but the magnification of its objective, gets 10 um divided by
            it: 0.5 for 20x. Scanners differ from that by a tenth and more.
        num_threads: that open slides.
    """
    cache = _Cache(Path(cache_file))
    facts = dict(zip(*_opened(list(dict.fromkeys(record["image"] for record in records)), cache, num_threads), strict=True))
    usable: list[Record] = []
    problems: list[dict[str, Any]] = []
    for record in records:
        mpp, problem = _mpp_of(record, facts[record["image"]], mpp_of_magnification)
        if problem is None:
            usable.append({**record, "mpp": mpp})
        else:
            problems.append({"row": record["row"], "image": record["image"], "problem": problem})
    return Survey(usable, problems)


def _mpp_of(record: Record, facts: SlideFacts, of_magnification: bool) -> tuple[float | None, str | None]:
    """The pixel size for the manifest, None if the slide states it itself; and the problem."""
    if facts.problem is not None:
        return None, facts.problem
    if record["mpp"] is not None or facts.mpp is not None or is_plain_picture(record["image"]):
        return record["mpp"], None
    if facts.magnification is None:
        return None, "it does not state its pixel size: fill the manifest's column mpp"
    if not of_magnification:
        return None, (
            f"it does not state its pixel size, only an objective magnification of {facts.magnification:g}: fill "
            f"the manifest's column mpp, or take {10 / facts.magnification:g} um for it (--app_mag)"
        )
    return 10 / facts.magnification, None


def _opened(paths: list[str], cache: _Cache, num_threads: int) -> tuple[list[str], list[SlideFacts]]:
    found = []
    with ThreadPoolExecutor(num_threads) as pool, tqdm(total=len(paths), desc="slides", unit="slide", disable=None) as bar:
        # The first one alone: it loads the readers, which not all of them can do in two threads at a time.
        looked_up = itertools.chain(map(cache.look_up, paths[:1]), pool.map(cache.look_up, paths[1:]))
        for path, (key, facts) in zip(paths, looked_up, strict=True):
            cache.keep(path, key, facts)
            found.append(facts)
            bar.update()
    cache.write()
    return paths, found


class _Cache:
    """Facts of slides that can be read, by path, each with the size and time of the file that they are of."""

    def __init__(self, file: Path) -> None:
        self.file, self._num_new = file, 0
        try:
            self._entries: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        except ValueError:
            logger.warning(f"{file} is not a survey of slides: the slides are opened again")
            self._entries = {}

    def look_up(self, path: str) -> tuple[list[int] | None, SlideFacts]:
        try:
            stat = Path(path).stat()
        except OSError as error:
            return None, SlideFacts(problem=f"it cannot be opened: {error.strerror}")
        key = [stat.st_size, stat.st_mtime_ns]
        entry = self._entries.get(path)
        if entry is not None and entry["file"] == key:
            return key, SlideFacts(**entry["facts"])
        return key, _facts_of(path)

    def keep(self, path: str, key: list[int] | None, facts: SlideFacts) -> None:
        before = self._entries.get(path)
        # What was wrong may have been mended elsewhere: in the folder of a .mrxs, by a library, on a disk that was away.
        if facts.problem is not None or (before is not None and before["file"] == key):
            return
        self._entries[path] = {"file": key, "facts": vars(facts)}
        self._num_new += 1
        if self._num_new % _KEPT_EVERY == 0:
            self.write()

    def write(self) -> None:
        if self._num_new:
            # Of two surveys at a time the one that ends last stays, whole; the other's slides are opened again.
            with contended_path(self.file) as temporary:
                temporary.write_text(json.dumps(self._entries), encoding="utf-8")


def _facts_of(path: str) -> SlideFacts:
    try:
        slide = Slide(path)
    except (ValueError, OSError) as error:
        return SlideFacts(problem=" ".join(str(error).removeprefix(f"{path}: ").split()))
    try:
        return SlideFacts(slide.mpp if slide.has_mpp else None, slide.magnification)
    finally:
        slide.close()


def problem_table(problems: Iterable[Mapping[str, Any]]) -> str:
    """``problems.csv``: row of the manifest, image, problem."""
    import pandas as pd

    return str(pd.DataFrame(list(problems), columns=["row", "image", "problem"]).to_csv(index=False))
