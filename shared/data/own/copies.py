"""Files with the same content under several names among your own images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..problems import first_names
from ..record import Record
from ..tissue_cache import slide_content_key


def without_copies(records: Sequence[Record]) -> tuple[list[Record], list[str]]:
    """The first record of each content, and a remark on those that were left out, if there are any.

    Raises:
        ValueError: for copies in different classes or splits.
    """
    first: dict[str, Record] = {}
    kept: list[Record] = []
    copies: list[str] = []
    for record in records:
        other = first.setdefault(slide_content_key(record["image"]), record)
        if other is record:
            kept.append(record)
            continue
        if (other["label"], other.get("split")) != (record["label"], record.get("split")):
            raise ValueError(
                f"{record['image']} is the same image as {other['image']}, in another class or split: keep one of them"
            )
        copies.append(f"{Path(record['image']).name} (of {Path(other['image']).name})")
    remarks = [f"left out {len(copies)} copies: files with the same content: {first_names(copies)}"] if copies else []
    return kept, remarks
