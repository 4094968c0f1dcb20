"""EBHI-Seg, colorectal biopsies, as it is unpacked: six folders of classes, each with tiles and their masks.

::

    EBHI-SEG/
        {Normal,Polyp,Low-grade IN,High-grade IN,Serrated adenoma,Adenocarcinoma}/
            image/GT2012149-1-400-001.png    224 x 224 px at 400x
            label/GT2012149-1-400-001.png    not 0 where tissue of this class is

The digits after ``GT`` (also ``GTXC``, ``GTDC``) are taken for the case, which the owners do not say. Two tiles of the release
have no partner.

Published at https://doi.org/10.6084/m9.figshare.21540159 (CC BY 4.0); Shi et al., Frontiers in Medicine 2023.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from ..labels.class_masks import object_classes, write_class_mask
from ..problems import Problems, first_names
from ..record import Record
from ..splits import assign_splits
from .releases import PublishedData, folder_of, images_of

# Index 0 is what the masks leave out. In the order of their severity, as far as there is one.
EBHI_CLASSES = (
    "background",
    "normal",
    "polyp",
    "low-grade neoplasia",
    "high-grade neoplasia",
    "serrated adenoma",
    "adenocarcinoma",
)
# Folder and tiles of each class above.
PUBLISHED_TILES = {
    "Normal": 76,
    "Polyp": 474,
    "Low-grade IN": 639,
    "High-grade IN": 186,
    "Serrated adenoma": 58,
    "Adenocarcinoma": 795,
}
PUBLISHED_WITHOUT_PARTNER = 2
TUMOUR_CLASSES, NORMAL_CLASSES = ("Adenocarcinoma",), ("Normal", "Polyp")


def ebhi_seg(source: str | Path, masks: str | Path, allow_missing: bool = False, seed: int = 0) -> PublishedData:
    """The tiles of EBHI-Seg with their six classes, split by case.

    Args:
        source: folder with the six class folders, or the one above it.
        masks: folder to write ``<class>/<tile>.png`` to, masks of indices in `EBHI_CLASSES`.
        allow_missing: leave out class folders that are not there, and more tiles without partner than were published.
        seed: of the split (`assign_splits`): the cases are dealt out 65/15/20, their several classes alike.

    Returns:
        Records by class and name, with ``label`` (an index in `EBHI_CLASSES`), ``mask``, ``case_id``, ``split``, and, in
        addition to the manifest's columns ``class_folder`` and ``published_mask``.

    Raises:
        ValueError: naming the folder or file, for what is missing, a mask that is no mask, or a name without a case.
    """
    root = folder_of(source, *PUBLISHED_TILES).parent
    data = PublishedData(published=PUBLISHED_TILES)
    folders = {path.name.casefold(): path for path in root.iterdir() if path.is_dir()}
    absent = [name for name in PUBLISHED_TILES if name.casefold() not in folders]
    problems = Problems()
    problems.add(f"folders of classes not found in {root}", *absent)
    data.remarks += problems.report(root, allow_missing)
    tiles: list[tuple[int, str, Path, Path]] = []
    lonely: list[str] = []
    for label, name in enumerate(PUBLISHED_TILES, start=1):
        if name in absent:
            continue
        images, labels = (images_of(folders[name.casefold()] / part) for part in ("image", "label"))
        data.found[name] = len(images)
        tiles += [(label, name, path, labels[stem]) for stem, path in images.items() if stem in labels]
        lonely += [
            f"{name}/{part}/{files[stem].name}"
            for part, files, other in _pairs(images, labels)
            for stem in files
            if stem not in other
        ]
    unpaired = Problems()
    unpaired.add(f"image files without a label file, or the reverse, in {root}", *lonely)
    data.remarks += unpaired.report(root, allow_missing or len(lonely) <= PUBLISHED_WITHOUT_PARTNER)
    for label, name, image, published in tqdm(tiles, desc="masks", unit="tile", disable=None):
        mask = Path(masks).resolve() / EBHI_CLASSES[label].replace(" ", "_") / f"{image.stem}.png"
        write_class_mask(published, mask, object_classes(label))
        record: Record = {"image": str(image), "label": label, "mask": str(mask), "case_id": _case(image)}
        data.records.append({**record, "class_folder": name, "published_mask": str(published)})
    if not data.records:
        raise ValueError(f"{root} contains no tile with a mask")
    assign_splits(data.records, seed=seed)
    return data


def ebhi_tumour(
    records: Sequence[Record], tumour: Sequence[str] = TUMOUR_CLASSES, normal: Sequence[str] = NORMAL_CLASSES
) -> list[Record]:
    """Records of tumour (1) and normal (0) tiles from those of `ebhi_seg`; tiles of other classes are left out.

    A tumour tile's mask is the published one; a normal tile needs none.

    Args:
        records: of `ebhi_seg`.
        tumour: folders of the classes that are tumour.
        normal: folders of those that are not.

    Raises:
        ValueError: for folders that do not exist, or are both.
    """
    unknown = sorted({*tumour, *normal} - PUBLISHED_TILES.keys())
    both = sorted({*tumour} & {*normal})
    if unknown or both:
        raise ValueError(
            f"{first_names(unknown or both)}: tumour and normal must be classes of {', '.join(PUBLISHED_TILES)}, none of them "
            f"in both; got tumour {', '.join(tumour)} and normal {', '.join(normal)}"
        )
    return [
        {**record, "label": int(is_tumour), "mask": record["published_mask"] if is_tumour else None}
        for record in records
        if (is_tumour := record["class_folder"] in tumour) or record["class_folder"] in normal
    ]


def _pairs(images: dict[str, Path], labels: dict[str, Path]) -> list[tuple[str, dict[str, Path], dict[str, Path]]]:
    return [("image", images, labels), ("label", labels, images)]


def _case(image: Path) -> str:
    found = re.match(r"[a-z]+(\d+)", image.stem, re.IGNORECASE)
    if found is None:
        raise ValueError(
            f"{image}: the name does not identify the case: expected letters and a number, such as GT2012149-1-400-001"
        )
    return found.group(1)
