"""The probabilities of each tile, in the CSV that WSInfer writes and QuPath's WSInfer extension reads."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .atomic import atomic_path

Box = tuple[int, int, int, int]


class TileTable:
    """Rows ``minx, miny, width, height, prob_<class>``, ...: level-0 pixels, probabilities in [0, 1].

    Args:
        writer: of the CSV.
        box_of: from a tile (row, column) to its (minx, miny, width, height).
        class_names: in the order of the probabilities.
    """

    def __init__(self, writer: Any, box_of: Callable[[tuple[int, int]], Box], class_names: Sequence[str]) -> None:
        self._writer, self._box_of = writer, box_of
        writer.writerow(["minx", "miny", "width", "height", *(f"prob_{column_name(name)}" for name in class_names)])

    def add(self, tile: tuple[int, int], probabilities: Sequence[float]) -> None:
        """Add one tile; with a single probability, the first of two classes gets the rest to 1."""
        values = [1 - probabilities[0], *probabilities] if len(probabilities) == 1 else probabilities
        self._writer.writerow([*self._box_of(tile), *(f"{value:.6g}" for value in values)])


@contextmanager
def tile_table(path: str | Path, box_of: Callable[[tuple[int, int]], Box], class_names: Sequence[str]) -> Iterator[TileTable]:
    """Write a `TileTable` row by row; the file appears when the block ends without an error."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        yield TileTable(csv.writer(file), box_of, class_names)


def column_name(class_name: str) -> str:
    """A class's name in a column's: without white space.

    >>> column_name("in situ")
    'in_situ'
    """
    return "_".join(class_name.split())
