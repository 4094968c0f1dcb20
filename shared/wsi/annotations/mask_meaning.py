"""The meaning of a mask's values, and the classes and coordinates of an annotation file."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from .annotation_classes import check_classes
from .frames import check_frame


@dataclass(frozen=True)
class MaskMeaning:
    """How a mask is read. All but `num_classes` is for annotation files alone.

    Args:
        num_classes: classes, from 2 to 255.
        class_names: the class of each index, see `class_indices`.
        tumour_classes: without `class_names`: the classes that are tumour, see `class_indices`; None: all that is annotated is
            tumour, and must be of one class.
        annotation_frame: of files that do not name theirs, see `read_annotations`.
        needs_tumour: see `class_indices`.

    Raises:
        ValueError: if the classes and their names do not agree, or the frame is not known.
    """

    num_classes: int = 2
    class_names: Sequence[str] | None = None
    tumour_classes: Collection[str] | None = None
    annotation_frame: str | None = None
    needs_tumour: bool = False

    def __post_init__(self) -> None:
        check_classes(self.num_classes, self.class_names)
        if isinstance(self.tumour_classes, str):
            raise ValueError(f"tumour_classes must be a list of names, got {self.tumour_classes!r}")
        if self.annotation_frame is not None:
            check_frame(self.annotation_frame)
        # What masks are kept by must be hashable.
        for name in ("class_names", "tumour_classes"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else tuple(value))


TUMOUR_MASK = MaskMeaning()
