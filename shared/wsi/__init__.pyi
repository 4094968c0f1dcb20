from .annotations.annotation import Annotation as Annotation
from .annotations.annotation_file import annotation_stem as annotation_stem, is_annotation_file as is_annotation_file
from .annotations.annotation_mask import AnnotationMask as AnnotationMask
from .annotations.frames import ANNOTATION_FRAMES as ANNOTATION_FRAMES
from .annotations.mask_meaning import MaskMeaning as MaskMeaning
from .annotations.reading import EXCLUSION_NAMES as EXCLUSION_NAMES, read_annotations as read_annotations
from .mask_region import read_mask_region as read_mask_region
from .slide import Slide as Slide
from .slide_pool import SlidePool as SlidePool, open_slide as open_slide
from .tissue.detection import TISSUE_METHODS as TISSUE_METHODS, tissue_mask as tissue_mask
from .tissue.ink import ink_mask as ink_mask
from .tissue.tissue_map import TissueMap as TissueMap, find_tissue as find_tissue
