"""The controls for labelling a slide: label, area, brushes, training and versions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bokeh.document import Document
from bokeh.layouts import column, row
from bokeh.models import Button, Div, LayoutDOM, Progress, RadioButtonGroup, Select, Slider
from bokeh.plotting import figure

from scripts.label_server.refusal import Refusal

from .brush import CHOICES, Brush, choose_with
from .learner import Learner

_LABELS = {"": "not given", "0": "normal", "1": "tumour"}
_SOURCES = {"info": "given here", "annotations": "from the strokes", "item metadata": "from the manifest"}
_POLL_MS = 250


class LabelBar:
    """The labels of the slide in view, and the controls of the learner.

    Args:
        learner: learner that all pages share.
        document: document of the page.
        show: called with the numbers of the methods whose maps are to be shown side by side.

    Attributes:
        layout: for the page.
    """

    def __init__(self, learner: Learner, document: Document, show: Callable[[tuple[int, ...]], None]) -> None:
        self._learner, self._show = learner, show
        self._slide, self._mpp = "", 1.0
        # Slide and version of the last requested map, so that one that fails is not requested again and again.
        self._asked: tuple[str, str] | None = None
        self._brushes: list[Brush] = []
        self._is_filling, self._revision = False, learner.revision
        self._label = Select(options=list(_LABELS.items()), value="", title="label of the slide", width=120, name="label")
        self._area = Slider(start=0, end=100, step=1, value=0, title="rough area, % (0: not given)", width=200, name="area")
        self._brush = RadioButtonGroup(labels=list(CHOICES), active=0, name="brush")
        self._width = Slider(start=10, end=1000, step=10, value=150, title="width of strokes, µm", width=150, name="width")
        self._undo = Button(label="undo stroke", width=100, name="undo stroke")
        self._train = Button(label="train", button_type="primary", width=80, name="train")
        self._stop = Button(label="stop", width=60, disabled=True)
        self._progress = Progress(value=0, width=200, visible=False)
        self._version = Select(options=[], value="", title="version used for maps", width=340, name="version")
        self._counts, self._message = (Div(text="", name=name) for name in ("counts", "learner"))
        self._label.on_change("value", lambda _name, _old, _new: self._save_label())
        self._area.on_change("value_throttled", lambda _name, _old, _new: self._save_label())
        self._undo.on_click(self._undo_stroke)
        self._train.on_click(self._learn)
        self._stop.on_click(learner.stop)
        self._version.on_change("value", lambda _name, _old, new: self._choose(new))
        label = (self._label, self._area, self._brush, self._width, self._undo, self._counts)
        style = {"flex-wrap": "wrap", "gap": "8px", "align-items": "end"}
        training = (self._train, self._stop, self._version, self._progress, self._message)
        self.layout: LayoutDOM = column(row(*label, styles=style), row(*training, styles=style))
        document.add_periodic_callback(self._poll, _POLL_MS)

    def open(self, slide: str, mpp: float, panes: Sequence[figure]) -> None:
        """Show the label of a slide, allow strokes in its panes, and map it unless the current version already has."""
        if slide != self._slide:
            self._asked = None
        self._slide, self._mpp = slide, mpp
        self._brushes = [Brush(pane, self._draw) for pane in panes]
        self._brush.active = 0
        choose_with(self._brush, panes, self._brushes)
        self._fill()
        self._ask_for_map()
        self._poll()

    def close(self) -> None:
        """Note that no slide is shown."""
        self._slide, self._brushes = "", []

    def _fill(self) -> None:
        """Set the controls to the stored labels."""
        given, counting = self._learner.labels.given_label(self._slide), self._learner.labels.label(self._slide)
        self._is_filling = True
        self._label.value = "" if given is None else str(given.label)
        self._area.value = round(100 * (given.fraction or 0)) if given else 0
        self._area.disabled = given is None or given.label == 0
        self._fill_versions()
        self._is_filling = False
        strokes = self._learner.labels.strokes(self._slide)
        self._undo.disabled = not strokes
        for brush in self._brushes:
            brush.show(strokes)
        if counting is None:
            self._show_text(self._counts, "no label yet")
            return
        share = "" if not counting.fraction else f", {100 * counting.fraction:.2g} % of the tissue"
        self._show_text(self._counts, f"label: {_LABELS[str(counting.label)]}{share} ({_SOURCES[counting.source]})")

    def _fill_versions(self) -> None:
        versions = self._learner.versions()
        self._version.options = versions or [("", "none yet: training begins with new weights")]
        self._version.value = self._learner.version if versions else ""

    def _save_label(self) -> None:
        if self._is_filling or not self._slide:
            return
        label = int(self._label.value) if self._label.value else None
        fraction = self._area.value / 100 if label and self._area.value else None
        self._change(lambda: self._learner.labels.set_label(self._slide, label, fraction))

    def _draw(self, class_name: str, points: list[tuple[float, float]]) -> None:
        self._change(lambda: self._learner.labels.draw(self._slide, class_name, points, self._width.value / self._mpp))

    def _undo_stroke(self) -> None:
        if self._slide:
            self._change(lambda: self._learner.labels.undo_stroke(self._slide))

    def _change(self, change: Callable[[], Any]) -> None:
        try:
            change()
            path = self._learner.labels.path
            self._show_text(self._message, f"saved in {path.parent.name}/{path.name}")
        except (Refusal, ValueError, OSError) as error:
            self._show_text(self._message, f"not saved: {error}")
        self._fill()

    def _learn(self) -> None:
        if self._slide:
            self._learner.train(self._slide)

    def _choose(self, version: str) -> None:
        if not self._is_filling and self._slide and version and version != self._learner.version:
            self._learner.choose(version, self._slide)

    def _poll(self) -> None:
        progress = self._learner.progress
        is_busy = progress.percent is not None
        self._train.disabled, self._stop.disabled, self._version.disabled = is_busy, not is_busy, is_busy
        self._progress.visible, self._progress.value = is_busy, progress.percent or 0
        if is_busy or self._revision != self._learner.revision:
            self._show_text(self._message, progress.text)
        if self._revision == self._learner.revision:
            return
        self._revision = self._learner.revision
        if self._slide:
            self._fill()
            self._show_maps()
            # A slide that was opened while the learner was busy is mapped now.
            self._ask_for_map()

    def _ask_for_map(self) -> None:
        wanted = (self._slide, self._learner.version)
        if wanted != self._asked and self._learner.map(self._slide):
            self._asked = wanted

    def methods(self, slide: str) -> tuple[int, ...]:
        """Numbers of the methods with a map of the slide: the version that the current one comes from, then the current one."""
        versions = (self._learner.former, self._learner.version)
        numbers = (self._learner.method(version) for version in versions if version is not None)
        return tuple(number for number in numbers if number is not None and self._learner.has_map(number, slide))

    def _show_maps(self) -> None:
        methods = self.methods(self._slide)
        if methods:
            self._show(methods)

    @staticmethod
    def _show_text(place: Div, text: str) -> None:
        """Show plain text, never HTML."""
        place.update(text=text, disable_math=True, render_as_text=True)
