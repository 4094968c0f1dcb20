"""Which training images give their masks and which their labels: the modes of joint segmentation and classification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .splits import take_share

MODES = ("S", "S+C", "S+C*")
LABELLED = ("unmasked", "all")
Record = dict[str, Any]


def choose_supervision(
    records: Sequence[Record], mode: str = "S+C*", masked_share: float = 1.0, labelled: str = "unmasked", seed: int = 0
) -> tuple[list[Record], list[Record]]:
    """Divide training records into those whose masks are used and those whose labels are.

    Shares are drawn from each label's records, at least one of each, smaller ones within larger ones (see `take_share`); the
    same seed gives the same masks in every mode.

    Args:
        records: of the training split; those with masks are the masked ones, their label that of their main class.
        mode: ``"S"``: the share s of the masks and no labels. ``"S+C"``: these, and the share 1 - s of the labelled images.
            ``"S+C*"``: these, and all labelled images.
        masked_share: s, in [0, 1].
        labelled: which records are labelled images. ``"unmasked"``: those without a mask, as in the paper, where they are
            another set of pictures. ``"all"``: every record has a label, also one with a mask; S+C then takes the labels of all
            whose masks are not used, S+C* those of all.
        seed: of the draw.

    Returns:
        masked records and labelled records, in their order; either may be empty where mode and share ask for none of it.

    Raises:
        ValueError: for a mode or share that does not exist, or if there are none of the images that they ask for.

    Reference:
        Ciga and Martel, section 3.3. The released code, too, takes at least one image a class. Deviation: its draws for different
        shares are independent.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}; got {mode!r}")
    if labelled not in LABELLED:
        raise ValueError(f"labelled must be one of {', '.join(LABELLED)}; got {labelled!r}")
    if not 0 <= masked_share <= 1:
        raise ValueError(f"masked_share must be in [0, 1]; got {masked_share}")
    with_mask = [record for record in records if record.get("mask") is not None]
    masked = take_share(with_mask, masked_share, seed) if masked_share > 0 and with_mask else []
    if mode == "S":
        images: list[Record] = []
    elif labelled == "all":
        chosen = {id(record) for record in masked} if mode == "S+C" else set()
        images = [record for record in records if id(record) not in chosen]
    else:
        images = [record for record in records if record.get("mask") is None]
        if mode == "S+C":
            images = take_share(images, 1 - masked_share, seed) if masked_share < 1 and images else []
    wants_masks, wants_images = masked_share > 0, mode == "S+C*" or (mode == "S+C" and masked_share < 1)
    missing = [
        kind
        for kind, wanted, found in (("masked", wants_masks, masked), ("labelled", wants_images, images))
        if wanted and not found
    ]
    if missing or not (masked or images):
        raise ValueError(
            f"mode {mode} with masked_share {masked_share:g} has no {' and no '.join(missing) or 'masked'} images to train with: "
            f"of {len(records)} training records {len(with_mask)} have masks. Add some, choose another mode or share, or say "
            "labelled: all, if labels of images with masks count"
        )
    return masked, images
