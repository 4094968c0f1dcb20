"""One fixed colour a tissue class, the same in polygons, pictures and viewers."""

from __future__ import annotations

import colorsys

Colour = tuple[int, int, int]

TUMOUR_COLOUR: Colour = (200, 0, 0)  # QuPath's own of its class "Tumor"
# Okabe and Ito, "Color Universal Design" (2008), distinguished by colour-blind eyes, in an order in which the first ones
# stand out from H&E's pinks and violets.
_CLASS_COLOURS: tuple[Colour, ...] = (
    (0, 158, 115),
    (230, 159, 0),
    (213, 94, 0),
    (86, 180, 233),
    (0, 114, 178),
    (240, 228, 66),
    (204, 121, 167),
    (0, 0, 0),
)
_GOLDEN_RATIO = 0.618034


def class_colour(index: int) -> Colour:
    """Colour of class `index`, from 1 on: class 0 is the background and has none.

    The first eight are a palette for colour-blind eyes; further ones are spread over the hues.

    Raises:
        ValueError: for an index below 1.
    """
    if index < 1:
        raise ValueError(f"class {index} has no colour: colours begin with class 1, class 0 is the background")
    if index <= len(_CLASS_COLOURS):
        return _CLASS_COLOURS[index - 1]
    red, green, blue = colorsys.hsv_to_rgb(index * _GOLDEN_RATIO % 1, 0.75, 0.8)
    return round(255 * red), round(255 * green), round(255 * blue)
