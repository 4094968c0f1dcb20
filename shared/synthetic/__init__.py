"""Generated H&E-like images and slides with known truth: the embedded default data of every bundle."""

from .demo import GENERATOR_VERSION, DemoPlan, SlidePlan, demo_manifest, rough_area, write_demo
from .image import MPP, SyntheticImage, synthesize_image
from .slide import SyntheticSlide, synthesize_slide, write_mask, write_slide
from .stain import EOSIN, HAEMATOXYLIN, Stain, sample_stain, stain_to_rgb
from .tissue import sample_tumour_share

__all__ = [
    "EOSIN",
    "GENERATOR_VERSION",
    "HAEMATOXYLIN",
    "MPP",
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
    "synthesize_image",
    "synthesize_slide",
    "write_demo",
    "write_mask",
    "write_slide",
]
