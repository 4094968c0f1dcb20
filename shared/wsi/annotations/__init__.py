"""Annotation files of whole slides: the outlines that people drew, (x, y) in level-0 pixels."""

from .annotation import Annotation
from .annotation_classes import UNCLASSIFIED, check_classes, class_counts, class_indices, is_neutral
from .annotation_file import annotation_stem, is_annotation_file
from .annotation_mask import AnnotationMask
from .drawing_order import drawn_areas, visible_areas
from .frames import ANNOTATION_FRAMES, FRAME_MEMBER, LEVEL0, QUPATH, check_frame, frame_origin_px
from .reading import EXCLUSION_NAMES, read_annotations, read_annotations_in_frame

__all__ = [
    "ANNOTATION_FRAMES",
    "EXCLUSION_NAMES",
    "FRAME_MEMBER",
    "LEVEL0",
    "QUPATH",
    "UNCLASSIFIED",
    "Annotation",
    "AnnotationMask",
    "annotation_stem",
    "check_classes",
    "check_frame",
    "class_counts",
    "class_indices",
    "drawn_areas",
    "frame_origin_px",
    "is_annotation_file",
    "is_neutral",
    "read_annotations",
    "read_annotations_in_frame",
    "visible_areas",
]
