"""BCSS, regions of breast cancer slides of TCGA, as it is unpacked: images and masks of codes.

::

    0_Public-data-Amgad2019_0.25MPP/
        rgbs_colorNormalized/TCGA-A1-A0SK-DX1_xmin45749_ymin25055_MPP-0.2500.png    images/ where the owners' script fetched
        them masks/TCGA-A1-A0SK-DX1_xmin45749_ymin25055_MPP-0.2500.png                   a pixel is one of `BCSS_CODES`
        meta/gtruth_codes.tsv                                                       not used: `BCSS_CODES`

Code 0 lies outside the annotated region: it is not known what is there. Published at
https://github.com/PathologyDataScience/BCSS (CC0 1.0); Amgad et al., Bioinformatics 2019.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from ..labels.class_masks import class_indices, main_class, read_codes, write_indices
from ..patches.image_regions import image_regions, window_of
from ..problems import Problems, first_names
from ..record import Record
from .releases import PublishedData, folder_of, images_of

# In the order of their codes, from 0.
BCSS_CODES = (
    "outside_roi",
    "tumor",
    "stroma",
    "lymphocytic_infiltrate",
    "necrosis_or_debris",
    "glandular_secretions",
    "blood",
    "exclude",
    "metaplasia_NOS",
    "fat",
    "plasma_cells",
    "other_immune_infiltrate",
    "mucoid_material",
    "normal_acinus_or_duct",
    "lymphatics",
    "undetermined",
    "nerve",
    "skin_adnexa",
    "blood_vessel",
    "angioinvasion",
    "dcis",
    "other",
)
# The five groups in which the data set is scored; whatever is in none of them is "other".
BCSS_CLASSES = ("other", "tumour", "stroma", "inflammatory", "necrosis")
_GROUPS = {
    "tumour": ("tumor", "angioinvasion", "dcis"),
    "stroma": ("stroma",),
    "inflammatory": ("lymphocytic_infiltrate", "plasma_cells", "other_immune_infiltrate"),
    "necrosis": ("necrosis_or_debris",),
}
# No class: not annotated, and annotated as not to be used.
UNLABELLED_CODES = (0, 7)
CLASS_OF_CODE = dict.fromkeys(range(len(BCSS_CODES)), 0) | {
    BCSS_CODES.index(name): BCSS_CLASSES.index(group) for group, names in _GROUPS.items() for name in names
}
_TUMOUR = BCSS_CLASSES.index("tumour")
PUBLISHED_IMAGES = {"masks": 151}
# Tissue source sites: those that the data set's baseline is tested on, and those that eva (kaiko.ai) validates on.
TEST_SITES = ("OL", "LL", "E2", "EW", "GM", "S3")
VALIDATION_SITES = ("BH", "C8", "A8", "A1", "E9")
_NAME = re.compile(r"TCGA-(?P<site>[^-]+)-(?P<patient>[^-_]+).*?(_MPP-(?P<mpp>\d+(\.\d+)?))?", re.IGNORECASE)


def bcss(
    source: str | Path,
    masks: str | Path,
    size_px: int = 512,
    mpp: float = 0.5,
    max_unlabelled: float = 0.01,
    val: Sequence[str] = VALIDATION_SITES,
    test: Sequence[str] = TEST_SITES,
    stored_mpp: float | None = None,
    allow_missing: bool = False,
) -> PublishedData:
    """Regions of the images of BCSS, of one size, with their main classes, split by tissue source site.

    Args:
        source: folder with ``rgbs_colorNormalized`` (or ``images``) and ``masks``, or the one above it.
        masks: folder to write ``classes/<image>.png``, masks of indices in `BCSS_CLASSES`, and ``tumour/<image>.png`` to.
        size_px: side of a region at `mpp` (`image_regions`); smaller images are left out.
        mpp: micrometres per pixel at which the regions will be read.
        max_unlabelled: in [0, 1); regions with a larger share of `UNLABELLED_CODES` are left out; what remains of them
            counts as "other".
        val: tissue source sites to validate on.
        test: those to test on; all others are trained on.
        stored_mpp: of the files, where their names do not end with it, as in ``_MPP-0.2500``.
        allow_missing: leave out images without a mask and masks without an image.

    Returns:
        Records by name, with ``mpp``, ``label`` (that of most pixels, an index in `BCSS_CLASSES`), ``mask``, ``case_id``,
        ``split``, and, in addition to the manifest's columns, ``tumour_mask`` and ``has_tumour``.

    Raises:
        ValueError: naming the file, for what is missing, a name without patient or pixel size, a mask of another size than its
            image, or with a value that is no code; for sites in `val` and `test`.
    """
    both = sorted({*val} & {*test})
    if both:
        raise ValueError(f"sites {', '.join(both)} cannot be both validation and test sites")
    if not 0 <= max_unlabelled < 1:
        raise ValueError(f"max_unlabelled must be in [0, 1); got {max_unlabelled}")
    images = images_of(folder_of(source, "rgbs_colorNormalized", "images"))
    published = images_of(folder_of(source, "masks"))
    data = PublishedData(published=PUBLISHED_IMAGES, found={"masks": len(published)})
    problems = Problems()
    problems.add("images without a mask", *sorted(images.keys() - published.keys()))
    problems.add("masks without an image", *sorted(published.keys() - images.keys()))
    data.remarks += problems.report(source, allow_missing)
    folder = Path(masks).resolve()
    small: list[str] = []
    num_unlabelled = 0
    for stem in tqdm(sorted(images.keys() & published.keys()), desc="masks", unit="image", disable=None):
        record = _image_record(images[stem], stored_mpp, val, test)
        codes = read_codes(published[stem])
        _check_size(images[stem], published[stem], codes)
        classes, tumour = folder / "classes" / f"{stem}.png", folder / "tumour" / f"{stem}.png"
        indices = class_indices(codes, CLASS_OF_CODE, published[stem])
        write_indices(indices, classes)
        write_indices((indices == _TUMOUR).astype(np.uint8), tumour)
        record |= {"mask": str(classes), "tumour_mask": str(tumour)}
        side_px = round(size_px * mpp / _mpp(images[stem], stored_mpp))
        regions = image_regions(record, codes.shape[::-1], side_px)
        small += [] if regions else [stem]
        for region in regions:
            window, unlabelled = window_of(region, indices), np.isin(window_of(region, codes), UNLABELLED_CODES)
            if unlabelled.mean() > max_unlabelled:
                num_unlabelled += 1
                continue
            label = main_class(window[~unlabelled], but=())
            has_tumour = int((window == _TUMOUR).any())
            data.records.append({**region, "label": label, "has_tumour": has_tumour})
    if small:
        data.remarks.append(
            f"left out {len(small)} images with a side below {size_px} px at {mpp:g} um per pixel: {first_names(small)}"
        )
    if num_unlabelled:
        data.remarks.append(f"left out {num_unlabelled} regions of which more than {max_unlabelled:.0%} is not annotated")
    return data


def bcss_tumour(records: Sequence[Record]) -> list[Record]:
    """Records of regions with any tumour (1) and without (0) from those of `bcss`."""
    return [{**record, "label": record["has_tumour"], "mask": record["tumour_mask"]} for record in records]


def _image_record(image: Path, stored_mpp: float | None, val: Sequence[str], test: Sequence[str]) -> Record:
    found = _NAME.fullmatch(image.stem)
    if found is None:
        raise ValueError(
            f"{image}: expected a name such as TCGA-A1-A0SK-DX1_xmin45749_ymin25055_MPP-0.2500, which identifies the patient"
        )
    mpp = _mpp(image, stored_mpp)
    site = found["site"].upper()
    split = "test" if site in test else "val" if site in val else "train"
    return {"image": str(image), "mpp": mpp, "case_id": f"TCGA-{site}-{found['patient'].upper()}", "split": split}


def _mpp(image: Path, stored_mpp: float | None) -> float:
    found = _NAME.fullmatch(image.stem)
    mpp = stored_mpp or (float(found["mpp"]) if found and found["mpp"] else None)
    if not mpp:
        raise ValueError(f"{image}: the name does not end with the pixel size, as in _MPP-0.2500: give it with stored_mpp")
    return mpp


def _check_size(image: Path, mask: Path, codes: np.ndarray) -> None:
    try:
        with Image.open(image) as opened:
            size_px = opened.size
    except OSError as error:
        raise ValueError(f"{image} cannot be read ({error}): unpack it again") from error
    if size_px != codes.shape[::-1]:
        raise ValueError(f"{mask} is of {codes.shape[1]} x {codes.shape[0]} px, its image of {size_px[0]} x {size_px[1]} px")
