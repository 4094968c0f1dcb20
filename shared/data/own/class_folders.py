"""Your own images in one folder per class, whole slides or tiles.

::

    <source>/<class>/...                       a split is made by seed
    <source>/{train,val,test}/<class>/...      the split as it is there

Images may lie in further folders below their class.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from ...wsi.annotations.annotation_file import is_annotation_file
from ...wsi.formats import is_plain_picture
from ...wsi.image_search import find_image_files
from ...wsi.slide import Slide
from ..case_pattern import CasePattern
from ..labels.class_names import ClassNames
from ..problems import Problems
from ..public.releases import PublishedData
from ..record import Record
from ..record_masks import join_names, read_record_mask, without_label
from ..splits import SPLITS, assign_splits
from .copies import without_copies
from .image_masks import ImageMasks

_SPLIT_OF = {name: name for name in SPLITS} | {"training": "train", "valid": "val", "validation": "val", "testing": "test"}


def images_below(folder: Path) -> list[Path]:
    """Slides and tiles in a folder, which may be a link, and those below it, absolute, in order: see `find_image_files`."""
    return find_image_files(folder.parent.resolve() / folder.name)


def pixel_size_to_write(path: Path, mpp: float | None) -> float | None:
    """The manifest's ``mpp`` of a file: None for files that state it themselves, and for tiles without, which are read as stored.

    Args:
        path: of the slide or tile.
        mpp: micrometres per level-0 pixel where the file does not say; None if that is not known.

    Raises:
        ValueError: for a file that cannot be read, and for a slide of which nothing says it.
    """
    with Slide(path) as slide:
        if slide.has_mpp:
            return None
    if mpp is None and not is_plain_picture(path):
        raise ValueError(f"{path} does not state its pixel size{slide.mpp_note}: give mpp")
    return mpp


def class_folder_images(
    source: str | Path,
    classes: Sequence[str] | None = None,
    masks: str | Path | None = None,
    case_pattern: str | None = None,
    mpp: float | None = None,
    allow_missing: bool = False,
    seed: int = 0,
    tumour_classes: Sequence[str] | None = None,
    annotation_frame: str | None = None,
) -> PublishedData:
    """Images with the class of their folder.

    Args:
        source: folder of the class folders, or of train, val and test with class folders in them.
        classes: the folder, or folders, of each class index, background first, see `ClassNames`; None where the folders are
            named 0, 1, ...
        masks: folder of masks or annotation files, searched with the folders below it, each named as its image: ``a.png`` or
            ``a_mask.png`` of ``a.jpg``; where several images or masks have one name, their folders decide (`ImageMasks`).
        case_pattern: of the patient, in the path of an image within `source` (`CasePattern`): a case stays whole in the split.
        mpp: micrometres per level-0 pixel of files that do not say. Tiles (PNG, JPEG, BMP) may go without.
        allow_missing: leave out what cannot be used, instead of raising.
        seed: of the split, which is 65/15/20 by label (`assign_splits`).
        tumour_classes: of masks that are annotation files: the classes that are tumour, see `read_record_mask`.
        annotation_frame: of annotation files that do not name theirs, see `read_annotations`.

    Returns:
        Records of whole images by class and name. Of files with the same content one is taken, and a remark says so.

    Raises:
        ValueError: naming all files at once that cannot be read, have no pixel size or no mask, or one that may be another's;
            for the same image in two classes or splits, or folders that do not fit `classes`.
    """
    source = Path(source)
    folders = _class_folders(source, None if masks is None else Path(masks).resolve())
    names = _class_names(source, {folder.name for _, folder in folders}, classes)
    cases = None if case_pattern is None else CasePattern(case_pattern)
    meaning = join_names(tumour_classes), annotation_frame
    problems = Problems()
    records: list[Record] = []
    found = [(split, folder, path) for split, folder in folders for path in images_below(folder)]
    image_masks = None if masks is None else ImageMasks(Path(masks), [path for _, _, path in found], source)
    for split, folder, path in tqdm(found, desc="images", unit="image", disable=None):
        try:
            record: Record = {"image": str(path), "mpp": pixel_size_to_write(path, mpp), "label": names.index_of(folder.name)}
            mask = None if image_masks is None else _mask(path, image_masks, record)
            is_drawn = mask is not None and is_annotation_file(mask)
            record["mask"] = None if mask is None else str(mask)
            record["tumour_classes"], record["annotation_frame"] = meaning if is_drawn else (None, None)
            if mask is not None:
                with Slide(path) as slide:
                    # Of several classes the mask of an image may show others than its label.
                    read_record_mask(record if len(names.names) == 2 else without_label(record), (0, 0), 1, slide.size_px)
            case = cases.case_of(path.relative_to(source.resolve()).as_posix()) if cases else None
        except ValueError as error:
            problems.add("images that cannot be used", error)
            continue
        records.append({**record, "case_id": case, "split": split})
    if not found:
        raise ValueError(f"{source} contains no image in its folders {', '.join(sorted({folder.name for _, folder in folders}))}")
    remarks = problems.report(source, allow_missing)
    records, copies = without_copies(records)
    remarks += copies
    if not records:
        raise ValueError(f"{source} contains no usable image: " + "; ".join(remarks))
    if not any(record["split"] for record in records):
        assign_splits(records, seed=seed)
    counts = Counter(record["label"] for record in records)
    return PublishedData(records, {name: counts[index] for index, name in enumerate(names.names)}, {}, remarks)


def _class_folders(source: Path, masks: Path | None) -> list[tuple[str | None, Path]]:
    """The class folders, each with its split; not that of the masks."""
    if not source.is_dir():
        raise ValueError(f"the folder {source} does not exist: give the folder of the class folders")
    folders = [folder for folder in _folders_in(source) if folder != masks]
    if not folders:
        raise ValueError(f"{source} contains no folders: expected one folder per class")
    splits = [_SPLIT_OF.get(folder.name.lower()) for folder in folders]
    if not any(splits):
        return [(None, folder) for folder in folders]
    if not all(splits):
        others = ", ".join(folder.name for folder, split in zip(folders, splits, strict=True) if split is None)
        raise ValueError(
            f"{source} contains folders of splits and others: {others}; expected either train, val, test or one folder per class"
        )
    return [(split, below) for folder, split in zip(folders, splits, strict=True) for below in _folders_in(folder)]


def _folders_in(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.resolve().iterdir()) if path.is_dir() and not path.name.startswith(".")]


def _class_names(source: Path, folders: set[str], classes: Sequence[str] | None) -> ClassNames:
    if classes is None:
        if folders != {str(index) for index in range(len(folders))} or len(folders) < 2:
            raise ValueError(f"{source}: give classes, background first, from: {', '.join(sorted(folders))}")
        return ClassNames([str(index) for index in range(len(folders))])
    names = ClassNames(classes)
    unknown = sorted(folder for folder in folders if not names.knows(folder))
    if unknown:
        raise ValueError(f"{source}: the folders {', '.join(unknown)} are not among the classes {', '.join(classes)}")
    return names


def _mask(path: Path, masks: ImageMasks, record: Record) -> Path | None:
    """The mask of an image; None for background without one."""
    mask = masks.of(path)
    if mask is None and record["label"] != 0:
        raise ValueError(f"{path} has no mask{masks.of_others(path)}")
    return mask
