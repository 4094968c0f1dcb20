"""Your own slides with annotation files: exported from a QuPath project as GeoJSON, or drawn in ImageScope or ASAP."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath
from urllib.parse import unquote, urlsplit

from tqdm import tqdm

from ...writers.storage import check_inputs_stay
from ...wsi.annotations.annotation import Annotation
from ...wsi.annotations.annotation_file import annotation_stem, is_annotation_file
from ...wsi.annotations.reading import plain_name, read_annotations
from ...wsi.file_names import comparable
from ...wsi.slide import Slide
from ..case_pattern import CasePattern
from ..labels.class_annotations import class_areas, without_background, write_class_annotations
from ..labels.class_names import ClassNames
from ..problems import Problems
from ..public.releases import PublishedData
from ..record import Record
from ..record_masks import read_record_mask
from ..splits import assign_splits
from .class_folders import images_below, pixel_size_to_write
from .copies import without_copies

_TUMOUR = ClassNames(["background", "annotated"])


def annotated_slides(
    source: str | Path,
    annotations: str | Path,
    output: str | Path,
    classes: Sequence[str] | None = None,
    project: str | Path | None = None,
    case_pattern: str | None = None,
    mpp: float | None = None,
    allow_missing: bool = False,
    seed: int = 0,
    annotation_frame: str | None = None,
) -> PublishedData:
    """Slides with their annotations as masks.

    Args:
        source: folder of the slides, searched with the folders below it.
        annotations: folder of the annotation files, one per slide, searched likewise. A file has the name of its slide with or
            without the slide's ending, ``a b.svs.geojson`` or ``a b.geojson``, or that of the image in `project`.
        output: folder to write annotations to when `classes` are given: what is drawn, with the first name of each class, and
            background cut out of it. Otherwise the files are the masks as they are.
        classes: the class, or classes, of each index, background first, see `ClassNames`; None where all that is drawn is of one
            class: that is tumour, 1.
        project: ``project.qpproj`` of QuPath, where images have other names than their files.
        case_pattern: of the patient, in the path of a slide within `source` (`CasePattern`): a case stays whole in the split.
        mpp: micrometres per level-0 pixel of slides that do not say.
        allow_missing: leave out what cannot be used, instead of raising.
        seed: of the split, which is 65/15/20 by label (`assign_splits`).
        annotation_frame: of annotation files that do not name theirs, see `read_annotations`.

    Returns:
        Records of whole slides by path; ``label`` is the highest class that is drawn, and 0 where nothing is. Of files with the
        same content one is taken, and a remark says so.

    Raises:
        ValueError: naming all files at once that have no partner, cannot be read, have no pixel size, an annotation of another
            class, or annotations that all lie outside the slide; for annotations of several classes without `classes`; for
            copies of a slide whose labels differ; and, before anything is written, if an annotation file would be replaced.
    """
    source, annotations = Path(source), Path(annotations)
    for folder in (source, annotations):
        if not folder.is_dir():
            raise ValueError(f"the folder {folder} does not exist")
    names = None if classes is None else ClassNames(classes)
    cases = None if case_pattern is None else CasePattern(case_pattern)
    problems = Problems()
    pairs = _pairs(images_below(source.resolve()), annotations, _image_names(project), problems)
    if names is not None:
        check_inputs_stay(output, (f"{slide.name}.geojson" for slide in pairs), pairs.values())
    drawn: Counter[str] = Counter()
    bases: set[str] = set()
    used: dict[str, list[str]] = {}
    records: list[Record] = []
    for slide, file in tqdm(pairs.items(), desc="slides", unit="slide", disable=None):
        try:
            with Slide(slide) as opened:
                origin = opened.qupath_origin_px
            areas = read_annotations(file, frame=annotation_frame, qupath_origin_px=origin)
            own = [area.class_name for area in areas if not area.is_exclusion]
            drawn.update(own)
            bases |= {plain_name(area.base_class) for area in areas if not area.is_exclusion}
            record: Record = {"image": str(slide), "mpp": pixel_size_to_write(slide, mpp)}
            target = Path(output).resolve() / f"{slide.name}.geojson"
            label, mask = _label_and_mask(areas, file, target, names, origin)
            record |= {"label": label, "mask": str(mask) if mask else None}
            if mask == file and annotation_frame is not None:
                record["annotation_frame"] = annotation_frame
            if mask:
                _check_mask(record, names)
            case = cases.case_of(slide.relative_to(source.resolve()).as_posix()) if cases else None
        except ValueError as error:
            problems.add("slides that cannot be used", error)
            continue
        used[record["image"]] = own
        records.append({**record, "case_id": case})
    if names is None and len(bases) > 1:
        shown = ", ".join(f"{name or 'no class'} ({count})" for name, count in drawn.most_common())
        raise ValueError(f"{annotations}: give classes, background first, from the drawn classes: {shown}")
    remarks = problems.report(source, allow_missing)
    if not records:
        raise ValueError(f"{source} contains no usable annotated slide: " + "; ".join(remarks))
    records, copies = without_copies(records)
    remarks += copies
    empty = sum(record["label"] == 0 for record in records)
    if empty:
        remarks.append(f"{empty} slides have only background drawn, and count as background throughout")
    areas_of = Counter(name for record in records for name in used[record["image"]])
    remarks += [f"drawn: {count} areas of {name or 'no class'}" for name, count in areas_of.most_common()]
    assign_splits(records, seed=seed)
    counts = Counter(record["label"] for record in records)
    found = {name: counts[index] for index, name in enumerate((names or _TUMOUR).names)}
    return PublishedData(records, found, {}, remarks)


def _label_and_mask(
    areas: Sequence[Annotation], file: Path, target: Path, names: ClassNames | None, qupath_origin_px: tuple[int, int]
) -> tuple[int, Path | None]:
    """The highest class that is drawn, and the file of the mask: none for background throughout."""
    if names is None:
        label = int(any(not area.is_exclusion for area in areas))
        return label, file if label else None
    unknown = [area for area in areas if not area.is_exclusion and not any(map(names.knows, area.names))]
    if unknown:
        others = ", ".join(sorted({repr(area.class_name) if area.class_name else "none" for area in unknown}))
        raise ValueError(f"{file}: {len(unknown)} annotations have other classes than {', '.join(names.names)}: {others}")
    # A class that is not named is one of the nearest above it that is.
    indices = [None if area.is_exclusion else names.index_of(next(filter(names.knows, area.names))) for area in areas]
    kept = without_background(class_areas(areas, indices))
    if not kept:
        return 0, None
    write_class_annotations(target, kept, names.names, qupath_origin_px)
    return max(index for _, index in kept), target


def _check_mask(record: Record, names: ClassNames | None) -> None:
    """Read it as training will, which refuses annotations that all lie outside the slide."""
    num_classes = len((names or _TUMOUR).names)
    class_names = names.names if names and num_classes > 2 else None
    with Slide(record["image"]) as slide:
        read_record_mask(record, (0, 0), 1, slide.size_px, num_classes=num_classes, class_names=class_names)


def _pairs(
    slides: Sequence[Path], annotations: Path, image_names: Mapping[str, set[str]], problems: Problems
) -> dict[Path, Path]:
    """The annotation file of each slide."""
    files: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(annotations.resolve().rglob("*")):
        if is_annotation_file(path) and path.is_file() and not path.name.startswith("."):
            files[comparable(annotation_stem(path)).lower()].append(path)
    own = {slide: [file for name in _names_of(slide, image_names) for file in files.get(name, ())] for slide in slides}
    owners: dict[Path, list[Path]] = defaultdict(list)
    for slide, found in own.items():
        for file in found:
            owners[file].append(slide)
    several = [f"{slide} ({', '.join(file.name for file in found)})" for slide, found in own.items() if len(found) > 1]
    shared = [f"{file} ({', '.join(map(str, found))})" for file, found in owners.items() if len(found) > 1]
    problems.add("slides with several annotation files", *several)
    problems.add("annotation files of several slides", *shared)
    problems.add("slides without annotations", *(slide.name for slide, found in own.items() if not found))
    strays = [file.name for found in files.values() for file in found if file not in owners]
    problems.add("annotation files without a slide", *strays)
    return {slide: found[0] for slide, found in own.items() if len(found) == 1 and len(owners[found[0]]) == 1}


def _names_of(slide: Path, image_names: Mapping[str, set[str]]) -> list[str]:
    """The names that an annotation file of a slide may have, in lower case, without their ending."""
    name = comparable(slide.name).lower()
    names = {name} | image_names.get(name, set())
    return sorted(names | {Path(name).stem for name in names} | {name.removesuffix(".ome.tif") for name in names})


def _image_names(project: str | Path | None) -> dict[str, set[str]]:
    """The names that QuPath's images have in a project, by the names of their files, in lower case."""
    if project is None:
        return {}
    try:
        entries = json.loads(Path(project).read_bytes())["images"]
        names: dict[str, set[str]] = defaultdict(set)
        for entry in entries:
            # A project that was made on another machine names its paths.
            path = unquote(urlsplit(entry["serverBuilder"]["uri"]).path)
            names[comparable(PureWindowsPath(path).name).lower()].add(comparable(entry["imageName"]).lower())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{project} is not a QuPath project ({error!r}): give its project.qpproj") from error
    return names
