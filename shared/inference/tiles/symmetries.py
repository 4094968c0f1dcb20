"""Flips and rotations of a tile, to average the answers over at test time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Symmetry:
    """A quarter turn `quarter_turns` times, after a mirroring of the columns if `mirrored`."""

    quarter_turns: int = 0
    mirrored: bool = False

    def apply(self, images: Tensor) -> Tensor:
        """Images ``(B, C, H, W)``, turned; of an odd number of quarter turns ``(B, C, W, H)``."""
        mirrored = images.flip(-1) if self.mirrored else images
        return torch.rot90(mirrored, self.quarter_turns, (-2, -1)) if self.quarter_turns else mirrored

    def undo(self, maps: Tensor) -> Tensor:
        """Undo `apply` on maps ``(B, C, h, w)`` of any resolution."""
        turned = torch.rot90(maps, -self.quarter_turns, (-2, -1)) if self.quarter_turns else maps
        return turned.flip(-1) if self.mirrored else turned


# Two flips are half a turn, so the four combinations of flips are these.
_FLIPS = (Symmetry(), Symmetry(mirrored=True), Symmetry(2), Symmetry(2, mirrored=True))
_DIHEDRAL = tuple(Symmetry(turns, mirrored) for turns in range(4) for mirrored in (False, True))
TTA = {"none": (Symmetry(),), "flips": _FLIPS, "dihedral": _DIHEDRAL}


def symmetries(tta: str) -> tuple[Symmetry, ...]:
    """The symmetries by name: ``"none"``, ``"flips"`` (4) or ``"dihedral"`` (8: flips and quarter turns).

    Raises:
        ValueError: for another name.
    """
    if tta not in TTA:
        raise ValueError(f"tta must be one of {', '.join(TTA)}; got {tta!r}")
    return TTA[tta]


def mean_over(chosen: tuple[Symmetry, ...], predict: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Mean of ``predict(images)`` over the symmetries, each answer turned back.

    MONAI's `TestTimeAugmentation` draws random transforms of one volume a call and inverts them on the host; a fixed group on
    whole batches needs neither.

    Args:
        chosen: at least one.
        predict: images ``(B, 3, H, W)`` -> probabilities ``(B, C, h, w)``.
        images: ``(B, 3, H, W)``.
    """
    turned = (symmetry.apply(images).contiguous(memory_format=torch.channels_last) for symmetry in chosen)
    maps = [symmetry.undo(predict(image)) for symmetry, image in zip(chosen, turned, strict=True)]
    return torch.stack(maps).mean(dim=0) if len(maps) > 1 else maps[0]
