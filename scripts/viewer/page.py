"""The page: a table of all slides, and one slide in one or more panes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from bokeh.document import Document
from bokeh.events import DocumentReady
from bokeh.layouts import column, gridplot, row
from bokeh.models import (
    Button,
    CheckboxGroup,
    CustomJS,
    Div,
    InlineStyleSheet,
    LayoutDOM,
    MultiChoice,
    Range1d,
    Select,
    Slider,
    TabPanel,
    Tabs,
    TextInput,
    Toggle,
)

from .cohort_table import CohortTable
from .layers import COLOUR_MAPS, Layers
from .redrawing import Drawn, Redrawing, Wanted
from .slide_pane import SlidePane
from .view_state import MOST_PANES, ViewState, state_of

if TYPE_CHECKING:
    # These import MONAI, which takes seconds and is needed only with a bundle.
    from .labelling.label_bar import LabelBar
    from .labelling.learner import Learner

logger = logging.getLogger(__name__)

OUTLINES, TRUTH = 0, 1
_LOOK_MS = 2000
_NO_SECOND = ("", "none")
OWN_THRESHOLD, THRESHOLD = "threshold (each map's own)", "threshold"
FOREIGN = " (this map was made with other settings than those in its folder: its own threshold is not known)"
_STYLE = """
:host { font-family: system-ui, sans-serif; }
"""
# The address follows the view, the theme follows the reader's system, and keys move the view.
_FOLLOW = """
const query = new URLSearchParams(state.value)
const [left, right] = [x.start, x.end], [top, bottom] = [-y.end, -y.start]
if (query.get("slide")) query.set("box", [left, top, right, bottom].map(Math.round).join(","))
history.replaceState(null, "", "/?" + query.toString())
"""
_READY = """
dark.active = window.matchMedia("(prefers-color-scheme: dark)").matches
window.addEventListener("keydown", (event) => {
  if (["INPUT", "TEXTAREA", "SELECT"].includes(event.composedPath()[0].tagName)) return
  const [w, h] = [x.end - x.start, y.end - y.start]
  const move = (dx, dy) => {
    x.setv({start: x.start + dx * w, end: x.end + dx * w})
    y.setv({start: y.start + dy * h, end: y.end + dy * h})
  }
  const zoom = (by) => {
    x.setv({start: x.start + by * w, end: x.end - by * w})
    y.setv({start: y.start + by * h, end: y.end - by * h})
  }
  const keys = {ArrowLeft: () => move(-0.2, 0), ArrowRight: () => move(0.2, 0), ArrowUp: () => move(0, 0.2),
                ArrowDown: () => move(0, -0.2), "+": () => zoom(0.25), "-": () => zoom(-0.5)}
  if (event.key in keys) { keys[event.key](); event.preventDefault() }
})
"""


class Page:
    """The content of one browser tab.

    Args:
        layers: layers of the cohort.
        document: document that is filled.
        learner: trains on the labels given here; None if slides are only viewed.
    """

    def __init__(self, layers: Layers, document: Document, learner: Learner | None = None) -> None:
        self._layers, self._document = layers, document
        self._cohort = layers.cohort
        context = document.session_context
        arguments = context.request.arguments if context is not None and context.request is not None else {}
        self._state = state_of(arguments, self._cohort)
        self._panes: list[SlidePane] = []
        self._is_building = False
        self._stamps: tuple[str, ...] = ()
        self._redrawing = Redrawing(layers, document, self._draw)
        self._labels = None if learner is None else self._label_bar(learner)
        self._x, self._y = Range1d(start=0, end=1), Range1d(start=-1, end=0)
        self._make_widgets()
        self._table = CohortTable(self._cohort, self._open, learner.labels if learner is not None else None)
        self._view = column(_no_slide(), sizing_mode="stretch_both")
        bars = [self._bar(), *([] if self._labels is None else [self._labels.layout]), self._message]
        self._tabs = Tabs(
            tabs=[
                TabPanel(child=self._table.layout, title="Slides"),
                TabPanel(child=column(*bars, self._view, sizing_mode="stretch_both"), title="Slide"),
            ],
            sizing_mode="stretch_both",
            stylesheets=[InlineStyleSheet(css=_STYLE)],
        )
        self._tabs.on_change("active", lambda _name, _old, new: self._table.refresh() if new == 0 else None)
        document.title = "Tumour maps"
        document.add_root(self._tabs)
        document.js_on_event(DocumentReady, CustomJS(args={"x": self._x, "y": self._y, "dark": self._dark}, code=_READY))
        document.add_periodic_callback(self._look_for_new_maps, _LOOK_MS)
        if self._state.slide:
            self._show(self._state if "methods" in arguments else self._with_own_methods(self._state))

    def _label_bar(self, learner: Learner) -> LabelBar:
        from .labelling.label_bar import LabelBar

        return LabelBar(learner, self._document, self._show_methods)

    def _make_widgets(self) -> None:
        titles = [maps.title for maps in self._cohort.methods]
        self._methods = MultiChoice(
            options=[(str(index), title) for index, title in enumerate(titles)],
            value=[str(index) for index in self._state.methods],
            max_items=MOST_PANES,
            title="methods",
            width=320,
            visible=len(titles) > 1,
        )
        self._threshold = Slider(start=0.01, end=1, step=0.01, value=0.5, title=OWN_THRESHOLD, width=260, name="threshold")
        self._second = Select(options=[_NO_SECOND], value="", title="second map", width=140, visible=False, name="second")
        self._opacity = Slider(start=0, end=1, step=0.05, value=0.5, title="opacity of the map", width=160, name="opacity")
        self._colours = Select(options=list(COLOUR_MAPS), value=self._state.colours, title="colours", width=110)
        names = next((maps.class_names for maps in self._cohort.methods if maps.class_names), None)
        self._channel = Select(
            options=[(str(index), name) for index, name in enumerate(names or ["tumour"])],
            value="1" if names else "0",
            title="class",
            width=140,
            visible=names is not None,
        )
        shown = ["outlines"] + (["true mask"] if self._cohort.has_truth else [])
        self._shown = CheckboxGroup(labels=shown, active=[OUTLINES], inline=True, name="shown")
        self._back, self._next = (Button(label=label, width=90) for label in ("‹ previous", "next ›"))
        self._dark = Toggle(label="dark", width=70)
        self._message = Div(text="", name="message", styles={"font-variant-numeric": "tabular-nums"})
        # Carries the query of the view to the JavaScript in the browser.
        self._address = TextInput(value="", visible=False, name="address")
        self._methods.on_change("value", lambda _name, _old, _new: self._choose_methods())
        self._threshold.on_change("value", lambda _name, _old, new: self._choose_threshold(new))
        for widget in (self._opacity, self._colours, self._channel, self._second):
            widget.on_change("value", lambda _name, _old, _new: self._show_layers())
        self._shown.on_change("active", lambda _name, _old, _new: self._show_layers())
        self._back.on_click(partial(self._step, -1))
        self._next.on_click(partial(self._step, 1))
        self._dark.on_change("active", lambda _name, _old, _new: self._set_theme())
        follow = CustomJS(args={"x": self._x, "y": self._y, "state": self._address}, code=_FOLLOW)
        for model, event in ((self._x, "end"), (self._y, "end"), (self._address, "value")):
            model.js_on_change(event, follow)

    def _bar(self) -> LayoutDOM:
        looks = (self._opacity, self._colours, self._channel, self._second, self._shown)
        return row(
            self._back,
            self._next,
            self._threshold,
            *looks,
            self._methods,
            self._dark,
            self._address,
            styles={"flex-wrap": "wrap", "gap": "8px", "align-items": "end"},
        )

    def _open(self, name: str) -> None:
        self._show(self._with_own_methods(replace(self._state, slide=name, box=None, threshold=None)))

    def _with_own_methods(self, state: ViewState) -> ViewState:
        """The state, where slides are labelled with the maps of the current version and the one before it."""
        methods = () if self._labels is None else self._labels.methods(state.slide)
        return replace(state, methods=methods) if methods else state

    def _step(self, by: int) -> None:
        names = list(self._cohort.slides)
        if self._state.slide:
            self._open(names[(names.index(self._state.slide) + by) % len(names)])

    def _choose_methods(self) -> None:
        if not self._is_building:
            self._show_methods(tuple(int(value) for value in self._methods.value))

    def _show_methods(self, methods: tuple[int, ...]) -> None:
        """Show these methods side by side, without moving the view."""
        self._state = replace(self._state, methods=methods)
        if self._state.slide:
            left, bottom, right, top = (float(side) for side in (self._x.start, self._y.start, self._x.end, self._y.end))
            self._show(replace(self._state, box=(left, -top, right, -bottom)))

    def _choose_threshold(self, value: float) -> None:
        if not self._is_building:
            self._state = replace(self._state, threshold=value)
            self._threshold.title = THRESHOLD
            self._note_address()
            self._redraw(is_moving=True)

    def _show(self, state: ViewState) -> None:
        """Build the panes of a slide."""
        self._is_building = True
        try:
            self._build(state)
        finally:
            self._is_building = False

    def _build(self, state: ViewState) -> None:
        self._state, self._panes = state, []
        self._tabs.active = 1
        try:
            width, height = self._layers.slide(state.slide).size_px
        except (ValueError, OSError) as error:
            self._view.children = [_no_slide()]
            self._show_message(f"{state.slide} cannot be shown: {error}")
            if self._labels is not None:
                self._labels.close()
            return
        left, top, right, bottom = state.box or (0, 0, width, height)
        self._x.update(start=left, end=right, reset_start=0, reset_end=width)
        self._y.update(start=-bottom, end=-top, reset_start=-height, reset_end=0)
        methods: list[int | None] = [*state.methods] or [None]
        self._panes = [SlidePane(self._layers, state.slide, method, (self._x, self._y)) for method in methods]
        figures = [pane.figure for pane in self._panes]
        grid: LayoutDOM = figures[0]
        if len(figures) > 1:
            grid = gridplot(
                [list(figures[:2]), list(figures[2:])], sizing_mode="stretch_both", toolbar_location="right", merge_tools=True
            )
        self._view.children = [grid]
        titles = [maps.title for maps in self._cohort.methods]
        self._methods.update(
            options=[(str(index), title) for index, title in enumerate(titles)],
            value=[str(index) for index in state.methods],
            visible=len(titles) > 1,
        )
        self._second.update(options=[_NO_SECOND, *self._methods.options], visible=len(titles) > 1)
        if self._labels is not None:
            self._labels.open(state.slide, self._layers.slide(state.slide).mpp, figures)
        shown = [self._cohort.methods[pane.method] for pane in self._panes if pane.method is not None]
        self._threshold.update(
            value=state.threshold or (round(shown[0].outlining(state.slide).threshold, 2) if shown else 0.5),
            disabled=not shown or shown[0].class_names_of(state.slide) is not None,
            title=OWN_THRESHOLD if state.threshold is None else THRESHOLD,
        )
        self._set_theme()
        self._show_layers()
        self._redraw()

    def _show_layers(self) -> None:
        channel = int(self._channel.value)
        for pane in self._panes:
            if pane.method is not None:
                stamp = self._cohort.methods[pane.method].stamp(self._state.slide)
                pane.show_map(self._colours.value, channel, self._opacity.value, stamp)
            self._show_second(pane, channel)
            pane.show_truth(TRUTH in self._shown.active, 0.5)
            pane.hide_outlines(OUTLINES not in self._shown.active)
        self._note_address()

    def _show_second(self, pane: SlidePane, channel: int) -> None:
        method = int(self._second.value) if self._second.value else None
        version = "" if method is None else self._cohort.methods[method].stamp(self._state.slide)
        # Its colours differ from those of the first map.
        colours = COLOUR_MAPS[COLOUR_MAPS.index(self._colours.value) - 1]
        pane.show_second(method, colours, channel, self._opacity.value, version)

    def _look_for_new_maps(self) -> None:
        """Redraw maps that were rewritten since they were drawn."""
        if self._panes and self._stamps != self._stamps_now():
            self._show_layers()
            self._redraw()

    def _stamps_now(self) -> tuple[str, ...]:
        methods = (self._cohort.methods[pane.method] for pane in self._panes if pane.method is not None)
        return tuple(maps.stamp(self._state.slide) for maps in methods)

    def _redraw(self, is_moving: bool = False) -> None:
        self._stamps = self._stamps_now()
        slide, threshold = self._state.slide, self._state.threshold
        mapped = [pane.method for pane in self._panes if pane.method is not None and pane.has_map]
        methods = self._cohort.methods
        wish = [Wanted(index, slide, threshold or methods[index].outlining(slide).threshold) for index in mapped]
        self._redrawing.want(wish, is_moving)

    def _draw(self, drawn: Sequence[Drawn]) -> None:
        found, texts = iter(drawn), []
        for pane in self._panes:
            if pane.method is None or not pane.has_map:
                texts.append("not mapped" if pane.method is None else f"{pane.title}: not mapped")
                continue
            maps, one = self._cohort.methods[pane.method], next(found, None)
            if one is None:
                continue
            if isinstance(one.outlines, str):
                texts.append(f"{maps.title}: {one.outlines}")
                continue
            pane.show_outlines(one.outlines, maps.class_names_of(self._state.slide))
            is_foreign = self._layers.is_foreign(pane.method, self._state.slide)
            texts.append(f"{maps.title}: {_counted(one)}{FOREIGN if is_foreign else ''}")
        # So that the address can be copied as soon as the new areas are shown.
        self._note_address()
        self._show_message(f"{self._state.slide} · " + " · ".join(texts))

    def _note_address(self) -> None:
        self._address.value = replace(self._state, colours=self._colours.value, box=None).query

    def _show_message(self, text: str) -> None:
        """Show a message as plain text, never as HTML."""
        self._message.update(text=text, disable_math=True, render_as_text=True)

    def _set_theme(self) -> None:
        ink, paper = ("#e8e8e8", "#1b1b1f") if self._dark.active else ("#1b1b1f", "#ffffff")
        for pane in self._panes:
            pane.set_colours(ink, paper)
        self._tabs.styles = {"background": paper, "color": ink}


def _no_slide() -> Div:
    """Fills the view while it has no slide: Bokeh warns of empty layouts."""
    return Div(text="No slide is shown. Choose one in the table of slides.")


def _counted(drawn: Drawn) -> str:
    assert not isinstance(drawn.outlines, str)
    area, count = drawn.outlines.area_mm2, len(drawn.outlines.rings)
    share = "" if drawn.outlines.share is None else f", {100 * drawn.outlines.share:.1f} % of the tissue"
    if drawn.is_draft:
        return f"about {area:.2f} mm²{share} ..."
    return f"{count} area{'s' * (count != 1)}, {area:.4f} mm²{share}"
