"""A line below a picture that shows its scale and the meaning of its colours."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .palette import Colour

_FONT_PX, _LINE_PX, _GAP_PX = 13, 26, 14
_SWATCH_PX, _RAMP_PX = 14, 80
_LARGEST_BAR_SHARE = 0.25
_INK: Colour = (0, 0, 0)
Draw = Callable[[ImageDraw.ImageDraw, int, int], None]


@dataclass(frozen=True)
class Legend:
    """What is written below a picture.

    Args:
        um_per_px: micrometres per pixel of the picture, for the scale bar.
        entries: (text, colour) of the classes.
        ramp: colours ``(n, 3)`` from probability 0 to 1, or None for no ramp.
    """

    um_per_px: float
    entries: Sequence[tuple[str, Colour]] = ()
    ramp: np.ndarray | None = None


def scale_bar(um_per_px: float, width_px: int) -> tuple[float, str]:
    """Length in pixels and text of a scale bar: 1, 2 or 5 times a power of ten, a quarter of the picture at most.

    >>> scale_bar(um_per_px=8.0, width_px=1000)
    (250.0, '2 mm')
    """
    limit_um = um_per_px * width_px * _LARGEST_BAR_SHARE
    power = 10.0 ** math.floor(math.log10(limit_um))
    # Less a hair, because 0.3 / 0.1 is not 3.
    length_um = max(step for step in (1, 2, 5) if step * power <= limit_um * (1 + 1e-9)) * power
    text = f"{length_um / 1000:g} mm" if length_um >= 1000 else f"{length_um:g} µm"
    return length_um / um_per_px, text


def add_legend(picture: np.ndarray, legend: Legend) -> np.ndarray:
    """Put the legend below a picture ``(H, W, 3)`` uint8; nothing of the picture is hidden.

    Returns:
        ``(H + h, max(W, w), 3)`` uint8: white where the picture is narrower than the legend.
    """
    import matplotlib  # of its many modules only the fonts' place is needed

    # Pillow's own font has no µ; this one has most alphabets, for the classes' names.
    font = ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), _FONT_PX)
    items = _items(legend, picture.shape[1], font)
    width = max(picture.shape[1], max(length for length, _ in items) + 2 * _GAP_PX)
    places: list[tuple[int, int, Draw]] = []
    x, line = _GAP_PX, 0
    for length, draw in items:
        if x > _GAP_PX and x + length + _GAP_PX > width:
            x, line = _GAP_PX, line + 1
        places.append((x, line, draw))
        x += length + _GAP_PX
    height = picture.shape[0]
    canvas = Image.new("RGB", (width, height + (line + 1) * _LINE_PX), (255, 255, 255))
    canvas.paste(Image.fromarray(picture), (0, 0))
    pen = ImageDraw.Draw(canvas)
    for x, line, draw in places:
        draw(pen, x, height + line * _LINE_PX + _LINE_PX // 2)
    return np.asarray(canvas)


def _items(legend: Legend, width_px: int, font: ImageFont.FreeTypeFont) -> list[tuple[int, Draw]]:
    """(length in pixels, how to draw it from a left edge at a middle line) of everything in the legend."""

    def with_text(length: int, text: str, draw: Draw) -> tuple[int, Draw]:
        def draw_both(pen: ImageDraw.ImageDraw, x: int, y: int) -> None:
            draw(pen, x, y)
            pen.text((x + length + 6, y), text, fill=_INK, font=font, anchor="lm")

        return length + 6 + math.ceil(font.getlength(text)), draw_both

    bar_px, bar_text = scale_bar(legend.um_per_px, width_px)
    bar = max(1, round(bar_px))

    def draw_bar(pen: ImageDraw.ImageDraw, x: int, y: int) -> None:
        pen.rectangle((x, y - 2, x + bar - 1, y + 1), fill=_INK)

    items = [with_text(bar, bar_text, draw_bar)]
    if legend.ramp is not None:
        items.append(with_text(_RAMP_PX, "probability 0 to 1", _ramp(legend.ramp)))
    return items + [with_text(_SWATCH_PX, text, _swatch(colour)) for text, colour in legend.entries]


def _ramp(colours: np.ndarray) -> Draw:
    def draw(pen: ImageDraw.ImageDraw, x: int, y: int) -> None:
        for offset in range(_RAMP_PX):
            at = offset / (_RAMP_PX - 1) * (len(colours) - 1)
            red, green, blue = (round(float(np.interp(at, range(len(colours)), channel))) for channel in colours.T)
            pen.line((x + offset, y - 7, x + offset, y + 6), fill=(red, green, blue))

    return draw


def _swatch(colour: Colour) -> Draw:
    def draw(pen: ImageDraw.ImageDraw, x: int, y: int) -> None:
        pen.rectangle((x, y - 7, x + _SWATCH_PX - 1, y + 6), fill=colour, outline=_INK)

    return draw
