"""Strokes on a pane, drawn in the browser and shown as they are stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import shapely
from bokeh.models import ColumnDataSource, CustomJS, FreehandDrawTool, RadioButtonGroup
from bokeh.plotting import figure

from .labels import CLASSES

BRUSHES = tuple(CLASSES)
# Labels of the buttons: the first moves the view, the others are the brushes.
CHOICES = ("move", "Tumour", "Normal")
_COLOURS = {name: "#{:02x}{:02x}{:02x}".format(*colour) for name, colour in CLASSES.items()}
# Only one tool of a figure is active at a time.
_CHOOSE = """
for (const [index, group] of tools.entries()) for (const tool of group) tool.active = index == cb_obj.active
"""


class Brush:
    """The brushes of one pane and the strokes of its slide.

    Args:
        pane: figure in level-0 pixels, in which y is negative and decreases downwards.
        drawn: called with the class of a stroke and its points (x, y) in level-0 pixels.
    """

    def __init__(self, pane: figure, drawn: Callable[[str, list[tuple[float, float]]], None]) -> None:
        self._kept = ColumnDataSource({"xs": [], "ys": [], "colour": []})
        pane.multi_polygons(xs="xs", ys="ys", fill_color="colour", line_color="colour", fill_alpha=0.35, source=self._kept)
        self.tools: dict[str, FreehandDrawTool] = {}
        for name in BRUSHES:
            wet = ColumnDataSource({"xs": [], "ys": []}, name=f"brush {name}")
            line = pane.multi_line(xs="xs", ys="ys", line_color=_COLOURS[name], line_width=6, line_alpha=0.6, source=wet)
            self.tools[name] = FreehandDrawTool(renderers=[line], description=f"draw {name}")
            wet.on_change("data", lambda _name, _old, new, source=wet, of=name: self._dry(source, of, new, drawn))
            pane.add_tools(self.tools[name])

    def show(self, strokes: Sequence[tuple[str, shapely.Polygon]]) -> None:
        """Draw these strokes in place of earlier ones."""
        rings = [[np.asarray(ring.coords) for ring in shapely.get_rings(polygon)] for _, polygon in strokes]
        self._kept.data = {
            "xs": [[[ring[:, 0] for ring in one]] for one in rings],
            "ys": [[[-ring[:, 1] for ring in one]] for one in rings],
            "colour": [_COLOURS[name] for name, _ in strokes],
        }

    @staticmethod
    def _dry(source: ColumnDataSource, name: str, data: dict, drawn: Callable[[str, list[tuple[float, float]]], None]) -> None:
        strokes = list(zip(data["xs"], data["ys"], strict=True))
        if not strokes:
            return
        source.data = {"xs": [], "ys": []}
        for xs, ys in strokes:
            drawn(name, [(float(x), -float(y)) for x, y in zip(xs, ys, strict=True)])


def choose_with(buttons: RadioButtonGroup, panes: Sequence[figure], brushes: Sequence[Brush]) -> None:
    """Make the buttons choose, in all panes, between moving the view and the brushes."""
    moving = [tool for pane in panes for tool in pane.tools if type(tool).__name__ == "PanTool"]
    tools = [moving, *([brush.tools[name] for brush in brushes] for name in BRUSHES)]
    buttons.js_property_callbacks.clear()
    buttons.js_on_change("active", CustomJS(args={"tools": tools}, code=_CHOOSE))
