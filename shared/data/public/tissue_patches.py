"""LUAD-HistoSeg and WSSS4LUAD, lung adenocarcinoma at 10x, as they are unpacked: labels in file names, masks to test on.

::

    LUAD-HistoSeg/                                          WSSS4LUAD/
        train/1031280-2300-27920-[1 0 0 1].png                  1.training/1031280-2300-27920-[1, 0, 1].png
        val/img/385277-44539-46781.png   test/img/              2.validation/img/00.png    3.testing/img/
        val/mask/385277-44539-46781.png  test/mask/             2.validation/mask/00.png   3.testing/mask/

A name is patient, x, y and whether each tissue is there; a mask's pixel is the tissue's place in the name, from 0, or the
number of tissues where there is none (white) or none is meant. Patches of LUAD-HistoSeg are of 224 px; of WSSS4LUAD of many
sizes.

Published at https://github.com/ChuHan89/WSSS-Tissue (LUAD-HistoSeg; Han et al., Medical Image Analysis 2022) and
https://wsss4luad.grand-challenge.org (WSSS4LUAD; Han et al., arXiv:2204.06455).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from ..labels.class_masks import class_indices, main_class, read_codes, write_indices
from ..patches.image_regions import image_regions, window_of
from ..problems import Problems, first_names
from ..record import Record
from ..splits import SPLITS
from .releases import PublishedData, folder_of, images_of

# The owners say 10x, which is about this.
MPP = 1.0
_LABEL = re.compile(r"^(?P<name>.*?)[-_ ]*\[(?P<label>[01](?:[ ,_]*[01])*)\]$")
_PLACE = re.compile(r"^(?P<case>.+?)[-_]\d+[-_]\d+$")


@dataclass(frozen=True)
class PatchRelease:
    """How a release is laid out.

    Attributes:
        classes: its tissues in the order of the labels in the names, after "background".
        folders: of each split; the first name is the published one.
        published: images of each split.
        size_px: of every patch; None where they differ.
    """

    classes: tuple[str, ...]
    folders: dict[str, tuple[str, ...]]
    published: dict[str, int]
    size_px: int | None

    @property
    def num_tissues(self) -> int:
        return len(self.classes) - 1

    @property
    def class_of_code(self) -> dict[int, int]:
        """Index in `classes` of each value of a mask."""
        return {code: code + 1 for code in range(self.num_tissues)} | {self.num_tissues: 0}


LUAD_HISTOSEG = PatchRelease(
    classes=("background", "tumour", "necrosis", "lymphocytes", "stroma"),
    folders={"train": ("train", "training"), "val": ("val",), "test": ("test",)},
    published={"train": 16678, "val": 300, "test": 307},
    size_px=224,
)
WSSS4LUAD = PatchRelease(
    classes=("background", "tumour", "stroma", "normal"),
    folders={"train": ("1.training",), "val": ("2.validation",), "test": ("3.testing",)},
    published={"train": 10091, "val": 40, "test": 80},
    size_px=None,
)


def patch_label(stem: str, num_tissues: int) -> tuple[int, ...]:
    """Whether each tissue is in a training patch: 0 or 1 at the end of its name, blanks, commas, underscores or nothing between.

    Raises:
        ValueError: if the name does not end with so many.

    >>> patch_label("1031280-2300-27920-[1 0 0 1]", 4), patch_label("436549_31798_25014_[0, 1, 0]", 3)
    ((1, 0, 0, 1), (0, 1, 0))
    """
    found = _LABEL.match(stem)
    label = tuple(int(digit) for digit in re.findall("[01]", found["label"])) if found else ()
    if len(label) != num_tissues:
        shown = " ".join("01"[index % 2] for index in range(num_tissues))
        raise ValueError(f"{stem}: expected a name that ends with {num_tissues} labels, such as -[{shown}]")
    return label


def patch_case(stem: str) -> str | None:
    """The patient in a patch's name; None where it is only a number, as of WSSS4LUAD's masked images.

    >>> patch_case("1031280-2300-27920-[1 0 0 1]"), patch_case("385277-44539-46781"), patch_case("07")
    ('1031280', '385277', None)
    """
    labelled = _LABEL.match(stem)
    found = _PLACE.match(labelled["name"] if labelled else stem)
    return found["case"] if found else None


def tissue_patches(
    source: str | Path,
    masks: str | Path,
    release: PatchRelease,
    size_px: int | None = None,
    train_masks: float = 0.0,
    official: bool = False,
    allow_missing: bool = False,
    seed: int = 0,
) -> PublishedData:
    """The patches of a release, or regions of one size in them.

    Args:
        source: folder with the splits, or the one above it.
        masks: folder to write ``classes/<split>/<image>.png``, masks of indices in the release's classes, and
            ``tumour/<split>/<image>.png`` to.
        release: `LUAD_HISTOSEG` or `WSSS4LUAD`.
        size_px: side of regions (`image_regions`), where the patches' sizes differ; smaller patches are left out.
        train_masks: share of the validation images, by patient where the names show it, that go to the training split with
            their masks.
        official: keep images of patients who are in several splits, so that no record has a ``case_id``; else those in the test
            split are left out of validation, and those in either out of training.
        allow_missing: leave out masked images without a mask and masks without an image.
        seed: of the choice of these images.

    Returns:
        Records by split and name with ``mpp``, ``split``, ``case_id``, for masked images ``mask``, and, in addition to the
        manifest's columns ``tissues``, the indices of the classes that are there, ``tumour_mask``, and ``label``: the index of
        the tissue of most pixels of a mask, of a training patch that of its only tissue, None where it has several.

    Raises:
        ValueError: naming the file, for what is missing, a training patch without labels in its name, a mask of another size or
            with a value that is no code; for a share out of range.
    """
    if not 0 <= train_masks < 1:
        raise ValueError(f"the share of the validation images to train on must be in [0, 1); got {train_masks}")
    data = PublishedData(published=release.published)
    small: list[str] = []
    num_bare = 0
    for path in tqdm(_training_images(source, release), desc="training patches", unit="patch", disable=None):
        tissues = [index for index, there in enumerate(patch_label(path.stem, release.num_tissues), start=1) if there]
        num_bare += not tissues
        label = tissues[0] if len(tissues) == 1 else 0 if not tissues else None
        record: Record = {"image": str(path), "mpp": MPP, "split": "train", "case_id": patch_case(path.stem), "label": label}
        data.records += _of_one_size({**record, "mask": None, "tumour_mask": None, "tissues": tissues}, release, size_px, small)
        data.found["train"] = data.found.get("train", 0) + 1
    for split in ("val", "test"):
        _add_masked(data, source, Path(masks).resolve(), release, split, size_px, allow_missing, small)
    _move_to_training(data, train_masks, seed)
    (_forget_cases if official else _keep_cases_apart)(data)
    if small:
        data.remarks.append(f"left out {len(small)} images with a side below {size_px} px: {first_names(small)}")
    if num_bare:
        data.remarks.append(f"{num_bare} training patches contain none of the tissues: they count as background")
    return data


def with_tumour(records: Sequence[Record]) -> list[Record]:
    """Records with tumour (1) and without (0) from those of `tissue_patches`, which both releases name first."""
    return [{**record, "label": int(1 in record["tissues"]), "mask": record["tumour_mask"]} for record in records]


def of_one_tissue(records: Sequence[Record]) -> list[Record]:
    """Records whose label is one class, from those of `tissue_patches`: all with a mask, and training patches of one tissue."""
    return [record for record in records if record["label"] is not None]


def _training_images(source: str | Path, release: PatchRelease) -> list[Path]:
    folder = folder_of(source, *release.folders["train"])
    images = images_of(folder)
    # Archives hold the folder once more in itself.
    return list((images or images_of(folder_of(folder, *release.folders["train"], "img"))).values())


def _add_masked(
    data: PublishedData,
    source: str | Path,
    masks: Path,
    release: PatchRelease,
    split: str,
    size_px: int | None,
    allow_missing: bool,
    small: list[str],
) -> None:
    folder = folder_of(source, *release.folders[split])
    images, published = (images_of(folder_of(folder, part)) for part in ("img", "mask"))
    data.found[split] = len(images)
    problems = Problems()
    problems.add(f"{split} images without a mask", *sorted(images.keys() - published.keys()))
    problems.add(f"{split} masks without an image", *sorted(published.keys() - images.keys()))
    data.remarks += problems.report(folder, allow_missing)
    for stem in tqdm(sorted(images.keys() & published.keys()), desc=f"{split} masks", unit="image", disable=None):
        indices = class_indices(read_codes(published[stem]), release.class_of_code, published[stem])
        classes, tumour = masks / "classes" / split / f"{stem}.png", masks / "tumour" / split / f"{stem}.png"
        write_indices(indices, classes)
        write_indices((indices == 1).astype(np.uint8), tumour)
        record: Record = {"image": str(images[stem]), "mpp": MPP, "split": split, "case_id": patch_case(stem)}
        record |= {"mask": str(classes), "tumour_mask": str(tumour)}
        for region in _of_one_size(record, release, size_px, small, indices.shape[::-1], published[stem]):
            window = window_of(region, indices)
            tissues = np.setdiff1d(window, [0]).tolist()
            data.records.append({**region, "label": main_class(window), "tissues": tissues})


def _of_one_size(
    record: Record,
    release: PatchRelease,
    size_px: int | None,
    small: list[str],
    mask_size_px: tuple[int, ...] | None = None,
    mask: Path | None = None,
) -> list[Record]:
    """The record, or its regions of `size_px`; the names of images that are smaller are added to `small`."""
    try:
        with Image.open(record["image"]) as image:
            image_size_px = image.size
    except OSError as error:
        raise ValueError(f"{record['image']} cannot be read ({error}): unpack it again") from error
    if mask_size_px is not None and image_size_px != mask_size_px:
        sizes = (f"{width} x {height} px" for width, height in (mask_size_px, image_size_px))
        raise ValueError("{} is of {}, its image of {}".format(mask, *sizes))
    if size_px is None:
        if release.size_px is not None and image_size_px != (release.size_px, release.size_px):
            raise ValueError(
                f"{record['image']} is of {image_size_px[0]} x {image_size_px[1]} px, expected {release.size_px} px per side"
            )
        return [record]
    regions = image_regions(record, image_size_px, size_px)
    small += [] if regions else [Path(record["image"]).name]
    return regions


def _case(record: Record) -> str:
    return record["case_id"] or record["image"]


def _move_to_training(data: PublishedData, share: float, seed: int) -> None:
    cases = sorted({_case(record) for record in data.records if record["split"] == "val"})
    number = round(share * len(cases))
    if share and not 0 < number < len(cases):
        raise ValueError(f"a share of {share:g} of {len(cases)} validation cases leaves none to train on or none to validate on")
    chosen = {cases[index] for index in np.random.default_rng(seed).permutation(len(cases))[:number]}
    moved = [record for record in data.records if record["split"] == "val" and _case(record) in chosen]
    for record in moved:
        record["split"] = "train"
    if moved:
        num_images = len({record["image"] for record in moved})
        data.remarks.append(f"{num_images} validation images of {number} cases are used for training, with their masks")


def _cases(records: Iterable[Record], *splits: str) -> set[str]:
    return {record["case_id"] for record in records if record["split"] in splits and record["case_id"]}


def _forget_cases(data: PublishedData) -> None:
    cases = [_cases(data.records, split) for split in SPLITS]
    shared = set.union(*cases) - {case for case in set.union(*cases) if sum(case in of for of in cases) == 1}
    if shared:
        data.remarks.append(f"{len(shared)} patients are in several splits, so no case is named")
        for record in data.records:
            record["case_id"] = None


def _keep_cases_apart(data: PublishedData) -> None:
    """Leave out images of patients who are in a split that counts more: test before validation before training."""
    for split, above in (("val", ("test",)), ("train", ("val", "test"))):
        taken = _cases(data.records, *above)
        strays = [record for record in data.records if record["split"] == split and record["case_id"] in taken]
        if strays:
            num_images, num_cases = len({record["image"] for record in strays}), len(_cases(strays, split))
            data.remarks.append(
                f"left out {num_images} {split} images of {num_cases} patients who are also in {' or '.join(above)}"
            )
            dropped = {id(record) for record in strays}
            data.records = [record for record in data.records if id(record) not in dropped]
