"""Code shared by the readers of published data sets: files by name, counts compared with the published ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...wsi.readers.pillow import PillowReader
from ..manifest import write_manifest
from ..record import Record
from ..splits import SPLITS

# Published tiles are pictures, no slides.
IMAGE_SUFFIXES = PillowReader.suffixes


@dataclass
class PublishedData:
    """The part of a published data set that was found.

    Attributes:
        records: of images, for manifests.
        found: images found in each part of the release, as published (a folder, a class, an official split).
        published: how many its owners name for each of these parts; a part that they do not count is left out.
        remarks: what is missing or was left out.
    """

    records: list[Record] = field(default_factory=list)
    found: dict[str, int] = field(default_factory=dict)
    published: Mapping[str, int] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The remarks, then a line for each part: found and published."""
        shown = [f"note: {remark}" for remark in self.remarks]
        for part in dict.fromkeys((*self.published, *self.found)):
            beside = f" ({self.published[part]} were published)" if part in self.published else ""
            shown.append(f"{part}: {self.found.get(part, 0)} images{beside}")
        return shown


def images_of(folder: str | Path) -> dict[str, Path]:
    """The images in a folder by their stem, in order, as absolute paths; files of other kinds and hidden ones are passed over.

    A link keeps its own name: in stores such as git-annex that of the file it points to says nothing.

    Raises:
        ValueError: if there is no such folder, or two images differ in their suffix alone.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"the folder {folder} does not exist")
    images: dict[str, Path] = {}
    for path in sorted(folder.resolve().iterdir()):
        if path.name.startswith(".") or path.suffix.lower() not in IMAGE_SUFFIXES or not path.is_file():
            continue
        first = images.setdefault(path.stem, path)
        if first is not path:
            raise ValueError(f"{path} exists twice, also as {first.name}: keep one of them")
    return images


def folder_of(source: str | Path, *names: str) -> Path:
    """The folder with one of these names, in any case, in `source` or, where an archive was unpacked into its own, one below.

    Raises:
        ValueError: if there is none, or `source` does not exist.
    """
    source = Path(source)
    if not source.is_dir():
        raise ValueError(f"the folder {source} does not exist")
    wanted = {name.casefold() for name in names}
    below = sorted(path for path in source.iterdir() if path.is_dir())
    for folder in (*below, *(path for parent in below for path in sorted(parent.iterdir()) if path.is_dir())):
        if folder.name.casefold() in wanted:
            return folder
    raise ValueError(f"{source} contains no folder {' or '.join(map(repr, names))}: give the unpacked data set")


def split_lines(records: Sequence[Record], class_names: Sequence[str]) -> list[str]:
    """A line for each split of a manifest: its images, regions and cases, and how many have each label."""
    lines = []
    for split in SPLITS:
        own = [record for record in records if record["split"] == split]
        images, cases = ({record[name] for record in own if record.get(name)} for name in ("image", "case_id"))
        regions = f"{len(own)} regions of " if any(record.get("x") is not None for record in own) else ""
        of_cases = f" of {len(cases)} cases" if cases else ""
        counts = Counter(record["label"] for record in own)
        labels = ", ".join(f"{counts[index]} {name}" for index, name in enumerate(class_names) if counts[index])
        lines.append(f"{split}: {regions}{len(images)} images{of_cases}{f': {labels}' if labels else ''}")
    return lines


def write_manifests(
    data: PublishedData, folder: str | Path, manifests: Mapping[str, tuple[Sequence[Record], Sequence[str]]]
) -> list[str]:
    """Write manifests of a published data set.

    Args:
        data: for the lines.
        folder: to write to.
        manifests: records and names of the classes of each file.

    Returns:
        What a user wants to know: the lines of `data`, and of each manifest those of `split_lines`.

    Raises:
        ValueError: if a manifest has no records; none is written then.
    """
    empty = [name for name, (records, _) in manifests.items() if not records]
    if empty:
        raise ValueError(f"no image is left for {', '.join(empty)}. {' '.join(data.remarks)}")
    lines = data.lines()
    for name, (records, class_names) in manifests.items():
        path = Path(folder) / name
        write_manifest(records, path)
        lines += [f"{path}:", *(f"  {line}" for line in split_lines(records, class_names))]
    return lines
