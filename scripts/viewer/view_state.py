"""The view, which the page's address describes well enough for a link to open it again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlencode

from shared.wsi.file_names import comparable

from .cohort import Cohort
from .layers import COLOUR_MAPS

MOST_PANES = 4


@dataclass(frozen=True)
class ViewState:
    """One view of a slide.

    Args:
        slide: name of the slide; empty for the table of all slides.
        methods: numbers of the methods, one pane each; empty for the slide alone.
        threshold: threshold of the outlines; None for that of each map.
        colours: colour map of the maps.
        box: visible part (left, top, right, bottom) in level-0 pixels; None for the whole slide.
    """

    slide: str = ""
    methods: tuple[int, ...] = ()
    threshold: float | None = None
    colours: str = COLOUR_MAPS[0]
    box: tuple[float, float, float, float] | None = None

    @property
    def query(self) -> str:
        """The view as the query of the page's address.

        >>> ViewState("a b", (0, 2), 0.5, box=(0, 0, 512.25, 256)).query
        'slide=a+b&methods=0%2C2&threshold=0.5&colours=viridis&box=0%2C0%2C512%2C256'
        """
        fields = {"slide": self.slide, "methods": ",".join(map(str, self.methods))}
        if self.threshold is not None:
            fields["threshold"] = f"{self.threshold:g}"
        fields["colours"] = self.colours
        if self.box is not None:
            fields["box"] = ",".join(f"{side:.0f}" for side in self.box)
        return urlencode(fields)


def state_of(arguments: Mapping[str, Sequence[bytes]], cohort: Cohort) -> ViewState:
    """The view that an address describes. Invalid parts are ignored, as the address may have been made for another cohort.

    Args:
        arguments: arguments of the query, as Bokeh passes them.
        cohort: slides and methods.
    """
    given = {name: values[-1].decode(errors="replace") for name, values in arguments.items() if values}
    slide = comparable(given.get("slide", ""))
    state = ViewState(slide if slide in cohort.slides else "", _methods(given.get("methods"), cohort))
    if given.get("colours") in COLOUR_MAPS:
        state = replace(state, colours=given["colours"])
    threshold = _numbers(given.get("threshold", ""), 1)
    if threshold and 0 < threshold[0] <= 1:
        state = replace(state, threshold=threshold[0])
    box = _numbers(given.get("box", ""), 4)
    if box and box[0] < box[2] and box[1] < box[3]:
        state = replace(state, box=(box[0], box[1], box[2], box[3]))
    return state


def _methods(text: str | None, cohort: Cohort) -> tuple[int, ...]:
    everything = range(len(cohort.methods))
    if text is None:
        return tuple(everything[:MOST_PANES])
    numbers = [int(word) for word in text.split(",") if word.isdigit() and int(word) in everything]
    return tuple(dict.fromkeys(numbers))[:MOST_PANES]


def _numbers(text: str, count: int) -> list[float]:
    """The finite numbers of a comma-separated text; an empty list if there are not exactly `count` of them."""
    try:
        numbers = [float(word) for word in text.split(",")]
    except ValueError:
        return []
    return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else []
