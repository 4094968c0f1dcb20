"""What is said where a manifest leaves it to the project which of its slides train, validate and test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from shared.data.manifest import assigns_splits
from shared.data.record import Record
from shared.data.splits import SPLITS


def notes_on_splits(manifest: Path, records: Sequence[Record]) -> list[str]:
    """A note, unless the manifest assigns splits itself: what is cut from its slides has those that were drawn for them.

    Args:
        manifest: of the slides.
        records: all of them, as `load_manifest` returns them.
    """
    if assigns_splits(manifest):
        return []
    counts = Counter(record["split"] for record in records)
    shown = ", ".join(f"{counts[split]} {split}" for split in SPLITS)
    return [
        f"note: {manifest} assigns no slide to a split: {shown} were drawn at random, each case as a whole, as for a training on "
        "the slides themselves. They are written to the new manifest, and a cross-validation on that leaves its test slides out. "
        "Fill the column 'split' to divide the slides otherwise"
    ]
