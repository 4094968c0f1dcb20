"""Slides that cannot be proposed: they take no other slide's place, and are not mistaken for there being nothing to label."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from ..refusal import Refusal

logger = logging.getLogger(__name__)
_Use = TypeVar("_Use")

# Slides that one request tries in vain, as each may be opened: the next request tries others.
MOST_TRIED = 64
_LEAST_SERVER_FAULT, _BUSY = 500, 409


class KnownFault(Refusal):
    """A slide cannot be used, as an earlier request has found; its file was not opened again."""


class LastInTurn:
    """The slides that earlier requests could not use: until one of their files changes they come after all others.

    They are tried again then, those first that failed longest ago, as a disk may have been at fault.

    Args:
        files_of: function that returns the files that are read of a slide.
    """

    def __init__(self, files_of: Callable[[str], Sequence[Path]]) -> None:
        self._files_of = files_of
        self._failed: dict[str, tuple[int, list[tuple[int, int]]]] = {}
        self._numbers = itertools.count(1)

    def note(self, image: str) -> None:
        """Put a slide behind all others."""
        self._failed[image] = (next(self._numbers), self._version(image))

    def in_turn(self, images: Iterable[str]) -> list[str]:
        """The slides in the order in which they are tried, otherwise as they are given."""
        return sorted(images, key=self._turn)

    def _turn(self, image: str) -> int:
        number, version = self._failed.get(image, (0, []))
        return number if number and version == self._version(image) else 0

    def _version(self, image: str) -> list[tuple[int, int]]:
        try:
            found = [path.stat() for path in self._files_of(image)]
        except (Refusal, OSError):
            return []
        return [(status.st_mtime_ns, status.st_size) for status in found]


class PassedOver:
    """The slides that one request has passed over, and why.

    Args:
        last: notes them for the requests to come; None if there are none.
    """

    def __init__(self, last: LastInTurn | None = None) -> None:
        self._last = last
        self._reasons: dict[str, str] = {}
        self._busy: Refusal | None = None
        self._num_left = 0

    def usable(
        self, images: Iterable[str], use: Callable[[str], _Use], most: int, most_tried: int = MOST_TRIED
    ) -> dict[str, _Use]:
        """The first slides that can be used, and what `use` gives for each.

        Those for which it fails are logged and do not count, but one on which another process is at work (409) does.

        Args:
            images: ids of the slides, in their turn.
            use: function of an id; it raises a ValueError or an OSError for a slide that cannot be used.
            most: number of slides.
            most_tried: number of failures, those that are known already left aside, after which no other slide is tried.

        Raises:
            Refusal: of `use`, if the server is at fault (500 or more) and the other slides would fail as well.
        """
        found: dict[str, _Use] = {}
        waiting, num_busy, num_tried = list(images), 0, 0
        for index, image in enumerate(waiting):
            if len(found) + num_busy >= most:
                break
            if num_tried >= most_tried:
                self._num_left = len(waiting) - index
                logger.warning("%d slides could not be used: %d others are not tried by this request", num_tried, self._num_left)
                break
            try:
                found[image] = use(image)
            except (ValueError, OSError) as error:
                status = error.status if isinstance(error, Refusal) else None
                if status is not None and status >= _LEAST_SERVER_FAULT:
                    logger.error("no slide is proposed, as the server failed at %s: %s", image, error)
                    # It may fail at this one only, such as a very large one: the next request begins with another.
                    self._put_last(image)
                    raise
                logger.warning("%s is not proposed: %s", image, error)
                if isinstance(error, Refusal) and status == _BUSY:
                    self._busy, num_busy = error, num_busy + 1
                    continue
                num_tried += not isinstance(error, KnownFault)
                self._reasons[image] = str(error)
                self._put_last(image)
        return found

    def _put_last(self, image: str) -> None:
        if self._last is not None:
            self._last.note(image)

    def check(self) -> None:
        """Check that no slide was passed over, where none is left to propose.

        Raises:
            Refusal: with the number of slides, and the reason of the first; that of a slide on which another process is at work.
        """
        if self._busy is not None:
            raise self._busy
        if not self._reasons:
            return
        image, reason = next(iter(self._reasons.items()))
        left = f"{self._num_left} others wait for the next request, as one tries {MOST_TRIED}. " if self._num_left else ""
        raise Refusal(
            f"no slide can be proposed, as {len(self._reasons)} cannot be used: repair them, or take them out of the studies "
            f"folder. {left}The first is {image}: {reason}"
        )
