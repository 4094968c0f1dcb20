"""Annotation files of whole slides: the outlines that people drew, (x, y) in level-0 pixels."""

from .annotation import Annotation
from .annotation_mask import AnnotationMask, check_classes
from .reading import ANNOTATION_SUFFIXES, EXCLUSION_NAMES, read_annotations

__all__ = [
    "ANNOTATION_SUFFIXES",
    "EXCLUSION_NAMES",
    "Annotation",
    "AnnotationMask",
    "check_classes",
    "read_annotations",
]
