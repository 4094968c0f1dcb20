"""Reading slides, tiles and masks. Points are (x, y) in level-0 pixels, sizes (width, height), arrays (H, W)."""

from .annotations import (
    ANNOTATION_FRAMES,
    EXCLUSION_NAMES,
    Annotation,
    AnnotationMask,
    annotation_stem,
    check_classes,
    is_annotation_file,
    read_annotations,
)
from .ink import ink_mask
from .mask_region import open_annotation_mask, read_mask_region
from .slide import Slide
from .slide_pool import SlidePool, open_slide
from .tissue import TISSUE_METHODS, tissue_mask
from .tissue_map import TissueMap, find_tissue

__all__ = [
    "ANNOTATION_FRAMES",
    "EXCLUSION_NAMES",
    "TISSUE_METHODS",
    "Annotation",
    "AnnotationMask",
    "Slide",
    "SlidePool",
    "TissueMap",
    "annotation_stem",
    "check_classes",
    "find_tissue",
    "ink_mask",
    "is_annotation_file",
    "open_annotation_mask",
    "open_slide",
    "read_annotations",
    "read_mask_region",
    "tissue_mask",
]
