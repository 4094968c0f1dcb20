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

from ...writers.atomic import contended_path
from ...wsi.formats import is_plain_picture
from ...wsi.slide import Slide
from ...wsi.slide_files import SlideStates
from ..manifest import region_size_px
from ..problems import first_names
from ..record import Record
from ..splits import copies_in_two_splits
from ..tissue_cache import slide_content_key

logger = logging.getLogger(__name__)

# Of so many slides the facts are written at a time: a killed survey loses seconds.
_KEPT_EVERY = 200
# An image, and the micrometres per level-0 pixel that somebody has stated for it.
_Stated = tuple[str, float | None]


@dataclass(frozen=True)
class SlideFacts:
    """The metadata of a slide.

    Attributes:
        mpp: micrometres per level-0 pixel, as the manifest states them or else the file; None where neither does.
        magnification: of its objective, such as 20; None where it does not say.
        content: of its file, see `slide_content_key`; None where it cannot be read.
        problem: why it cannot be read; None where it can.
    """

    mpp: float | None = None
    magnification: float | None = None
    content: str | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Survey:
    """The records that can be used, and what is wrong with the others: a row for each, with ``row``, ``image``, ``problem``.

    The regions of usable records are in level-0 pixels.
    """

    usable: list[Record]
    problems: list[dict[str, Any]]


def survey_slides(
    records: Sequence[Record], cache_file: str | Path, mpp_of_magnification: bool = False, num_threads: int = 4
) -> Survey:
    """Open the slides of a manifest that have not been opened before.

    A record is not usable either if one before it, of another split, has an image of the same content; or one of another case
    where the splits of labelled images are still to be drawn. Other copies are counted in a warning.

    Args:
        records: of the manifest, as `stated_rows` gives them, or `load_manifest` with ``check_files`` False.
        cache_file: keeps what was found of each slide with the state of its files (see `SlideStates`), so that the next survey
            opens new slides alone, and those with which something was wrong.
        mpp_of_magnification: a slide that states no pixel size, but the magnification of its objective, gets 10 um divided by
            it: 0.5 for 20x. Scanners differ from that by a tenth and more.
        num_threads: that open slides.
    """
    cache = _Cache(Path(cache_file))
    facts = _opened(list(dict.fromkeys(map(_as_stated, records))), cache, num_threads)
    readable: list[tuple[Record, str]] = []
    problems: list[tuple[Record, str]] = []
    for record in records:
        own = facts[_as_stated(record)]
        try:
            readable.append((_usable(record, own, mpp_of_magnification), str(own.content)))
        except ValueError as error:
            problems.append((record, str(error)))
    copies = _in_two_splits(readable)
    rows = {record["row"] for record, _ in copies}
    kept = [(record, key) for record, key in readable if record["row"] not in rows]
    _warn_of_copies(kept)
    listed = [{"row": record["row"], "image": record["image"], "problem": problem} for record, problem in (*problems, *copies)]
    return Survey([record for record, _ in kept], listed)


def _in_two_splits(readable: Sequence[tuple[Record, str]]) -> list[tuple[Record, str]]:
    """The copies of images that have splits, or labels by which splits will be drawn."""
    slides = [(record, key, record.get("split")) for record, key in readable]
    return copies_in_two_splits([one for one in slides if one[2] is not None or one[0].get("label") is not None])


def _warn_of_copies(readable: Sequence[tuple[Record, str]]) -> None:
    first: dict[str, str] = {}
    others = {record["image"]: first.setdefault(key, record["image"]) for record, key in readable}
    copies = [f"{image} (of {other})" for image, other in others.items() if image != other]
    if copies:
        logger.warning(
            "%d images have the same content as others and count twice; keep one of each: %s", len(copies), first_names(copies)
        )


def _as_stated(record: Record) -> _Stated:
    """The image of a record and the pixel size that the manifest states: a file whose own makes no sense is read with it."""
    return record["image"], record["mpp"]


def _usable(record: Record, facts: SlideFacts, of_magnification: bool) -> Record:
    """The record with the pixel size for the manifest, its region in pixels; a ValueError that says why it cannot be used."""
    mpp, problem = _mpp_of(record, facts, of_magnification)
    if problem is not None:
        raise ValueError(problem)
    width_um, height_um = record.get("width_um"), record.get("height_um")
    if width_um is None or height_um is None:
        return {**record, "mpp": mpp}
    known_mpp = mpp or facts.mpp
    if known_mpp is None:
        raise ValueError("its region is in micrometres, and it does not state its pixel size: fill the manifest's column mpp")
    width_px, height_px = region_size_px((width_um, height_um), known_mpp)
    return {**record, "mpp": mpp, "width_um": None, "height_um": None, "width_px": width_px, "height_px": height_px}


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


def _opened(slides: list[_Stated], cache: _Cache, num_threads: int) -> dict[_Stated, SlideFacts]:
    found: dict[_Stated, SlideFacts] = {}
    with ThreadPoolExecutor(num_threads) as pool, tqdm(total=len(slides), desc="slides", unit="slide", disable=None) as bar:
        # The first one alone: it loads the readers, which not all of them can do in two threads at a time.
        looked_up = itertools.chain(map(cache.look_up, slides[:1]), pool.map(cache.look_up, slides[1:]))
        for slide, (state, facts) in zip(slides, looked_up, strict=True):
            cache.keep(slide, state, facts)
            found[slide] = facts
            bar.update()
    cache.write()
    return found


class _Cache:
    """Facts of slides that can be read, by path and stated pixel size, each with the state of the files that they are of."""

    def __init__(self, file: Path) -> None:
        self.file, self._num_new, self._states = file, 0, SlideStates()
        try:
            self._entries: dict[str, Any] = dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}
        except (ValueError, TypeError):
            logger.warning(f"{file} is not a survey of slides: the slides are opened again")
            self._entries = {}

    def look_up(self, slide: _Stated) -> tuple[str | None, SlideFacts]:
        try:
            state = self._states.of(slide[0])
        except OSError as error:
            return None, SlideFacts(problem=f"it cannot be opened: {error.strerror}")
        if self._state(slide) == state:
            return state, SlideFacts(**self._entries[_name(slide)]["facts"])
        return state, _facts_of(*slide)

    def keep(self, slide: _Stated, state: str | None, facts: SlideFacts) -> None:
        # What was wrong may have been mended elsewhere: by a library, on a disk that was away.
        if facts.problem is not None or self._state(slide) == state:
            return
        self._entries[_name(slide)] = {"state": state, "facts": vars(facts)}
        self._num_new += 1
        if self._num_new % _KEPT_EVERY == 0:
            self.write()

    def _state(self, slide: _Stated) -> str | None:
        """Of the files of which facts are kept; None where none are, or those of an earlier version, which kept others."""
        entry = self._entries.get(_name(slide), {})
        state: str | None = entry.get("state") if "content" in entry.get("facts", {}) else None
        return state

    def write(self) -> None:
        if self._num_new:
            # Of two surveys at a time the one that ends last stays, whole; the other's slides are opened again.
            with contended_path(self.file) as temporary:
                temporary.write_text(json.dumps(self._entries), encoding="utf-8")


def _name(slide: _Stated) -> str:
    path, mpp = slide
    return path if mpp is None else f"{path} at {mpp} um"


def _facts_of(path: str, mpp: float | None) -> SlideFacts:
    try:
        slide = Slide(path, mpp=mpp)
    except (ValueError, OSError) as error:
        return SlideFacts(problem=" ".join(str(error).removeprefix(f"{path}: ").split()))
    try:
        return SlideFacts(slide.mpp if slide.has_mpp else None, slide.magnification, slide_content_key(path))
    except OSError as error:
        return SlideFacts(problem=f"it cannot be read: {error.strerror}")
    finally:
        slide.close()


def problem_table(problems: Iterable[Mapping[str, Any]]) -> str:
    """``problems.csv``: row of the manifest, image, problem."""
    import pandas as pd

    return str(pd.DataFrame(list(problems), columns=["row", "image", "problem"]).to_csv(index=False))
