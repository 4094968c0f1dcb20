"""Generated H&E-like images and slides with known truth: the embedded default data of every bundle."""

from .breast import BREAST_MPP, BreastPatch, BreastSlide, synthesize_breast_patch, synthesize_breast_slide
from .breast_demo import BREAST_VERSION, BreastPlan, BreastSlidePlan
from .demo import GENERATOR_VERSION, DemoPlan, SlidePlan, demo_manifest, rough_area, write_demo
from .image import MPP, SyntheticImage, synthesize_image
from .lesions import CLASS_NAMES
from .slide import SyntheticSlide, synthesize_slide, write_mask, write_slide
from .stain import EOSIN, HAEMATOXYLIN, Stain, sample_stain, stain_to_rgb
from .tissue import sample_tumour_share

__all__ = [
    "BREAST_MPP",
    "BREAST_VERSION",
    "CLASS_NAMES",
    "EOSIN",
    "GENERATOR_VERSION",
    "HAEMATOXYLIN",
    "MPP",
    "BreastPatch",
    "BreastPlan",
    "BreastSlide",
    "BreastSlidePlan",
    "DemoPlan",
    "SlidePlan",
    "Stain",
    "SyntheticImage",
    "SyntheticSlide",
    "demo_manifest",
    "rough_area",
    "sample_stain",
    "sample_tumour_share",
    "stain_to_rgb",
    "synthesize_breast_patch",
    "synthesize_breast_slide",
    "synthesize_image",
    "synthesize_slide",
    "write_demo",
    "write_mask",
    "write_slide",
]
