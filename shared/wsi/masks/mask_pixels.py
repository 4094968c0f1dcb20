"""What the pixels of a mask's file mean: from colours, palettes and transparency to class indices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from ..orientation import upright_image

_WHITE_IS_ZERO, _PALETTE = 0, 3
# White-is-zero, black-is-zero, RGB, palette, and a bilevel mask: in the others black is not 0, or white is.
_PHOTOMETRICS = (_WHITE_IS_ZERO, 1, 2, _PALETTE, 4)
_PHOTOMETRIC_TAG = 262
_OTHER_MODES = ("CMYK", "YCbCr", "LAB", "HSV")
# ExtraSamples: transparency, premultiplied or not; 0 is "unspecified".
_IS_ALPHA = (1, 2)
_GREY = "save it with one channel, in which everything but tumour is 0"


class RefusedMask(ValueError):
    """A mask that can be read but not be used."""


def mask_of_picture(image: Image.Image, path: Path, num_classes: int) -> NDArray[np.uint8]:
    """Class indices ``(H, W)`` of a picture that Pillow opened, upright, see `as_mask`.

    Raises:
        RefusedMask: for colours that can be understood in two ways.
    """
    if image.format == "TIFF":
        _refuse_white_is_zero(path, dict(image.tag_v2).get(_PHOTOMETRIC_TAG))  # type: ignore[attr-defined]
    if image.mode in _OTHER_MODES:
        raise RefusedMask(f"the mask {path} has colours of {image.mode}, in which black is not 0: {_GREY}")
    turned = upright_image(image)
    pixels = np.asarray(turned)
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    if image.mode in ("LA", "RGBA", "PA", "La", "RGBa"):
        return as_mask(pixels[..., :-1], pixels[..., -1], path, num_classes)
    alpha = _stated_alpha(pixels, image.info.get("transparency"), image.mode)
    if image.mode == "P" and num_classes == 2 and (alpha is None or alpha.all()):
        palette = np.array(turned.getpalette() or (), dtype=np.float64).reshape(-1, 3)
        _refuse_light_zero(path, palette, np.unique(pixels))
    return as_mask(pixels, alpha, path, num_classes)


def _stated_alpha(pixels: NDArray[Any], stated: object, mode: str) -> NDArray[Any] | None:
    """Transparency of a PNG or GIF without such a channel: that of a palette's entries, or one colour that is transparent."""
    if stated is None:
        return None
    if mode == "P" and isinstance(stated, bytes):
        table = np.full(256, 255, np.uint8)
        table[: len(stated)] = np.frombuffer(stated, np.uint8)
        return table[pixels[..., 0]]
    return np.asarray(~(pixels == np.asarray(stated)).all(axis=-1), dtype=np.uint8)


def check_tiff_colours(page: tifffile.TiffPage, path: Path, num_classes: int) -> None:
    """Refuse colours of a TIFF that can be understood in two ways, as far as its tags say.

    Raises:
        RefusedMask: naming the file and the remedy.
    """
    _refuse_white_is_zero(path, int(page.photometric))
    if page.photometric not in _PHOTOMETRICS:
        name = getattr(page.photometric, "name", page.photometric)
        raise RefusedMask(f"the mask {path} has colours of {name}, in which black is not 0: {_GREY}")
    palette = _palette_of(page)
    # Of a palette with two colours both are meant, whichever a part of the picture shows.
    if num_classes == 2 and palette is not None and (palette[2:] == palette[2:3]).all():
        _refuse_light_zero(path, palette, np.array([0, 1]))


def mask_of_tiff(pixels: NDArray[Any], page: tifffile.TiffPage, path: Path, num_classes: int) -> NDArray[np.uint8]:
    """Class indices ``(H, W)`` of a whole TIFF's pixels ``(H, W, C)``, see `as_mask`."""
    palette = _palette_of(page)
    if num_classes == 2 and palette is not None:
        _refuse_light_zero(path, palette, np.unique(pixels))
    if has_alpha(page):
        return as_mask(pixels[..., :-1], pixels[..., -1], path, num_classes)
    return as_mask(pixels, None, path, num_classes)


def has_alpha(page: tifffile.TiffPage) -> bool:
    """Whether the last channel of a TIFF is its transparency."""
    extra = tuple(int(sample) for sample in page.extrasamples)
    # Two or four channels of which the last is not named, as GDAL and tifffile write transparency.
    is_unspecified = extra == (0,) and page.samplesperpixel in (2, 4)
    return bool(extra) and (extra[-1] in _IS_ALPHA or is_unspecified)


def _palette_of(page: tifffile.TiffPage) -> NDArray[np.float64] | None:
    """Colours of the entries ``(N, 3)``."""
    if page.photometric != _PALETTE or page.colormap is None:
        return None
    return np.asarray(page.colormap, dtype=np.float64).T


def _refuse_white_is_zero(path: Path, photometric: object) -> None:
    # ImageJ stores its masks so, and means by 255 the black foreground; others mean by 0 the white one.
    if photometric == _WHITE_IS_ZERO:
        raise RefusedMask(
            f"the mask {path} stores white as 0 (PhotometricInterpretation 0, WhiteIsZero), and whether white or black is tumour "
            f"differs between programs: {_GREY}, as BlackIsZero (in ImageJ first Image > Lookup Tables > Grays)"
        )


def _refuse_light_zero(path: Path, palette: NDArray[np.float64], used: NDArray[Any]) -> None:
    """Refuse a picture of two greys whose entry 0, which is the background, is the lighter one. Where a class has a colour of its
    own, entries are classes: QuPath exports its labels on white."""
    if len(used) != 2 or used[0] != 0 or used[1] >= len(palette):
        return
    colours = palette[used.astype(np.int64)]
    are_grey = (colours == colours[:, :1]).all()
    if are_grey and colours[0, 0] > colours[1, 0]:
        raise RefusedMask(
            f"the mask {path} has two greys of a palette, the lighter one as entry 0 and the darker one as entry "
            f"{int(used[1])}: whether tumour is light or dark cannot be told; {_GREY}"
        )


def as_mask(colours: NDArray[Any], alpha: NDArray[Any] | None, path: Path, num_classes: int) -> NDArray[np.uint8]:
    """Class indices ``(H, W)`` of a whole mask.

    Of two classes 1 is where a colour channel is not 0. What is transparent is background in any case.

    Args:
        colours: ``(H, W, C)``, of a palette its entries.
        alpha: ``(H, W)``, 0 where the mask is transparent; None for a mask that has no transparency.
        path: for messages.
        num_classes: classes.

    Raises:
        RefusedMask: for values that are no class indices, colours that are transparent everywhere, a white background, and
            black beside what is transparent, which is tumour that was drawn or background with a transparent margin.
    """
    seen = None if alpha is None or alpha.all() else alpha != 0
    if seen is not None and not seen.any() and (colours != colours[:1, :1]).any():
        raise RefusedMask(f"the mask {path} is transparent everywhere, and its colours differ: save it without transparency")
    if num_classes > 2:
        shown = colours if seen is None else colours * seen[..., None]
        return class_indices_of(shown, path, num_classes)
    mask = (colours != 0).any(axis=-1)
    if seen is None:
        WhiteBackground(path).see(colours)
        return mask.astype(np.uint8)
    is_drawn = mask & seen
    if seen.any() and not is_drawn.any():
        raise RefusedMask(
            f"the mask {path} is black where it is not transparent, and whether black is tumour cannot be told: {_GREY}, and "
            "without transparency"
        )
    return is_drawn.astype(np.uint8)


class WhiteBackground:
    """Whether the colours of a mask, of which parts are seen, are white and others and never black: all of it would be tumour,
    and paper is white."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._has_black = self._has_white = self._has_others = False

    def see(self, colours: NDArray[Any]) -> None:
        """See a part ``(H, W, C)``.

        Raises:
            RefusedMask: once white and another colour were seen, and no black.
        """
        if self._has_black or colours.shape[-1] != 3 or colours.dtype.kind != "u":
            return
        is_white = (colours == np.iinfo(colours.dtype).max).all(axis=-1)
        self._has_black = not colours.any(axis=-1).all()
        self._has_white |= bool(is_white.any())
        self._has_others |= not is_white.all()
        if self._has_white and self._has_others and not self._has_black:
            raise RefusedMask(
                f"the mask {self._path} is of white and other colours, and has no black pixel: expected black where there is no "
                f"tumour. If white is the background, {_GREY}"
            )


def class_indices_of(colours: NDArray[Any], path: Path, num_classes: int) -> NDArray[np.uint8]:
    """Class indices ``(H, W)`` of pixels ``(H, W, C)`` of a mask, or of a part of it, without transparency.

    Raises:
        RefusedMask: of several classes, for values that are no class indices.
    """
    if num_classes == 2:
        return (colours != 0).any(axis=-1).astype(np.uint8)
    wanted = f"with {num_classes} classes a pixel's value must be its class index, 0..{num_classes - 1}"
    if colours.shape[-1] > 1 or colours.dtype.kind not in "bui":
        raise RefusedMask(f"the mask {path} has {colours.shape[-1]} channels of {colours.dtype}: {wanted}, in one channel")
    indices = colours[..., 0]
    unknown = indices[(indices < 0) | (indices >= num_classes)]
    if unknown.size:
        raise RefusedMask(f"the mask {path} has a pixel of value {unknown[0]}: {wanted}")
    return indices.astype(np.uint8)
