"""Under which terms a bundle's data are given, as its ``docs/data_license.txt`` says."""

from __future__ import annotations

import re
from pathlib import Path

FILE = Path("docs", "data_license.txt")
# What may be learned from such data and be given on, with the attribution.
_FREE = re.compile(r"\bCC0\b|\bCC BY 4\.0|public domain", re.IGNORECASE)


def data_terms(bundle: Path, overlay: str) -> str:
    """The paragraph that names the overlay of a data set: its title, source and licence.

    Raises:
        ValueError: if there is none, or its licence does not let what was learned from the data be given on.
    """
    path = bundle / FILE
    named = [
        text.strip() for text in path.read_text(encoding="utf-8").split("\n\n") if f"{overlay}.json" in text.partition("\n")[0]
    ]
    if not named:
        raise ValueError(
            f"{path} does not state the terms under which the data of {overlay}.json are distributed: add a paragraph that "
            "names the overlay"
        )
    if not _FREE.search(named[0]):
        raise ValueError(
            f"{path} states for the data of {overlay}.json: {' '.join(named[0].split())}. Expected CC0 or CC BY 4.0: weights "
            "learned from other data are not redistributed"
        )
    return named[0]
