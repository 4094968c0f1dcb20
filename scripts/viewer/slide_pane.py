"""One pane: a slide, overlaid with a map, its outlines and the truth."""

from __future__ import annotations

from collections.abc import Sequence

from bokeh.models import ColumnDataSource, HoverTool, Range1d, ScaleBar, TileRenderer, Title, WMTSTileSource
from bokeh.models.annotations.dimensional import ImperialLength
from bokeh.plotting import figure

from shared.writers.palette import TUMOUR_COLOUR, class_colour

from .layers import Layers
from .outlines import TUMOUR, Outlines
from .squares import map_address, slide_address, truth_address
from .zoom import TILE_PX, Zoom

_TOOLTIPS = [("class", "@name"), ("area", "@area{0.0000} mm²"), ("mean probability", "@mean{0.00}")]
_TICKS: list[float] = [1, 2, 5, 10, 20, 50, 100, 200, 500]
_UNIT_UM = {"µm": 1.0, "mm": 1e3, "cm": 1e4}


class SlidePane:
    """A figure in level-0 pixels, in which y is negative and decreases downwards.

    Attributes:
        figure: for the page.

    Args:
        layers: layers of the cohort.
        name: name of the slide.
        method: number of the method; None for the slide alone.
        ranges: x and y ranges, shared by all panes of a slide.
    """

    def __init__(self, layers: Layers, name: str, method: int | None, ranges: tuple[Range1d, Range1d]) -> None:
        self._layers, self._name, self.method = layers, name, method
        self._zoom = layers.zoom(name)
        self.title = name if method is None else layers.cohort.methods[method].title
        self._title = Title(text=self.title)
        self.figure = figure(
            title=self._title,
            x_range=ranges[0],
            y_range=ranges[1],
            tools="pan,wheel_zoom,box_zoom,reset,save",
            active_scroll="wheel_zoom",
            sizing_mode="stretch_both",
            min_height=200,
            min_width=120,
            background_fill_color="white",
            x_axis_type=None,
            y_axis_type=None,
        )
        self.figure.grid.visible = False
        self.figure.toolbar.logo = None
        self._add(slide_address(name), 1.0)
        self._map: TileRenderer | None = None
        self._second: TileRenderer | None = None
        self._truth: TileRenderer | None = None
        self._outlines = ColumnDataSource({"xs": [], "ys": [], "name": [], "area": [], "mean": [], "colour": []})
        drawn = self.figure.multi_polygons(
            xs="xs", ys="ys", line_color="colour", fill_alpha=0.0, line_width=2, source=self._outlines, hover_fill_alpha=0.15
        )
        self.figure.add_tools(HoverTool(renderers=[drawn], tooltips=_TOOLTIPS))
        self._drawn = drawn
        slide = layers.slide(name)
        viewed = layers.cohort.slides[name]
        if viewed.mpp is not None or slide.has_mpp:
            self.figure.add_layout(_scale_bar(ranges[0], slide.mpp))

    @property
    def has_map(self) -> bool:
        return self.method is not None and self._layers.cohort.methods[self.method].has_map(self._name)

    def show_map(self, colours: str, channel: int, opacity: float, version: str) -> None:
        """Overlay the map, in place of an earlier one."""
        if not self.has_map:
            return
        assert self.method is not None
        address = map_address(self.method, self._name, colours, channel, version)
        if self._map is None:
            self._map = self._add(address, opacity)
        elif self._map.tile_source.url != address:
            self._map.tile_source = self._source(address)
        self._map.alpha = opacity

    def show_second(self, method: int | None, colours: str, channel: int, opacity: float, version: str) -> None:
        """Overlay the map of another method, such as one of attention, below the outlines only; None hides it."""
        is_there = method is not None and self._layers.cohort.methods[method].has_map(self._name)
        if method is not None and is_there:
            address = map_address(method, self._name, colours, channel, version)
            if self._second is None:
                self._second = self._add(address, opacity)
            elif self._second.tile_source.url != address:
                self._second.tile_source = self._source(address)
            self._second.alpha = opacity
        if self._second is not None:
            self._second.visible = is_there

    def show_truth(self, is_shown: bool, opacity: float) -> None:
        """Show or hide the slide's mask, if it has one."""
        if self._truth is None and is_shown:
            self._truth = self._add(truth_address(self._name), opacity)
        if self._truth is not None:
            self._truth.visible, self._truth.alpha = is_shown, opacity

    def show_outlines(self, outlines: Outlines, class_names: Sequence[str] | None) -> None:
        """Draw these outlines in place of earlier ones."""
        self._outlines.data = {
            "xs": [[[ring[:, 0] for ring in rings]] for rings in outlines.rings],
            "ys": [[[-ring[:, 1] for ring in rings]] for rings in outlines.rings],
            "name": outlines.classes,
            "area": [area / 1e6 for area in outlines.areas_um2],
            "mean": outlines.means,
            "colour": [_colour(name, class_names) for name in outlines.classes],
        }

    def set_colours(self, ink: str, paper: str) -> None:
        """Set the colours around the slide."""
        self.figure.update(border_fill_color=paper, outline_line_color=ink)
        self._title.text_color = ink

    def hide_outlines(self, is_hidden: bool) -> None:
        self._drawn.visible = not is_hidden

    def _add(self, address: str, opacity: float) -> TileRenderer:
        renderer = TileRenderer(tile_source=self._source(address), alpha=opacity, level="image", smoothing=False)
        self.figure.renderers.append(renderer)
        return renderer

    def _source(self, address: str) -> WMTSTileSource:
        return square_source(self._zoom, address)


def square_source(zoom: Zoom, address: str) -> WMTSTileSource:
    """A tile source that begins at the slide's top-left corner, where y is 0; its deepest zoom shows level-0 pixels."""
    return WMTSTileSource(
        url=address,
        tile_size=TILE_PX,
        min_zoom=0,
        max_zoom=zoom.deepest,
        initial_resolution=zoom.side_px / TILE_PX,
        x_origin_offset=0,
        y_origin_offset=zoom.side_px,
        wrap_around=False,
        snap_to_zoom=False,
    )


def _scale_bar(x_range: Range1d, mpp: float) -> ScaleBar:
    basis: dict[str, tuple[float, str] | tuple[float, str, str]] = {"px": (1.0, "px")}
    basis.update({unit: (size / mpp, unit) for unit, size in _UNIT_UM.items()})
    # ImperialLength accepts any basis; Bokeh's CustomDimensional does not exist in its JavaScript part.
    lengths = ImperialLength(basis=basis, ticks=_TICKS)
    return ScaleBar(range=x_range, unit="px", dimensional=lengths, location="bottom_right", length_sizing="adaptive")


def _colour(name: str, class_names: Sequence[str] | None) -> str:
    colour = TUMOUR_COLOUR if name == TUMOUR or class_names is None else class_colour(max(1, list(class_names).index(name)))
    return "#{:02x}{:02x}{:02x}".format(*colour)
