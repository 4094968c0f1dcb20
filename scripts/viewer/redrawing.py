"""Outlines that follow the threshold, computed in threads: drafts while the slider moves, complete ones when it rests."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from bokeh.document import Document

from .layers import Layers
from .outlines import Outlines, draft_outlines, outlines_at

logger = logging.getLogger(__name__)

REST_MS = 250
# One draft and one complete computation for all pages; each takes a core.
_executor = ThreadPoolExecutor(2, thread_name_prefix="outlines")


@dataclass(frozen=True)
class Wanted:
    """Outlines that a pane asks for.

    Args:
        method: number of the method.
        name: name of the slide.
        threshold: least probability of tumour.
    """

    method: int
    name: str
    threshold: float


@dataclass(frozen=True)
class Drawn:
    """The result of a request.

    Args:
        outlines: the outlines, or the reason why there are none.
        is_draft: whether outlines and areas are only approximate.
    """

    outlines: Outlines | str
    is_draft: bool = False


class Redrawing:
    """Computes the outlines of a page's panes. Only the latest request counts.

    Args:
        layers: layers of the cohort.
        document: document of the page.
        draw: called in the page's event loop with the result for each pane.
    """

    def __init__(self, layers: Layers, document: Document, draw: Callable[[Sequence[Drawn]], None]) -> None:
        self._layers, self._document, self._draw = layers, document, draw
        self._wish: tuple[Wanted, ...] = ()
        self._number = 0
        self._is_drafting = False
        self._timer: Any = None
        self._is_there = True
        document.on_session_destroyed(self._leave)

    def want(self, wish: Sequence[Wanted], is_moving: bool) -> None:
        """Draw these outlines: drafts while the threshold is moving, complete ones when it rests."""
        self._wish, self._number = tuple(wish), self._number + 1
        if self._timer is not None:
            self._document.remove_timeout_callback(self._timer)
            self._timer = None
        if not is_moving:
            self._complete()
            return
        self._timer = self._document.add_timeout_callback(self._rest, REST_MS)
        self._draft()

    def _draft(self) -> None:
        if not self._is_drafting:
            self._is_drafting = True
            _executor.submit(self._compute, self._number, self._wish, is_draft=True)

    def _rest(self) -> None:
        self._timer = None
        self._complete()

    def _complete(self) -> None:
        _executor.submit(self._compute, self._number, self._wish, is_draft=False)

    def _compute(self, number: int, wish: Sequence[Wanted], is_draft: bool) -> None:
        drawn = [self._outlines(number, one, is_draft) for one in wish]
        if self._is_there:
            self._document.add_next_tick_callback(functools.partial(self._deliver, number, wish, drawn, is_draft))

    def _outlines(self, number: int, one: Wanted, is_draft: bool) -> Drawn:
        place = (self._layers, one.method, one.name, one.threshold)
        try:
            if is_draft:
                return Drawn(draft_outlines(*place), is_draft=True)
            return Drawn(outlines_at(*place, lambda: self._is_there and number == self._number))
        except (ValueError, OSError, KeyError) as error:
            return Drawn(str(error))
        except Exception as error:
            logger.exception("outlines of %s", one.name)
            return Drawn(f"{type(error).__name__}: {error}")

    def _deliver(self, number: int, wish: Sequence[Wanted], drawn: Sequence[Drawn], is_draft: bool) -> None:
        if is_draft:
            self._is_drafting = False
            if self._timer is not None:
                # Another slide may have been opened since.
                if _places(wish) == _places(self._wish):
                    self._draw(drawn)
                if number != self._number:
                    self._draft()
            return
        if number == self._number:
            self._draw(drawn)

    def _leave(self, _context: Any) -> None:
        self._is_there = False


def _places(wish: Sequence[Wanted]) -> list[tuple[int, str]]:
    return [(one.method, one.name) for one in wish]
