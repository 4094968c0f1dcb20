"""Which training images give their masks and which their labels: the modes of joint segmentation and classification."""

from __future__ import annotations

from collections.abc import Sequence

from ..record import Record, has_known_mask
from ..splits import take_share

MODES = ("S", "S+C", "S+C*")
LABELLED = ("unmasked", "all", "unmasked_or_all")


def choose_supervision(
    records: Sequence[Record],
    mode: str = "S+C*",
    masked_share: float = 1.0,
    labelled: str = "unmasked",
    seed: int = 0,
    same_size: bool = True,
) -> tuple[list[Record], list[Record]]:
    """Divide training records into those whose masks are used and those whose labels are.

    Shares are drawn from each label's records, at least one of each, smaller ones within larger ones (see `take_share`); the
    same seed gives the same masks in every mode.

    Label 0 needs no mask file: its mask is known to be empty. Such a record is a masked image too, in addition to those with
    files, unless masked and labelled images are two sets of pictures: of different sizes, or both with images of label 0 and
    others.

    Args:
        records: of the training split; those with masks are the masked ones, their label that of their main class.
        mode: ``"S"``: the share s of the masks and no labels. ``"S+C"``: these, and the share 1 - s of the labelled images.
            ``"S+C*"``: these, and all labelled images.
        masked_share: s, in [0, 1].
        labelled: which records are labelled images. ``"unmasked"``: those without a mask file, as in the paper, where they are
            another set of pictures. ``"all"``: every record has a label, also one with a mask; S+C then takes the labels of all
            whose masks are not used, S+C* those of all. ``"unmasked_or_all"``: the former where there are records without a
            mask file of label 0 and of others, else the latter.
        seed: of the draw.
        same_size: whether masked and labelled images are read at the same size and scale.

    Returns:
        masked records and labelled records, in their order; either may be empty where mode and share ask for none of it.

    Raises:
        ValueError: for a mode or share that does not exist, if there are no images of the kind that they ask for, or if labelled
            images are all of one label or masked images all of label 0: nothing can be learned from them.

    Reference:
        Ciga and Martel, section 3.3. The released code, too, takes at least one image per class. Deviation: its draws for
        different shares are independent.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}; got {mode!r}")
    if labelled not in LABELLED:
        raise ValueError(f"labelled must be one of {', '.join(LABELLED)}; got {labelled!r}")
    if not 0 <= masked_share <= 1:
        raise ValueError(f"masked_share must be in [0, 1]; got {masked_share}")
    if labelled == "unmasked_or_all":
        labels = {bool(record["label"]) for record in records if record.get("mask") is None}
        labelled = "unmasked" if len(labels) > 1 else "all"
    with_mask = _masked_images(records, labelled, same_size)
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
            f"of {len(records)} training records {len(with_mask)} have masks. Add some, choose another mode or share, or set "
            "labelled: all, if the labels of images with masks count"
        )
    _check_classes(masked, images)
    return masked, images


def _masked_images(records: Sequence[Record], labelled: str, same_size: bool) -> list[Record]:
    """Records whose masks may be used: those with a file and, unless they belong to another set of pictures, those of label 0."""
    with_file = [record for record in records if record.get("mask") is not None]
    if all(record["label"] == 0 for record in with_file):
        return with_file
    without_file = [record for record in records if record.get("mask") is None]
    # Each set has images of label 0 and others: neither needs those of the other.
    are_two_sets = any(record["label"] == 0 for record in with_file) and any(record["label"] != 0 for record in without_file)
    if are_two_sets or (labelled == "unmasked" and not same_size):
        return with_file
    return [record for record in records if has_known_mask(record)]


def _check_classes(masked: Sequence[Record], images: Sequence[Record]) -> None:
    manifest = (*masked, *images)[0].get("manifest") or "the manifest"
    labels = {record["label"] for record in images}
    if len(labels) == 1:
        raise ValueError(
            f"{manifest}: the {len(images)} labelled training images all have label {labels.pop()}; expected images of at "
            "least two labels. Labelled images are those without a mask file: set labelled: all, if the labels of images with "
            "masks count, choose mode: S, or add images of another label"
        )
    if masked and all(record["label"] == 0 for record in masked):
        raise ValueError(
            f"{manifest}: the {len(masked)} masked training images all have label 0; expected some with masks of other classes. "
            "Add masks, or train on labels alone (masked_share 0)"
        )
