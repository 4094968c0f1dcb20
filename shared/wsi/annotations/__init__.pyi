from .annotation import Annotation as Annotation
from .annotation_classes import (
    UNCLASSIFIED as UNCLASSIFIED,
    check_classes as check_classes,
    class_counts as class_counts,
    class_indices as class_indices,
    is_neutral as is_neutral,
)
from .annotation_file import annotation_stem as annotation_stem, is_annotation_file as is_annotation_file
from .annotation_mask import AnnotationMask as AnnotationMask
from .drawing_order import drawn_areas as drawn_areas, visible_areas as visible_areas
from .frames import (
    ANNOTATION_FRAMES as ANNOTATION_FRAMES,
    FRAME_MEMBER as FRAME_MEMBER,
    LEVEL0 as LEVEL0,
    QUPATH as QUPATH,
    check_frame as check_frame,
    frame_origin_px as frame_origin_px,
)
from .reading import (
    EXCLUSION_NAMES as EXCLUSION_NAMES,
    read_annotations as read_annotations,
    read_annotations_in_frame as read_annotations_in_frame,
)
