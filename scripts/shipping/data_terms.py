"""Under which terms a bundle's data are given, as its ``docs/data_license.txt`` says."""

from __future__ import annotations

import re
from pathlib import Path

FILE = Path("docs", "data_license.txt")
# What may be learned from such data and be given on, with the attribution.
_FREE = re.compile(r"\bCC0\b|\bCC BY 4\.0|public domain", re.IGNORECASE)


def data_terms(bundle: Path, name: str) -> str:
    """The paragraph whose first line names a head's folder in ``models``, or the overlay of its data: title, source and licence.

    Raises:
        ValueError: if there is none, or its licence does not let what was learned from the data be given on.
    """
    path = bundle / FILE
    paragraphs = [text.strip() for text in path.read_text(encoding="utf-8").split("\n\n")]
    # A title, and below it source and licence.
    titled = [text for text in paragraphs if "\n" in text]
    of_name = re.compile(rf"(?<![\w/])({re.escape(name)}\.json|models/{re.escape(name)})(?!\w)")
    named = [text for text in titled if of_name.search(text.partition("\n")[0])]
    if not named:
        raise ValueError(
            f"{path} does not state the terms under which the data of {name} are distributed: add a paragraph whose first line "
            f"names the overlay {name}.json or the folder models/{name}"
        )
    if not _FREE.search(named[0]):
        raise ValueError(
            f"{path} states for the data of {name}: {' '.join(named[0].split())}. Expected CC0 or CC BY 4.0: weights "
            "learned from other data are not redistributed"
        )
    return named[0]
